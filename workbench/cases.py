"""From a question to a case: which prompts, which answer and foil, and which memories stand on either side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.facts import Fact, find_fact
from probes.prompts import PromptPair, encode_answer, find_named_fact, list_counterfactuals, pair_prompts
from workbench.answers import Found
from workbench.engine import Engine
from workbench.pair_tables import list_questions
from workbench.settings import Question, Settings

if TYPE_CHECKING:
    from circuits.problem import Inputs
    from probes.attachments import Attachment
    from workbench.banks.reading import Route

# The largest text file taken as text in the prompt, in bytes; no model here reads more.
LARGEST_TEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a case: the question's prompt, the cluster path, explicit memories and the text before the prompt."""

    prompt: str
    path: tuple[int, ...] = ()
    found: tuple[Found, ...] = ()
    text: str = ""

    @property
    def memories(self) -> tuple[str, ...]:
        """Ids of the explicit memories."""
        return tuple(one.id for one in self.found)

    def build_prompt(self, template: str) -> str:
        """Prompt as it is fed, with the text before it."""
        return template.format(document=self.text, prompt=self.prompt) if self.text else self.prompt


@dataclass(frozen=True, slots=True)
class Case:
    """Everything a trace compares: both sides, the tokens, and the facts they come from (None for typed prompts)."""

    clean: Side
    counterfactual: Side
    pair: PromptPair
    fact: Fact | None
    other: Fact | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: the pair, and by their ids the facts and memories that stand on either side."""
        return self.pair.to_json() | {
            "fact": self.fact.id if self.fact is not None else None,
            "counterfactual_fact": self.other.id if self.other is not None else None,
            "path": list(self.clean.path),
            "counterfactual_path": list(self.counterfactual.path),
            "memories": list(self.clean.memories),
            "counterfactual_memories": list(self.counterfactual.memories),
            "similarities": [one.similarity for one in self.clean.found],
            "counterfactual_similarities": [one.similarity for one in self.counterfactual.found],
        }


def build_inputs(engine: Engine, cases: Sequence[Case], metric: str) -> Inputs:
    """Token ids with the answers taught, filled up on the right, and the memories of both sides, a row a case.

    Raises UserError when the cases' memories cannot stand in one batch, or answer and foil cannot be compared.
    """
    from circuits.metrics import build_readout
    from circuits.problem import Inputs, pad_tokens

    def attach(sides: Sequence[Side]) -> Attachment:
        return engine.attach_rows([(side.path, side.memories) for side in sides])

    clean, other = [case.clean for case in cases], [case.counterfactual for case in cases]
    same = all((a.path, a.memories) == (b.path, b.memories) for a, b in zip(clean, other, strict=True))
    attachment = attach(clean)
    pairs = [case.pair for case in cases]
    # Only the difference of logits reads the foil; other metrics shall not ask for one of the same length.
    foils = [pair.foil_ids if metric == "logit-diff" else pair.answer_ids for pair in pairs]
    return Inputs(
        clean=pad_tokens([pair.fed_ids[0] for pair in pairs]),
        counterfactual=pad_tokens([pair.fed_ids[1] for pair in pairs]),
        attachment=attachment,
        counterfactual_attachment=attachment if same else attach(other),
        readout=build_readout([len(pair.clean_ids) for pair in pairs], [pair.answer_ids for pair in pairs], foils),
    )


def read_text(choice: str, fact: Fact | None) -> str:
    """Text to put before the prompt. Raises UserError for a file that is missing, too large or not text."""
    if choice == "none":
        return ""
    if choice == "auto":
        return fact.document if fact is not None else ""
    try:
        path = Path(choice).expanduser()
        if path.stat().st_size > LARGEST_TEXT:
            raise UserError(f"{choice} is larger than 1 MB: no model here reads that much, cut it")
        return " ".join(path.read_text(encoding="utf-8").split())
    except OSError as error:
        raise UserError(f"cannot read the text {choice}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{choice} is not UTF-8 text") from None


def choose_path(engine: Engine, settings: Settings, fact: Fact | None, prompt: str) -> Route:
    """Cluster path of a prompt in the settings' reading mode, and how it was found."""
    from workbench.banks.reading import choose_route

    bank = engine.bank if settings.bank != "none" else None
    return choose_route(bank, settings.reading, fact, prompt, engine.facts, settings.seed)


def choose_memories(
    engine: Engine, settings: Settings, fact: Fact | None, prompt: str, always: bool = False
) -> tuple[Found, ...]:
    """Explicit memories that a prompt reads: those named, else the fact's own, else those found by the prompt.

    The fact's own is read when it was never seen, and for others when asked for (`always`). Only a bank that was given
    by its folder is searched. Raises UserError when it cannot be, or for a memory that it does not hold.
    """
    if engine.memories is None or engine.retriever is None:
        return ()
    from workbench.memory.retrieval import split_ids

    if settings.memory_ids:
        return engine.retriever.name(split_ids(engine.retriever.bank, settings.memory_ids))
    if fact is not None and fact.document_id in engine.memories:
        return engine.retriever.name([fact.document_id]) if always or fact.split == "never-seen" else ()
    if settings.memory in ("auto", "own"):
        return ()
    try:
        return engine.retriever.find(prompt, settings.memories)
    except UserError as error:
        raise UserError(f"{error} (or choose memories by hand with --memory-ids)") from None


def build_side(engine: Engine, settings: Settings, fact: Fact | None, prompt: str, always: bool = False) -> Side:
    """Side of a prompt with the memories that its fact comes with under the settings.

    `always`: with the fact's explicit memory even if the fact was trained (the other side has one).
    """
    always = always or settings.memory not in ("auto", "none")
    return Side(
        prompt=prompt,
        path=choose_path(engine, settings, fact, prompt).path,
        found=choose_memories(engine, settings, fact, prompt, always) if settings.memory != "none" else (),
        text=read_text(settings.text, fact),
    )


