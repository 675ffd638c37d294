"""From facts to prompts whose formats can be switched: with and without text, with memories and clusters, answer, foil.

Prompts of one condition (text or none, as many memories, as many levels) run together, filled up on the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.facts import Fact
from probes.prompts import encode_answer, list_counterfactuals, refuse_length
from workbench.answers import Found
from workbench.cases import Side, build_side
from workbench.engine import Engine
from workbench.settings import Settings

if TYPE_CHECKING:
    from circuits.coalitions import Asked
    from probes.attachments import Attachment, ExplicitBlocks


@dataclass(frozen=True, slots=True)
class Laid:
    """One question laid out: token ids without and with the text (empty where there is none), and what is attached.

    `text` is where the text stands in `behind`: its first position and the one behind its last; then where the same
    question goes on in `plain`. `explicit` is a memory that is in no bank (written for a conflict; None: those of
    `found` are read), `written` its tokens and the kept ones as in `workbench/provenance.py`.
    """

    id: str
    prompt: str
    answer: str
    foil: str
    plain: tuple[int, ...]
    behind: tuple[int, ...]
    text: tuple[int, int, int]
    answer_ids: tuple[int, ...]
    foil_ids: tuple[int, ...]
    path: tuple[int, ...] = ()
    found: tuple[Found, ...] = ()
    explicit: ExplicitBlocks | None = None
    written: Mapping[str, Any] | None = None

    @property
    def condition(self) -> tuple[bool, int, int]:
        """What must be equal for prompts to run together: text or none, memories, levels."""
        blocks = len(self.found) if self.explicit is None else len(self.explicit)
        return bool(self.behind), blocks, len(self.path)


def choose_foil(engine: Engine, fact: Fact, facts: Sequence[Fact], seed: int) -> str:
    """Answer to compare with: that of the counterfactual which a trace would choose first, else any as long in tokens.

    Raises UserError when no other fact of the relation has another answer as long in tokens.
    """
    other = next(list_counterfactuals(engine.model, fact, facts, seed), None)
    if other is not None:
        return other.answer
    steps = len(engine.model.encode_plain(fact.answer))
    for other in facts:
        rival = other.relation == fact.relation and other.answer != fact.answer
        if rival and len(engine.model.encode_plain(other.answer)) == steps:
            return other.answer
    raise UserError(
        f"no other {fact.relation} fact has another answer of {steps} tokens to compare with: give a foil, or measure "
        "log-prob"
    )


def find_text(plain: Sequence[int], behind: Sequence[int]) -> tuple[int, int, int]:
    """Where the text stands in the longer prompt, and where the plain one goes on like what follows the text.

    Both may start alike (`<s>`), and end in the same question. Raises UserError when they do not.
    """
    shared = first = 0
    while shared < len(plain) and plain[-1 - shared] == behind[-1 - shared]:
        shared += 1
    start, stop = len(plain) - shared, len(behind) - shared
    while first < start and plain[first] == behind[first]:
        first += 1
    if not shared or stop <= first:
        raise UserError("the question does not stand whole behind the text, so the two prompts cannot be aligned")
    return first, stop, start


def lay_out(
    engine: Engine,
    side: Side,
    name: str,
    answer: str,
    foil: str,
    settings: Settings,
    explicit: ExplicitBlocks | None = None,
) -> Laid:
    """Lay out one side's prompt. Raises UserError for an answer that cannot be compared, or a prompt too long."""
    model = engine.model
    answer, answer_ids = encode_answer(model, answer, side.prompt)
    foil_ids = answer_ids
    if settings.metric == "logit-diff":
        foil, foil_ids = encode_answer(model, foil, side.prompt, "foil")
    if len(foil_ids) != len(answer_ids):
        raise UserError(
            f"the answer has {len(answer_ids)} tokens and the foil {len(foil_ids)}: choose a foil of the same length, "
            "or the metric log-prob"
        )
    if settings.metric == "logit-diff" and answer_ids == foil_ids:
        raise UserError("answer and foil are the same: choose another foil, or the metric log-prob")
    taught, plain, behind = answer_ids[:-1], tuple(model.encode(side.prompt)), tuple[int, ...]()
    if side.text:
        prompt = side.build_prompt(engine.template)
        behind = tuple(model.encode(prompt))
        if encode_answer(model, answer, prompt)[1] != answer_ids:
            raise UserError("the answer has other tokens behind the text than without it: they cannot be compared")
    refuse_length(model, max(len(plain), len(behind)) + len(taught))
    text = find_text(plain, behind) if behind else (0, 0, 0)
    behind = behind + taught if behind else ()
    return Laid(
        name,
        side.prompt,
        answer,
        foil if settings.metric == "logit-diff" else "",
        plain + taught,
        behind,
        text,
        answer_ids,
        foil_ids,
        side.path,
        side.found,
        explicit,
    )


def lay_fact(engine: Engine, fact: Fact, facts: Sequence[Fact], settings: Settings, foil: str = "") -> Laid:
    """Lay out a fact with the memories and the text that the settings give it."""
    side = build_side(engine, settings, fact, fact.prompt)
    if settings.metric == "logit-diff" and not foil:
        foil = choose_foil(engine, fact, facts, settings.seed)
    return lay_out(engine, side, fact.id, fact.answer, foil, settings)


def attach(engine: Engine, batch: Sequence[Laid]) -> Attachment:
    """Memories and bank blocks of laid questions, a row each."""
    from probes.attachments import Attachment, stack_attachments

    if all(laid.explicit is None for laid in batch):
        return engine.attach_rows([(laid.path, tuple(one.id for one in laid.found)) for laid in batch])
    rows = [
        engine.attach(laid.path, tuple(one.id for one in laid.found))
        if laid.explicit is None
        else Attachment(laid.explicit, engine.attach(laid.path, ()).bank)
        for laid in batch
    ]
    return rows[0] if len(rows) == 1 else stack_attachments(rows)


def build_asked(engine: Engine, batch: Sequence[Laid]) -> Asked:
    """A batch of laid questions of one condition, ready to run."""
    import torch

    from circuits.coalitions import Asked
    from circuits.metrics import Readout, build_readout
    from circuits.problem import pad_tokens

    assert len({laid.condition for laid in batch}) == 1
    device = str(engine.model.device)
    answers, foils = [laid.answer_ids for laid in batch], [laid.foil_ids for laid in batch]

    def read(rows: Sequence[tuple[int, ...]]) -> Readout:
        lengths = [len(row) - len(answer) + 1 for row, answer in zip(rows, answers, strict=True)]
        return build_readout(lengths, answers, foils, device)

    plain, behind = [laid.plain for laid in batch], [laid.behind for laid in batch]
    text = bool(behind[0])
    return Asked(
        plain=pad_tokens(plain).to(device),
        readout=read(plain),
        attachment=attach(engine, batch),
        with_text=pad_tokens(behind).to(device) if text else None,
        text_readout=read(behind) if text else None,
        texts=torch.tensor([laid.text for laid in batch], device=device) if text else None,
    )
