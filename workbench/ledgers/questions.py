"""The ledger of one question, of a conflict between text and memory, and what memories' parts do when removed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import UserError
from probes.facts import find_fact
from probes.progress import Tick, quiet
from probes.prompts import find_named_fact
from workbench.cases import Side, build_side, predict_foil, swap_answer
from workbench.engine import Engine
from workbench.ledgers.measuring import measure_batch
from workbench.ledgers.prompts import Laid, attach, lay_fact, lay_out
from workbench.ledgers.table import Ledger
from workbench.settings import Question, Settings

if TYPE_CHECKING:
    from circuits.parts import PartTable, Removal
    from circuits.problem import Problem
    from probes.attachments import ExplicitBlocks

REMOVALS: tuple[Removal, ...] = ("renormalised", "contribution")


def lay_question(engine: Engine, question: Question, settings: Settings) -> Laid:
    """Lay out a shipped fact, or a typed prompt with its answer. Raises UserError for several, or no answer."""
    question.check()
    if question.several:
        raise UserError("a ledger is of one question: give --fact once, or `memory-circuits attribute` a table")
    if question.fact and not question.answer:
        return lay_fact(engine, find_fact(engine.facts, question.fact), engine.facts, settings, question.foil)
    fact = find_fact(engine.facts, question.fact) if question.fact else find_named_fact(question.prompt, engine.facts)
    prompt = fact.prompt if question.fact and fact is not None else question.prompt
    if not question.answer:
        raise UserError("a prompt needs its answer: --answer TEXT (`memory-circuits ask` shows what the model says)")
    side = build_side(engine, settings, fact, prompt)
    foil = question.foil
    if settings.metric == "logit-diff" and not foil:
        foil = predict_foil(engine, side, question.answer, settings.metric)
    return lay_out(engine, side, question.fact or question.words, question.answer, foil, settings)


def measure_question(
    engine: Engine,
    question: Question,
    settings: Settings,
    removals: Sequence[Removal] = REMOVALS,
    top: int = 20,
    threshold: float = 0.0,
) -> tuple[Ledger, ...]:
    """Ledger of one question, one for each way of removing an explicit memory (the first alone where there is none)."""
    laid = lay_question(engine, question, settings)
    ways = removals if laid.condition[1] else removals[:1]
    return tuple(measure_batch(engine, [laid], way, settings.metric, top, threshold)[0] for way in ways)


@dataclass(frozen=True, slots=True)
class Rival:
    """One answer of a conflict: who says it, its log-probability with everything on, and its ledger."""

    says: str
    answer: str
    ledger: Ledger

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"says": self.says, "answer": self.answer, "ledger": self.ledger.to_json()}


@dataclass(frozen=True, slots=True)
class Conflict:
    """Text, memory and parameters that say different things: the rivals, likeliest first.

    Metric is each answer's own log-probability, so the difference of two rivals' ledgers, row by row, is the ledger of
    their log odds. `said` is what the model says if it is none of them, else empty.
    """

    fact: str
    rivals: tuple[Rival, ...]
    said: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        winner = self.rivals[0]
        return {
            "fact": self.fact,
            "winner": {"says": winner.says, "answer": winner.answer},
            "said": self.said,
            "rivals": [rival.to_json() for rival in self.rivals],
        }


def write_memory(engine: Engine, side: Side, name: str) -> tuple[ExplicitBlocks, dict[str, Any]]:
    """An explicit memory of a side's text, written as those of the engine's bank, with its tokens and the kept ones.

    Raises UserError without a bank.
    """
    from probes.explicit import REFERENCE_LENGTH, encode_reference, turn_memories
    from probes.memory_bank import MemoryBank
    from probes.writing import write_memories

    bank = engine.memories
    if not isinstance(bank, MemoryBank):
        raise UserError("no explicit memories are attached to this model: give a bank of them with --memory")
    head = bank.head
    made = write_memories(
        engine.model,
        {name: side.text},
        head.layers,
        head.slots,
        head.offset,
        head.prefix,
        head.scoring,  # type: ignore[arg-type]
        head.pooling,  # type: ignore[arg-type]
        positions=head.positions,
    )
    limit = min(REFERENCE_LENGTH, head.offset)
    ids, _ = encode_reference(engine.model.tokenizer, head.prefix, side.text, limit)
    tokens = [engine.model.decode(token) for token in ids]
    return turn_memories(made, engine.model), {"tokens": tokens, "kept": made.positions[0].tolist()}


def measure_conflict(
    engine: Engine,
    fact_id: str,
    text_says: str,
    memory_says: str,
    settings: Settings,
    removal: Removal = "renormalised",
    top: int = 20,
    tick: Tick = quiet,
) -> Conflict:
    """Whose answer wins when the fact's document says one thing as text and another as an explicit memory.

    Parameters and bank say what they were trained on: the fact's own answer, a rival too. An empty `text_says` or
    `memory_says` leaves that place out. Raises UserError for a fact without a document that states its answer.
    """
    settings = replace(settings, metric="log-prob")
    fact = find_fact(engine.facts, fact_id)
    if not (text_says or memory_says):
        raise UserError("a conflict needs what the text or the memory says: --text-says ANSWER, --memory-says ANSWER")
    plain = build_side(engine, replace(settings, text="none", memory="none"), fact, fact.prompt)

    def change(answer: str) -> Side:
        side = swap_answer(replace(plain, text=fact.document), fact.answer, answer)
        if side is None:
            raise UserError(f"{fact.id} has no document that states its answer, which could be made to say another")
        return side

    explicit = written = None
    if memory_says:
        explicit, written = write_memory(
            engine, change(memory_says), f"{fact.document_id} saying {memory_says.strip()}"
        )
    side = change(text_says) if text_says else plain
    sayers = {"text": text_says, "memory": memory_says, "parameters and bank": fact.answer}
    grouped: dict[str, list[str]] = {}
    for name, answer in sayers.items():
        if answer:
            grouped.setdefault(" " + answer.strip(), []).append(name)
    rivals = []
    for done, (answer, names) in enumerate(grouped.items()):
        tick("answers that rival", done, len(grouped))
        laid = replace(lay_out(engine, side, fact.id, answer, "", settings, explicit), written=written)
        ledger = measure_batch(engine, [laid], removal, "log-prob", top, 0.0)[0]
        rivals.append(Rival(" and ".join(names), answer, ledger))
    rivals.sort(key=lambda rival: -rival.ledger.margin)
    said = "" if any(rival.ledger.known for rival in rivals) else rivals[0].ledger.said
    return Conflict(fact.id, tuple(rivals), said)


@dataclass(frozen=True, slots=True)
class Removed:
    """One part of a memory: first-order estimate with everything on, and the exact drop without it."""

    component: str
    estimate: float
    exact: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How estimates of memory parts agree with removal one way: Spearman's rank correlation over `n` parts.

    The strongest half of them by estimate, the others drawn by the seed from the rest (positions summed). None where
    either side is constant or there are fewer than 3.
    """

    removal: str
    spearman: float | None
    n: int
    unit: str
    parts: tuple[Removed, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def check_memories(engine: Engine, laid: Laid, settings: Settings, count: int, tick: Tick = quiet) -> list[Agreement]:
    """Remove slots of explicit memories (both ways) and bank units exactly, and compare with their estimates.

    The prompt is the one with text where there is a text. Raises UserError where no memory has parts.
    """
    import torch

    from circuits.agreement import correlate
    from circuits.graph import Kind
    from circuits.metrics import build_readout
    from circuits.part_selection import score_parts
    from circuits.problem import Inputs, pose_problem

    attachment = attach(engine, [laid])
    if attachment.explicit is None and (attachment.bank is None or attachment.bank.kind != "ffn"):
        raise UserError("no memory with slots or units is attached: attach one, or leave --check out")
    row = laid.behind or laid.plain
    tokens = torch.tensor([row])
    readout = build_readout([len(row) - len(laid.answer_ids) + 1], [laid.answer_ids], [laid.foil_ids])
    inputs = Inputs(tokens, tokens, attachment, attachment, readout)
    problem = pose_problem(
        engine.model, inputs, "memory-contribution", settings.metric, summed=True, attention=True, parts=True
    )
    table = score_parts(problem, (), (Kind.EXPLICIT, Kind.BANK), tick)
    return [
        compare_removal(problem, table, way, count, settings.seed, correlate, tick)
        for way in REMOVALS
        if way == "contribution" or attachment.explicit is not None
    ]


def compare_removal(
    problem: Problem, table: PartTable, way: Removal, count: int, seed: int, correlate: Any, tick: Tick
) -> Agreement:
    """Estimates of the strongest parts and of some of the rest beside their exact removal one way."""
    from circuits.graph import Kind
    from circuits.removal import remove_parts

    kinds = (Kind.EXPLICIT, Kind.BANK) if way == "contribution" else (Kind.EXPLICIT,)
    ranked = list(table.rank(sum(scores.values.size for scores in table.scores), "", way, kinds))
    strongest, rest = ranked[: (count + 1) // 2], ranked[(count + 1) // 2 :]
    chosen = strongest + random.Random(seed).sample(rest, min(len(rest), count - len(strongest)))
    exact = np.zeros(len(chosen))
    for kind, removal in ((Kind.EXPLICIT, way), (Kind.BANK, "ablated")):
        places = [place for place, part in enumerate(chosen) if part.component.kind is kind]
        parts = [(chosen[place].component, chosen[place].position) for place in places]
        exact[places] = remove_parts(problem, parts, tick, removal=removal).cpu().numpy()
    estimates = np.array([part.score for part in chosen])
    found = tuple(
        Removed(part.component.name, part.score, float(drop)) for part, drop in zip(chosen, exact, strict=True)
    )
    return Agreement(way, correlate(estimates, exact), len(chosen), table.unit, found)
