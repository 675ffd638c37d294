"""What a person chooses: model, memories, method, ablation, metric; the tables that pages and commands list.

The table of methods is the engine's own (`circuits/methods.py`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from circuits.circuit import UNITS
from circuits.methods import METHODS, Method, Options
from circuits.selection import SELECTIONS
from probes.errors import UserError
from workbench.json_values import is_number


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of a table of choices: the name used in commands and files, its label, one sentence of explanation.

    An ablation of `memories_only` asks another question than the others: what the memories add to the same prompt.
    """

    name: str
    label: str
    explanation: str
    unit: str = ""
    memories_only: bool = False


ABLATIONS: dict[str, Choice] = {
    "counterfactual": Choice(
        "counterfactual",
        "Counterfactual",
        "A component is replaced by its value on the counterfactual prompt.",
    ),
    "mean": Choice(
        "mean",
        "Mean",
        "A component is replaced by its mean over the reference prompts and their positions (the first one left out).",
    ),
    "zero": Choice("zero", "Zero", "A component's output is set to zero."),
    "memory-contribution": Choice(
        "memory-contribution",
        "Without memories (contribution only)",
        "A component is replaced by its value on the same prompt when memories add nothing: explicit memories keep "
        "their share of the attention but are read as zero, bank blocks write nothing.",
        memories_only=True,
    ),
    "memory-renormalised": Choice(
        "memory-renormalised",
        "Without memories (renormalised)",
        "A component is replaced by its value on the same prompt without memories: explicit memories are taken out of "
        "the softmax, so the context takes their share of the attention, and bank blocks write nothing.",
        memories_only=True,
    ),
}

METRICS: dict[str, Choice] = {
    "logit-diff": Choice(
        "logit-diff", "Logit difference", "Logit of the answer minus logit of the foil.", UNITS["logit-diff"]
    ),
    "log-prob": Choice(
        "log-prob", "Log-probability", "Natural logarithm of the answer's probability.", UNITS["log-prob"]
    ),
    "prob": Choice("prob", "Probability", "Probability of the answer.", UNITS["prob"]),
    "kl": Choice(
        "kl",
        "Minus KL from the clean run",
        "Minus the Kullback-Leibler divergence of the next-token distribution from the clean run's; 0 is no change.",
        UNITS["kl"],
    ),
}

READINGS: dict[str, Choice] = {
    "fetched": Choice("fetched", "Fetched", "The blocks of the prompt's own cluster, at every level."),
    "generic": Choice("generic", "Generic", "The blocks of no cluster, as large as fetched ones."),
    "wrong": Choice("wrong", "Wrong cluster", "The blocks of a cluster in another subtree, drawn with the seed."),
    "blocked": Choice(
        "blocked",
        "Best subtree blocked",
        "The best subtree of level 1 is taken away, and the router takes the next best.",
    ),
    "none": Choice("none", "None", "No blocks."),
}


