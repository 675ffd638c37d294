"""Replay a run: trace the same question again and say which numbers moved, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.circuit import Circuit
from probes.progress import Tick, quiet
from workbench.engine import Engine
from workbench.parts import encode_parts
from workbench.pipeline import trace
from workbench.runs import Run
from workbench.settings import read_question, restore_settings


@dataclass(frozen=True, slots=True)
class Difference:
    """One number that moved: as recorded, as replayed, and replayed minus recorded.

    For arrays the place with the largest change is given; a name that is not a number (a hash, a token) has its texts
    in `recorded` and `replayed` and no difference.
    """

    name: str
    recorded: float | str
    replayed: float | str
    difference: float | None


def replay(run: Run, engine: Engine, tick: Tick = quiet) -> tuple[Difference, ...]:
    """Trace the run's question again on `engine` and compare; empty when every number is the same."""
    again = trace(engine, read_question(run.about["question"]), restore_settings(run.about["settings"]), tick)
    return compare_runs(run, again)


def compare_runs(first: Run, second: Run) -> tuple[Difference, ...]:
    """Every number of the first run that is different in the second."""
    rows: list[Difference] = []
    for key in ("model", "memories", "pairs", "conditions", "faithfulness", "versions"):
        rows += compare_values(key, first.about[key], second.about[key])
    if "selection" in first.about:
        rows += compare_values("selection", first.about["selection"], second.about["selection"])
    arrays = {
        "scores.edges": (first.scores.edges, second.scores.edges),
        "scores.nodes": (first.scores.nodes, second.scores.nodes),
        "recording.context": (first.recording.context, second.recording.context),
        "recording.memory": (first.recording.memory, second.recording.memory),
    }
    for name, (a, b) in arrays.items():
        rows += compare_arrays(name, a, b)
    rows += compare_circuits(first.circuit, second.circuit)
    rows += compare_values("parts", spread_parts(first), spread_parts(second))
    return tuple(rows)


def spread_parts(run: Run) -> dict[str, Any]:
    """Kept parts of a run by their ids (and readers), so that they are compared one by one; empty without any."""
    if run.parts is None:
        return {}
    value = encode_parts(run.parts)
    by_name = {f"{part['id']} {part['reader']}".rstrip(): part for part in value.pop("list")}
    return value | by_name


def compare_values(name: str, first: Any, second: Any) -> Iterator[Difference]:
    """Differences between two JSON values, by path."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first):
            yield from compare_values(f"{name}.{key}", first[key], second.get(key))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            yield from compare_values(f"{name}.{index}", a, b)
    elif is_number(first) and is_number(second):
        if first != second:
            yield Difference(name, float(first), float(second), float(second) - float(first))
    elif first != second:
        yield Difference(name, str(first)[:80], str(second)[:80], None)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare_arrays(name: str, first: np.ndarray, second: np.ndarray) -> Iterator[Difference]:
    """The place where two arrays differ most, if they differ."""
    if first.shape != second.shape:
        yield Difference(f"{name} shape", str(first.shape), str(second.shape), None)
    elif first.size and not np.array_equal(first, second):
        change = second.astype(np.float64) - first.astype(np.float64)
        place = np.unravel_index(int(np.abs(change).argmax()), change.shape)
        label = f"{name}[{', '.join(str(int(i)) for i in place)}] (largest of {int((change != 0).sum())})"
        yield Difference(label, float(first[place]), float(second[place]), float(change[place]))


def compare_circuits(first: Circuit, second: Circuit) -> Iterator[Difference]:
    """Edges that are in one circuit only, as counts."""
    one = {(edge.writer, edge.reader, edge.role) for edge in first.edges}
    two = {(edge.writer, edge.reader, edge.role) for edge in second.edges}
    if one != two:
        yield Difference(
            "circuit edges in both", float(len(one)), float(len(one & two)), float(len(one & two) - len(one))
        )
