"""What a sweep is to measure: facts by conditions by methods, cut into jobs of a fixed size before anything is run.

A job is one condition's share of the facts by all methods, and becomes one part. How many workers there are, and of
which kind, is no part of a plan; so it cannot change what is measured.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.methods import METHODS
from probes.errors import UserError
from probes.facts import Fact
from workbench.ledgers.bulk import Refused, read_table, refuse_facts
from workbench.settings import Settings

if TYPE_CHECKING:
    from probes.models import Model

HEAD = "sweep.json"
FORMAT, VERSION = "memory-circuits/sweep", 1
LEDGER = "ledger"
METHOD_NAMES = (LEDGER, *METHODS)
# Facts that a counterfactual or foil is chosen from: each fact looks through all of its own.
CANDIDATES = 64

# Columns of the table, in order, with their Arrow types. `value` is in `unit`; positive helps the answer.
COLUMNS = {
    "fact": "string",
    "relation": "string",
    "condition": "string",
    "method": "string",
    "row": "string",
    "component": "string",
    "reader": "string",
    "format": "string",
    "label": "string",
    "token": "string",
    "value": "float64",
    "alone": "float64",
    "last": "float64",
    "effect": "float64",
    "count": "int64",
    "answer": "string",
    "foil": "string",
    "margin": "float64",
    "ablated": "float64",
    "metric": "string",
    "ablation": "string",
    "unit": "string",
    "reason": "string",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """What of the formats is attached in one condition: bank blocks, an explicit memory, text before the prompt."""

    label: str
    bank: bool = False
    memory: bool = False
    text: bool = False

    def change(self, settings: Settings) -> Settings:
        """The settings in this condition: what it leaves out is `none`, the rest as given or what the fact has."""
        memory = "own" if settings.memory in ("auto", "none") else settings.memory
        text = "auto" if settings.text == "none" else settings.text
        return replace(
            settings,
            bank=settings.bank if self.bank else "none",
            memory=memory if self.memory else "none",
            text=text if self.text else "none",
            faithful=settings.faithful and self.memory,
            memory_ids=settings.memory_ids if self.memory else "",
        )


GIVEN = "given"
CONDITIONS: dict[str, Condition | None] = {
    GIVEN: None,
    "parameters": Condition("parameters alone"),
    "bank": Condition("with the bank's blocks", bank=True),
    "memory": Condition("with the fact's explicit memory", memory=True),
    "text": Condition("with the fact's document as text", text=True),
    "all": Condition("with bank, explicit memory and text", bank=True, memory=True, text=True),
}


def change_settings(settings: Settings, condition: str) -> Settings:
    """Settings in a condition of the table; `given` leaves them as they are."""
    found = CONDITIONS[condition]
    return settings if found is None else found.change(settings)


@dataclass(frozen=True, slots=True)
class Order:
    """What every worker is told once: settings, what to measure, what to list, and facts that are not shipped.

    `top` parts, edges and nodes of each fact are listed at most, none below `threshold` in the metric's unit;
    `settings.rows` prompts run at once. `threads` is the number of a worker's threads: another number can change the
    last digit of a sum, so it belongs to the question.
    """

    settings: Settings
    conditions: tuple[str, ...]
    methods: tuple[str, ...]
    removal: str = "renormalised"
    top: int = 20
    threshold: float = 0.0
    chunk: int = 128
    threads: int = 1
    own: tuple[Fact, ...] = ()

    def check(self) -> None:
        """Raise UserError for names outside their tables, doubles, numbers out of range, and what cannot be."""
        self.settings.check()
        for name, given, table in (
            ("condition", self.conditions, tuple(CONDITIONS)),
            ("method", self.methods, METHOD_NAMES),
        ):
            wrong = [one for one in given if one not in table]
            if wrong or not given or len(set(given)) < len(given):
                raise UserError(f"{name} {', '.join(wrong or given)}: choose from {', '.join(table)}, each once")
        for name, low, high in (("top", 0, 100_000), ("chunk", 1, 100_000), ("threads", 1, 1024)):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"--{name} is {getattr(self, name)}: give a whole number from {low} to {high}")
        if LEDGER in self.methods and self.settings.metric == "kl":
            raise UserError("a ledger divides the answer's margin, and KL is none: choose another metric or method")

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without the facts."""
        names = ("conditions", "methods", "removal", "top", "threshold", "chunk", "threads")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Job:
    """One part's work: facts (their ids, in order) in one condition."""

    number: int
    condition: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All jobs, the facts that are refused before any is run, and how many rows the table of facts had."""

    jobs: tuple[Job, ...]
    own: tuple[Fact, ...]
    refused: tuple[Refused, ...]
    total: int


def plan_sweep(path: Path | None, shipped: Sequence[Fact], conditions: Sequence[str], chunk: int) -> Plan:
    """Jobs over the facts of a table, or over the shipped ones. Raises UserError for a table that cannot be read."""
    facts, refused, total = (list(shipped), [], len(shipped)) if path is None else read_table(path, shipped)
    kept, more = refuse_facts(facts)
    known = {fact.id: fact for fact in shipped}
    own = tuple(fact for fact in kept if known.get(fact.id) != fact)
    groups = [tuple(fact.id for fact in kept[start : start + chunk]) for start in range(0, len(kept), chunk)]
    pairs = [(condition, group) for condition in conditions for group in groups]
    jobs = tuple(Job(number, condition, group) for number, (condition, group) in enumerate(pairs))
    return Plan(jobs, own, (*refused, *more), total)


def pool_facts(model: Model, facts: Sequence[Fact], seed: int) -> dict[str, tuple[Fact, ...]]:
    """For each fact, by its id, the facts that a counterfactual or foil of it is chosen from, drawn by the seed.

    At most `CANDIDATES` of its relation with prompt and answer as long in tokens; where those have but one answer, of
    its relation with an answer as long.
    """
    prompts = model.tokenizer([fact.prompt for fact in facts])["input_ids"]
    answers = model.tokenizer([fact.answer for fact in facts], add_special_tokens=False)["input_ids"]
    keys = [
        ((fact.relation, len(answer), len(prompt)), (fact.relation, len(answer)))
        for fact, prompt, answer in zip(facts, prompts, answers, strict=True)
    ]
    groups = dict[tuple[str | int, ...], list[Fact]]()
    for fact, both in zip(facts, keys, strict=True):
        for key in both:
            groups.setdefault(key, []).append(fact)
    drawn = {key: draw_facts(group, f"{seed}:{key}") for key, group in groups.items()}
    several = {key for key, group in groups.items() if len({fact.answer for fact in group}) > 1}
    return {fact.id: drawn[near if near in several else far] for fact, (near, far) in zip(facts, keys, strict=True)}


def draw_facts(group: Sequence[Fact], key: str) -> tuple[Fact, ...]:
    """At most `CANDIDATES` of a group."""
    return tuple(group if len(group) <= CANDIDATES else random.Random(key).sample(group, CANDIDATES))
