"""The demo's configuration: one frozen record a table of the TOML file, unknown keys refused."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError

DEFAULT = Path(__file__).parent / "default.toml"


@dataclass(frozen=True, slots=True)
class World:
    """Which facts there are, and how often each occurs in the corpus."""

    people: int
    companies: int
    towns: int
    countries: int
    elements: int
    least_occurrences: int
    least_real_occurrences: int
    most_occurrences: int
    bucket_edges: list[int]
    never_seen_people: int
    never_seen_companies: int
    never_seen_towns: int
    facts_table: str


@dataclass(frozen=True, slots=True)
class Words:
    """Sizes of the invented closed lists, and of the tokenizer's vocabulary."""

    first_names: int
    last_names: int
    stems: int
    cities: int
    firms: int
    founders: int
    rivers: int
    regions: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """How facts become passages, and which of their tokens are trained."""

    statements_per_passage: int
    aside_share: float
    other_tokens: float
    prefix: str


@dataclass(frozen=True, slots=True)
class Clusters:
    """The tree of nested k-means."""

    branching: int
    depth: int
    whitening: float


@dataclass(frozen=True, slots=True)
class Network:
    """Shape of the anchor, a `LlamaForCausalLM`."""

    d_model: int
    layers: int
    heads: int
    kv_heads: int
    d_head: int
    d_ffn: int
    positions: int
    rope_base: float


@dataclass(frozen=True, slots=True)
class Bank:
    """Units a level and layer of the FFN-memory bank, and how often rows fetch."""

    units: list[int]
    fetched_share: float
    generic_share: float
    wrong_share: float
    common_wrong_share: float
    block_wrong_share: float
    nearby_share: float
    routed_readings: int
    routed_share: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Explicit memory: layers that read it, slots kept a key-value head, offset to the context in tokens."""

    layers: list[int]
    slots: int
    offset: int
    rows: int
    seen_documents: int


@dataclass(frozen=True, slots=True)
class Training:
    """Schedule of the stages; rates of AdamW; epochs are passes over the corpus of facts.

    Reading, abstract and memory rows come along every `exercise_every` steps, in the third stage at every step, in the
    last one every `block_exercise_every`. The third stage is one decay of the rates after another, each with a fresh
    optimiser: `last_epochs` is the length of each. In the last one, of `block_epochs`, the anchor stands still.
    """

    anchor_epochs: float
    bank_epochs: float
    last_epochs: list[float]
    block_epochs: float
    rows: int
    reading_rows: int
    abstract_rows: int
    exercise_every: int
    block_exercise_every: int
    rate: float
    second_rate: float
    bank_rate: float
    last_rate: float
    last_bank_rate: float
    block_rate: float
    weight_decay: float
    abstract_weight: float
    memory_weight: float
    keep_weight: float
    warmup_steps: int
    checkpoint_minutes: float
    threads: int


@dataclass(frozen=True, slots=True)
class Experiments:
    """What `demo experiments` trains beside the model; steps and epochs of each arm."""

    limit: int
    subtrees: int
    block_epochs: float
    block_rates: list[float]
    memory_layers: list[list[int]]
    sweep_steps: int
    sweep_rate: float
    stage_steps: int
    stage_rate: float
    stage_rows: int
    seeds: list[int]


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that decides the demo model; equal configurations give equal corpora and clusters."""

    seed: int
    world: World
    words: Words
    corpus: Corpus
    clusters: Clusters
    model: Network
    bank: Bank
    memory: Memory
    training: Training
    experiments: Experiments


TABLES: dict[str, type] = {
    "world": World,
    "words": Words,
    "corpus": Corpus,
    "clusters": Clusters,
    "model": Network,
    "bank": Bank,
    "memory": Memory,
    "training": Training,
    "experiments": Experiments,
}


def load_config(path: Path | None = None) -> Config:
    """Read a configuration; keys that the file leaves out come from the shipped default.

    Raises `UserError` for a missing file, broken TOML, an unknown key, or a value of another type than the default's.
    """
    default = tomllib.loads(DEFAULT.read_text())
    if path is None:
        return parse_config(default, default)
    if not path.is_file():
        raise UserError(f"No configuration file at {path}; copy {DEFAULT} and change it.")
    try:
        chosen = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    return parse_config(chosen, default)


def parse_config(chosen: dict[str, Any], default: dict[str, Any]) -> Config:
    """Overlay `chosen` on `default` and check both names and types."""
    unknown = sorted(set(chosen) - set(default))
    if unknown:
        raise UserError(f"Unknown configuration key {unknown[0]!r}; known keys are {', '.join(default)}.")
    parts: dict[str, Any] = {"seed": chosen.get("seed", default["seed"])}
    for name, kind in TABLES.items():
        table = {**default[name], **_checked(name, chosen.get(name, {}), default[name])}
        parts[name] = kind(**table)
    config = Config(**parts)
    _check_shapes(config)
    return config


def _checked(name: str, table: Any, default: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UserError(f"Configuration key {name!r} must be a table, [{name}].")
    checked = dict(table)
    for key, value in table.items():
        if key not in default:
            raise UserError(f"Unknown key {key!r} in [{name}]; known keys are {', '.join(default)}.")
        wanted = (int, float) if isinstance(default[key], float) else type(default[key])
        if key == "last_epochs":
            checked[key] = _list_epochs(value)
        elif not isinstance(value, wanted):
            raise UserError(f"[{name}] {key} is {value!r}; wanted the type of {default[key]!r}.")
    return checked


def _list_epochs(value: Any) -> list[float]:
    # A bare number is one decay: so demos say that were made before there were several.
    epochs = value if isinstance(value, list) else [value]
    if not all(isinstance(each, (int, float)) and 0 < each < math.inf for each in epochs):
        raise UserError(f"[training] last_epochs is {value!r}; wanted numbers above 0, one a decay of the third stage.")
    return [float(each) for each in epochs]


def _check_shapes(config: Config) -> None:
    if len(config.bank.units) != config.clusters.depth:
        raise UserError(
            f"[bank] units has {len(config.bank.units)} numbers, but [clusters] depth is {config.clusters.depth};"
            " give one number a level."
        )
    outside = [layer for layer in config.memory.layers if not 0 <= layer < config.model.layers]
    if outside:
        raise UserError(f"[memory] layers names layer {outside[0]}; the model has 0 to {config.model.layers - 1}.")


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain values, for `shipped.json`."""
    return dataclasses.asdict(config)
