"""How much of the model's behaviour a circuit keeps when everything else is ablated, beside random circuits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from circuits.graph import Wiring
from circuits.patching import count_rows, measure_masks
from circuits.problem import Problem
from probes.progress import Tick


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


def draw_random_masks(
    wiring: Wiring, positions: int, edges: int, count: int, seed: int
) -> Bool[np.ndarray, "batch pos writer reader"]:
    """Masks of `edges` edges each, drawn without replacement from the whole graph."""
    generator = np.random.default_rng(seed)
    existing = np.flatnonzero(np.broadcast_to(wiring.visible, (positions, *wiring.visible.shape)))
    masks = np.zeros((count, positions, *wiring.visible.shape), dtype=bool)
    for mask in masks:
        mask.ravel()[generator.choice(existing, size=edges, replace=False)] = True
    return masks


def normalise(problem: Problem, value: float) -> float:
    """MIB's f: 0 at the ablated run, 1 at the model."""
    return (value - problem.metric_ablated) / (problem.metric_clean - problem.metric_ablated)


def measure_kept(problem: Problem, kept: Bool[np.ndarray, "batch pos writer reader"]) -> list[float]:
    """Metric with only the kept edges, one number a mask."""
    masks = torch.from_numpy(kept.transpose(0, 1, 3, 2).astype(np.float32)).to(problem.model.device)
    rows = count_rows(problem)
    return [
        v for start in range(0, len(masks), rows) for v in measure_masks(problem, masks[start : start + rows]).tolist()
    ]


def measure_faithfulness(
    problem: Problem,
    mask: Bool[np.ndarray, "pos writer reader"],
    unit: str,
    seed: int,
    tick: Tick,
    draws: int = 10,
) -> Faithfulness:
    """Faithfulness of the circuit given by `mask`, and of `draws` random circuits of its size."""
    tick("faithfulness", 0, 2)
    edges = int(mask.sum())
    random = draw_random_masks(problem.wiring, problem.positions, edges, draws, seed)
    (value,) = measure_kept(problem, mask[None])
    tick("random circuits", 1, 2)
    values = measure_kept(problem, random)
    shares = [normalise(problem, v) for v in values]
    return Faithfulness(
        metric_whole=problem.metric_clean,
        metric_empty=problem.metric_ablated,
        metric_circuit=value,
        normalised=normalise(problem, value),
        unit=unit,
        edges=edges,
        random=RandomBaseline(float(np.mean(shares)), min(shares), max(shares), draws),
    )