def build_other_side(engine: Engine, settings: Settings, fact: Fact | None, prompt: str, clean: Side) -> Side:
    """Counterfactual side: its own memories where it has as many, else those of the clean side; the same text."""
    side = build_side(engine, settings, fact, prompt, always=bool(clean.memories))
    return replace(side, found=side.found if len(side.found) == len(clean.found) else clean.found, text=clean.text)


def swap_answer(side: Side, answer: str, foil: str) -> Side | None:
    """Side whose text says the foil where it said the answer, or None when the text does not say it."""
    wanted = re.compile(rf"(?<!\w){re.escape(answer.strip())}(?!\w)")
    if not wanted.search(side.text):
        return None
    return replace(side, text=wanted.sub(lambda _: foil.strip(), side.text))


def list_other_sides(
    engine: Engine, settings: Settings, fact: Fact, clean: Side, answer: str, foil: str
) -> Iterator[tuple[Side, Fact, str]]:
    """Counterfactual sides of a fact, best first, each with the fact it comes from and the foil.

    With a text that states the answer the text is changed and the question stays; else the question is about another
    subject, with that subject's own memories.
    """
    for other in list_counterfactuals(engine.model, fact, engine.facts, settings.seed):
        instead = foil or other.answer
        side = swap_answer(clean, answer, instead)
        if side is None:
            side = build_other_side(engine, settings, other, other.prompt, clean)
            if clean.memories and side.memories == clean.memories and not settings.memory_ids:
                continue
        yield side, other, instead


def resolve_fact(engine: Engine, question: Question, settings: Settings) -> Case:
    """Case of a shipped fact; its counterfactual is chosen by the seed unless the question gives one.

    The question may name another answer than the fact's, to see what speaks for it.
    """
    fact = find_fact(engine.facts, question.fact)
    answer = question.answer or fact.answer
    clean = build_side(engine, settings, fact, fact.prompt)
    prompt = clean.build_prompt(engine.template)
    if question.counterfactual:
        other = find_named_fact(question.counterfactual, engine.facts)
        side = build_other_side(engine, settings, other, question.counterfactual, clean)
        foil = question.foil or (
            other.answer if other is not None else predict_foil(engine, side, answer, settings.metric)
        )
        candidates: Iterator[tuple[Side, Fact | None, str]] = iter([(side, other, foil)])
    else:
        candidates = iter(list_other_sides(engine, settings, fact, clean, answer, question.foil))
    problem: UserError | None = None
    for side, other, foil in candidates:
        try:
            pair = pair_prompts(engine.model, prompt, side.build_prompt(engine.template), answer, foil, clean.text)
        except UserError as error:
            problem = problem or error
            continue
        return Case(clean, side, pair, fact, other)
    raise problem or UserError(
        f"no counterfactual for {fact.id}: no other {fact.relation} fact has a prompt and another answer as long in "
        "tokens on this model; give --counterfactual and --foil"
    )


def predict_foil(engine: Engine, side: Side, answer: str, metric: str) -> str:
    """The model's best continuation on a side that starts unlike the answer.

    As long in tokens as the answer where the metric compares the two; else one token, for people to read.
    """
    import torch

    from circuits.problem import record_run

    model, prompt = engine.model, side.build_prompt(engine.template)
    ids, attachment = model.encode(prompt), engine.attach(side.path, side.memories)

    def rank(tokens: list[int]) -> list[int]:
        _, logits = record_run(model, torch.tensor([tokens]), attachment)
        return [int(token) for token in logits[0, -1].topk(5).indices]

    wanted = encode_answer(model, answer, prompt)[1]
    steps = len(wanted) if metric == "logit-diff" else 1
    for first in rank(ids):
        if first == wanted[0] or model.decode(first).strip() in ("", answer.strip()):
            continue
        tokens = [first]
        while len(tokens) < steps:
            tokens.append(rank(ids + tokens)[0])
        text = "".join(model.decode(token) for token in tokens)
        if list(encode_answer(model, text, prompt)[1]) == tokens:
            return text
    raise UserError("no foil could be chosen (the model's best tokens do not stand alone): give --foil")


def resolve_prompt(engine: Engine, question: Question, settings: Settings) -> Case:
    """Case of a typed prompt; memories are those of the fact whose subject the prompt names."""
    fact = find_named_fact(question.prompt, engine.facts)
    clean = build_side(engine, settings, fact, question.prompt)
    if question.counterfactual:
        other = find_named_fact(question.counterfactual, engine.facts)
        side = build_other_side(engine, settings, other, question.counterfactual, clean)
        foil = question.foil or predict_foil(engine, side, question.answer, settings.metric)
    else:
        other, side = None, clean
        foil = question.foil or predict_foil(engine, clean, question.answer, settings.metric)
    pair = pair_prompts(
        engine.model,
        clean.build_prompt(engine.template),
        side.build_prompt(engine.template),
        question.answer,
        foil,
        clean.text,
    )
    return Case(clean, side, pair, fact, other)


def resolve(engine: Engine, question: Question, settings: Settings) -> tuple[Case, ...]:
    """Cases of a question, one unless it is a data set. Raises UserError when one cannot be compared on this model."""
    questions = list_questions(question, settings)
    cases = []
    for row, one in enumerate(questions, start=1):
        try:
            cases.append((resolve_fact if one.fact else resolve_prompt)(engine, one, settings))
        except UserError as error:
            raise UserError(f"row {row}: {error}" if len(questions) > 1 else str(error)) from None
    return tuple(cases)
