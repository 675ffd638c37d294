"""Faithfulness of a run's circuit cut down to its strongest edges, at every size: `curve.json` in the run's folder.

The circuit's edges come strongest first; a cut keeps the first so many and ablates all else. Beside each stand random
circuits of as many edges, drawn from the whole graph. Faithfulness is normalised: 0 is everything ablated, 1 the whole
model. Sizes between those measured are read off the curve, and said to be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import UserError
from probes.progress import Tick, quiet
from probes.strict_json import parse_json
from workbench.engine import Engine
from workbench.pipeline import restore_batches
from workbench.runs import Run
from workbench.storage import read_bytes, write_file

if TYPE_CHECKING:
    from circuits.connectivity import Mask
    from circuits.problem import Problem

FORMAT = "memory-circuits/curve"
VERSION = 1
FILE = "curve.json"
POINTS, DRAWS = 12, 5


@dataclass(frozen=True, slots=True)
class SizeCurve:
    """Faithfulness of the `edges` strongest edges at each size; mean, smallest and largest of `draws` random circuits.

    `seed` is that of the random circuits. All are normalised faithfulness.
    """

    edges: tuple[int, ...]
    faithfulness: tuple[float, ...]
    random: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    draws: int
    seed: int

    def read(self, edges: int) -> tuple[float, bool]:
        """Faithfulness at a size, and whether it was measured there; else from the straight line between its neighbours
        over the logarithm of the size.
        """
        if edges in self.edges:
            return self.faithfulness[self.edges.index(edges)], True
        return float(np.interp(np.log(edges), np.log(self.edges), self.faithfulness)), False


def list_sizes(edges: int) -> tuple[int, ...]:
    """Sizes to measure: 1 to all, evenly spaced on a logarithmic axis."""
    return tuple(sorted({round(size) for size in np.geomspace(1, edges, POINTS).tolist()}))


def measure_curve(engine: Engine, run: Run, seed: int = 0, tick: Tick = quiet) -> SizeCurve:
    """Curve of a saved run. Raises UserError when its circuit is empty, and as `restore_cases`."""
    from circuits.faithfulness import measure_kept

    if not run.circuit.edges:
        raise UserError("the circuit has no edges, so there is nothing to measure: trace again with more --edges")
    sizes = list_sizes(len(run.circuit.edges))
    count = len(sizes) * (1 + DRAWS)
    batches = restore_batches(engine, run)

    def measure(problem: Problem) -> list[float]:
        inner = quiet if batches.several else tick
        kept = measure_kept(problem, list_masks(run, problem, sizes, seed), count, inner, "circuits of every size")
        return [problem.metric_clean, problem.metric_ablated, *kept]

    values = np.zeros(2 + count)
    for found, share in batches.each(measure, tick):
        values += np.array(found) * share
    whole, empty = values[:2]
    shares = (values[2:] - empty) / (whole - empty)
    random = shares[len(sizes) :].reshape(len(sizes), DRAWS)
    own, mean, low, high = (
        tuple(map(float, column))
        for column in (shares[: len(sizes)], random.mean(axis=1), random.min(axis=1), random.max(axis=1))
    )
    return SizeCurve(sizes, own, mean, low, high, DRAWS, seed)


def list_masks(run: Run, problem: Problem, sizes: Sequence[int], seed: int) -> Iterator[Mask]:
    """The circuit cut to each size, then random circuits of each size."""
    from circuits.circuit import mask_edges
    from circuits.faithfulness import draw_random_masks

    for size in sizes:
        yield mask_edges(run.circuit.prune(size), problem.wiring, problem.positions)
    for size in sizes:
        yield from draw_random_masks(problem.wiring, problem.positions, size, DRAWS, seed)


def save_curve(folder: Path, curve: SizeCurve) -> None:
    """Write `curve.json` into a run's folder, whole or not at all; one that is there is replaced."""
    document = {"format": FORMAT, "version": VERSION, **asdict(curve)}
    write_file(folder / FILE, json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")


def load_curve(folder: Path) -> SizeCurve | None:
    """What `save_curve` wrote into a run's folder; None when there is none. Raises UserError when it is damaged."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        document: dict[str, Any] = parse_json(read_bytes(path))
        if (document.pop("format"), document.pop("version")) != (FORMAT, VERSION):
            raise ValueError("another format or version")
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in document.items()}
        curve = SizeCurve(**fields)
        columns = np.array([curve.edges, curve.faithfulness, curve.random, curve.low, curve.high], dtype=float)
        if not columns.size or not np.isfinite(columns).all() or (np.diff(columns[0]) <= 0).any() or columns[0, 0] < 1:
            raise ValueError("its sizes or numbers do not hold")
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is not a curve of this release ({line}): remove it and measure again") from None
    return curve


@dataclass(frozen=True, slots=True)
class Reading:
    """Normalised faithfulness of the edges shown (None: not known yet), and in words how it was found."""

    value: float | None
    how: str


def read_faithfulness(run: Run, curve: SizeCurve | None, edges: int) -> Reading:
    """Faithfulness of a run's strongest `edges`: measured where it was, else an estimate from the curve."""
    whole = (run.about.get("faithfulness") or {}).get("normalised")
    if edges >= len(run.circuit.edges) and whole is not None:
        return Reading(float(whole), "measured")
    if curve is None or curve.edges[-1] != len(run.circuit.edges):
        return Reading(None, "not measured at this size")
    value, measured = curve.read(edges)
    return Reading(value, "measured" if measured else "estimate from the curve")
