"""How much of the model's behaviour a circuit keeps when everything else is ablated, beside random circuits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from circuits.connectivity import Mask
from circuits.graph import Wiring
from circuits.patching import count_rows, measure_masks
from circuits.problem import Problem
from probes.progress import Tick, quiet


@dataclass(frozen=True, slots=True)
class RandomBaseline:
    """Normalised faithfulness of random circuits with as many edges: mean, smallest, largest, how many."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Metric of the whole model, of the empty circuit (everything ablated) and of the circuit, in `unit`.

    `normalised` is (circuit - empty) / (whole - empty), MIB's f(C): 1 keeps the behaviour, 0 keeps none of it; above
    1 the circuit leaves out what works against the answer. The ablation is the run's own.
    """

    metric_whole: float
    metric_empty: float
    metric_circuit: float
    normalised: float
    unit: str
    edges: int
    random: RandomBaseline

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def draw_random_masks(wiring: Wiring, positions: int, edges: int, count: int, seed: int) -> Iterator[Mask]:
    """Masks of `edges` edges each, drawn without replacement from the whole graph."""
    generator = np.random.default_rng(seed)
    existing = np.flatnonzero(np.broadcast_to(wiring.visible, (positions, *wiring.visible.shape)))
    for _ in range(count):
        mask = np.zeros((positions, *wiring.visible.shape), dtype=bool)
        mask.ravel()[generator.choice(existing, size=edges, replace=False)] = True
        yield mask


def normalise(problem: Problem, value: float) -> float:
    """MIB's f: 0 at the ablated run, 1 at the model."""
    return (value - problem.metric_ablated) / (problem.metric_clean - problem.metric_ablated)


def measure_kept(
    problem: Problem, kept: Iterable[Mask], total: int = 0, tick: Tick = quiet, label: str = "circuits"
) -> list[float]:
    """Metric with only the kept edges, one number a mask; as many masks run together as memory allows.

    `total` masks are expected, for the tick.
    """
    masks, values = iter(kept), list[float]()
    while chunk := list(islice(masks, count_rows(problem))):
        tick(label, len(values), total)
        batch = np.stack(chunk).transpose(0, 1, 3, 2).astype(np.float32)
        values += measure_masks(problem, torch.from_numpy(batch).to(problem.model.device)).tolist()
    return values


def measure_shares(problem: Problem, kept: Iterable[Mask], total: int, tick: Tick, label: str) -> list[float]:
    """Normalised faithfulness f of each mask: 0 as everything ablated, 1 as the whole model."""
    return [normalise(problem, value) for value in measure_kept(problem, kept, total, tick, label)]