__all__ = ["ABLATIONS", "METHODS", "METRICS", "READINGS", "Choice", "Method", "Question", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything but the question that decides a run.

    `model` is `shipped`, a folder or a hub name; `bank`, `memory` and `text` are `auto` (what the fact comes with),
    `none`, or a path. `reading` says which blocks of the bank are read. `memory` may also be `own`: the fact's explicit
    memory even if the fact was trained; in a folder `memories` of them are found by the prompt's meaning, unless
    `memory_ids` names some (commas between them). `faithful` puts the memories' prefix before the context at every head
    of every layer. `edges` is the number asked for, `threshold` the smallest absolute score (in the metric's unit) that
    the selection `threshold` keeps and the smallest change for which pruning (`acdc`) keeps an edge, `solver_seconds`
    the time that `optimal` may take, `steps` the points of the path of an integrated gradient, `updates` the length of
    `edge-masks`' training.
    `device_map` spreads a large model over devices (then `device` is not used).
    `parts` is how many of the strongest FFN units, bank units, memory slots and attention edges are kept of each (0:
    they are not scored), as nodes and into each reader of `into` (empty: into the logits).
    `rows` is how many prompt pairs of a data set run at once; of a larger one the scores are added up batch by batch.
    """

    model: str = "shipped"
    bank: str = "auto"
    reading: str = "fetched"
    memory: str = "auto"
    text: str = "none"
    memories: int = 1
    memory_ids: str = ""
    faithful: bool = False
    method: str = "eap"
    ablation: str = "counterfactual"
    metric: str = "logit-diff"
    selection: str = "top-n"
    edges: int = 200
    threshold: float = 0.01
    solver_seconds: float = 60.0
    seed: int = 0
    steps: int = 5
    updates: int = 200
    dtype: str = "float32"
    device: str = "auto"
    device_map: str | None = None
    trust_remote_code: bool = False
    parts: int = 0
    into: tuple[str, ...] = ()
    rows: int = 256

    def check(self) -> None:
        """Raise UserError for the first setting that is outside its table or range."""
        for name, table in (
            ("method", METHODS),
            ("ablation", ABLATIONS),
            ("metric", METRICS),
            ("selection", SELECTIONS),
            ("reading", READINGS),
        ):
            if getattr(self, name) not in table:
                raise UserError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(table)}")
        for name, low, high in (
            ("edges", 1, 1_000_000),
            ("steps", 1, 1000),
            ("updates", 1, 100_000),
            ("memories", 1, 100),
            ("seed", 0, 2**31 - 1),
            ("parts", 0, 10_000),
            ("rows", 1, 100_000),
        ):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} is {getattr(self, name)}: choose a whole number from {low} to {high}")
        for name in ("threshold", "solver_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}: choose a number above 0")
        if self.into and not self.parts:
            raise UserError("--into names readers for parts: say with --parts how many to keep, or leave it out")
        if self.parts and self.metric == "kl":
            raise UserError(
                "parts are scored by the gradient at the clean run, where KL is flat: leave --parts out, or choose "
                "another metric"
            )

    def choose_options(self) -> Options:
        """What the methods take from the settings."""
        return Options(self.steps, self.threshold, self.edges, self.updates, self.seed)

    def to_json(self) -> dict[str, object]:
        """As a JSON object, one key a setting."""
        return asdict(self) | {"into": list(self.into)}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a shipped fact by its id, a prompt with its answer, or a data set of several.

    `foil` is the answer to compare with and `counterfactual` the prompt that leads to it; left empty they are
    chosen (from a fact of the same relation, or the model's next best token). A data set is `facts`, several ids, or
    `pairs`, a table of prompts with their answers (`workbench/pair_tables.py`); its metric is the mean.
    """

    fact: str = ""
    prompt: str = ""
    answer: str = ""
    foil: str = ""
    counterfactual: str = ""
    facts: tuple[str, ...] = ()
    pairs: str = ""

    @property
    def several(self) -> bool:
        """Whether it is a data set."""
        return bool(self.facts or self.pairs)

    @property
    def words(self) -> str:
        """A few words for names: the fact, the prompt, or what the data set is called."""
        return self.fact or self.prompt or " ".join(self.facts[:3]) or Path(self.pairs).stem

    def check(self) -> None:
        """Raise UserError unless exactly one of fact, prompt, facts and pairs is given, and nothing contradicts it."""
        if sum(map(bool, (self.fact, self.prompt, self.facts, self.pairs))) != 1:
            raise UserError(
                "give either a fact or a prompt or a table of pairs: --fact ID, --prompt TEXT --answer TEXT, or "
                "--pairs FILE"
            )
        if self.several and (self.answer or self.foil or self.counterfactual):
            raise UserError(
                "--answer, --foil and --counterfactual belong to one prompt: a table of pairs has columns for them"
            )

    def check_traceable(self, settings: Settings) -> None:
        """Raise UserError for a typed prompt that lacks what a trace compares it with; no model is needed to say so."""
        self.check()
        if self.prompt and not self.answer:
            raise UserError(
                "a prompt needs its answer: --answer TEXT (`memory-circuits ask` shows what the model says)"
            )
        if self.prompt and not self.counterfactual and settings.ablation == "counterfactual":
            raise UserError(
                "counterfactual ablation needs a counterfactual prompt: --counterfactual TEXT with as many tokens, or "
                "choose --ablation zero or mean"
            )

    def to_json(self) -> dict[str, object]:
        """As a JSON object, one key a field."""
        return asdict(self) | {"facts": list(self.facts)}


def require_kinds(one: Settings | Question) -> None:
    """Raise TypeError for a field of another type than its default: a file can say anything of a path or a number."""
    for field in fields(one):
        value, default = getattr(one, field.name), field.default
        if isinstance(default, float):
            right = is_number(value)
        elif isinstance(default, tuple):
            right = all(isinstance(item, str) for item in value)
        else:
            right = type(value) is type(default) or (default is None and isinstance(value, str))
        if not right:
            raise TypeError(f"its {field.name} is {value!r:.40}")


def read_question(value: dict[str, Any]) -> Question:
    """Question of its JSON object. Raises UserError when it is of another release."""
    try:
        question = Question(**{**value, "facts": tuple(value.get("facts", ()))})
        require_kinds(question)
    except (TypeError, AttributeError) as error:
        raise UserError(f"the run's question is not one of this release ({error}): trace again") from None
    return question


def restore_settings(value: dict[str, Any]) -> Settings:
    """Settings of their JSON object, checked. Raises UserError when they are of another release."""
    try:
        settings = Settings(**{**value, "into": tuple(value.get("into", ()))})
        require_kinds(settings)
    except (TypeError, AttributeError) as error:
        raise UserError(f"the run's settings are not those of this release ({error}): trace again") from None
    settings.check()
    return settings
