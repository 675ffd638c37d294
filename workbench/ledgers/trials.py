"""Blocking: a question asked again with bank levels, explicit memories or the text taken away, or given back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from probes.facts import Fact, find_fact
from probes.prompts import find_named_fact
from workbench.answers import Condition
from workbench.cases import build_side
from workbench.engine import Engine
from workbench.settings import Question, Settings

if TYPE_CHECKING:
    from probes.memory_bank import MemoryBank

OWN, NOTHING, GENERIC = "own", "nothing", "generic"


@dataclass(frozen=True, slots=True)
class Change:
    """What is blocked: for each bank level `own`, `nothing`, `generic` or a sibling's number; memories and text by yes
    or no. An explicit memory that is blocked leaves the softmax (renormalised).
    """

    levels: tuple[str, ...] = ()
    memories: tuple[bool, ...] = ()
    text: bool = False

    @property
    def words(self) -> str:
        """What differs from everything on."""
        names = {NOTHING: "level {} writes nothing", GENERIC: "level {} reads the generic block"}
        pieces = [
            names.get(choice, "level {} reads cluster " + choice).format(level)
            for level, choice in enumerate(self.levels, start=1)
            if choice != OWN
        ]
        pieces += [f"without memory {number}" for number, gone in enumerate(self.memories, start=1) if gone]
        return "; ".join([*pieces, *(["without text"] if self.text else [])]) or "everything on"


def find_question(engine: Engine, question: Question) -> tuple[Fact | None, str, str]:
    """Fact (None where no shipped one is meant), prompt and answer of a question."""
    if question.fact:
        fact = find_fact(engine.facts, question.fact)
        return fact, fact.prompt, question.answer or fact.answer
    return find_named_fact(question.prompt, engine.facts), question.prompt, question.answer


def use_bank(engine: Engine, bank: MemoryBank) -> Engine:
    """The engine with another bank of explicit memories."""
    from workbench.memory.retrieval import Retriever

    return replace(engine, memories=bank, retriever=Retriever(bank))


def open_written(engine: Engine, settings: Settings) -> Engine:
    """The engine with the bank that a study's settings name by its folder, else as it is."""
    from probes.memory_bank import open_bank

    if settings.memory in ("auto", "own", "none"):
        return engine
    return use_bank(engine, open_bank(Path(settings.memory).expanduser(), engine.model))


def try_change(engine: Engine, question: Question, settings: Settings, change: Change) -> Condition:
    """The answer with some memories blocked. Raises UserError for a path that the bank does not have."""
    from probes.attachments import remove_memories
    from workbench.conditions import answer_side

    fact, prompt, answer = find_question(engine, question)
    side = build_side(engine, settings, fact, prompt)
    side = replace(side, text="") if change.text else side
    path, silent = change_path(side.path, change)
    attachment = engine.attach(path, side.memories)
    gone = [block for block, blocked in enumerate(change.memories[: len(side.found)]) if blocked]
    if gone or silent:
        attachment = remove_memories(attachment, True, gone, silent)
    return answer_side(engine, change.words, side, answer, "", attachment)


def change_path(path: tuple[int, ...], change: Change) -> tuple[tuple[int, ...], list[int]]:
    """The path that is read, and its levels, from 0, that write nothing."""
    from probes.bank import GENERIC as GENERIC_BLOCK

    choices = [*change.levels, *[OWN] * (len(path) - len(change.levels))][: len(path)]
    numbers = {GENERIC: GENERIC_BLOCK}
    read = tuple(
        own if choice in (OWN, NOTHING) else numbers[choice] if choice in numbers else int(choice)
        for own, choice in zip(path, choices, strict=True)
    )
    return read, [level for level, choice in enumerate(choices) if choice == NOTHING]
