"""Faithfulness against size: f of circuits from 0.1 % of the edges to all of them, and the two areas of MIB.

    CPR = area under f          (circuit performance ratio; larger is better)
    CMD = area of |1 - f|       (circuit-model distance; 0 is best)

Both by the trapezoidal rule over the share of edges, on a linear axis, from the first to the last point of the grid, so
a circuit as good as the model at every size has CPR 0.999 and CMD 0 (Mueller et al. 2025, MIB; the benchmark's own
`evaluate_area_under_curve` with its linear axis; |1 - f| is taken at the points). One difference: the benchmark's top-n
counts edges before it drops dead ends, ours keeps as many live edges as fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from circuits.circuit import EdgeScores
from circuits.connectivity import Mask
from circuits.faithfulness import draw_random_masks, measure_shares
from circuits.problem import Problem
from circuits.selection import Goal, select_top
from probes.progress import Tick

# Shares of all edges at which MIB measures.
GRID = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Curve:
    """Normalised faithfulness at each share of the grid, of circuits with so many edges, and the areas of MIB."""

    shares: tuple[float, ...]
    edges: tuple[int, ...]
    faithfulness: tuple[float, ...]
    cpr: float
    cmd: float


@dataclass(frozen=True, slots=True)
class Curves:
    """Circuits by absolute score, by signed score (edges that help first), and random ones (mean over the draws).

    The first is what CMD asks for, the second what CPR asks for: leaving out what works against the answer raises f.
    """

    absolute: Curve
    signed: Curve
    random: Curve
    draws: int


def integrate(shares: tuple[float, ...], values: tuple[float, ...]) -> float:
    """Area under straight lines between the points."""
    return float(np.trapezoid(values, shares))


def build_curve(shares: tuple[float, ...], edges: tuple[int, ...], faithfulness: tuple[float, ...]) -> Curve:
    """Curve with its areas."""
    distance = tuple(abs(1.0 - f) for f in faithfulness)
    return Curve(shares, edges, faithfulness, integrate(shares, faithfulness), integrate(shares, distance))


def list_sizes(problem: Problem) -> tuple[int, ...]:
    """Edges at each share of the grid, rounded down as MIB does."""
    return tuple(int(share * problem.wiring.edges * problem.positions) for share in GRID)


def rank_signed(scores: EdgeScores) -> EdgeScores:
    """Ranks in place of scores, largest where an edge helps most: what sorts by absolute value then sorts by sign."""
    ranks = scores.edges.ravel().argsort(kind="stable").argsort().reshape(scores.edges.shape) + 1
    return replace(scores, edges=np.where(scores.edges != 0, ranks, 0).astype(np.float32))


def list_circuits(problem: Problem, scores: EdgeScores) -> Iterator[Mask]:
    """The strongest live edges at each size of the grid; at the last, the whole graph."""
    ends = problem.list_ends()
    for size in list_sizes(problem)[:-1]:
        yield select_top(scores, Goal(size, ends)).mask
    yield np.broadcast_to(problem.wiring.visible, scores.edges.shape)


def trace_curve(problem: Problem, scores: EdgeScores, tick: Tick, label: str) -> Curve:
    """Curve of the circuits that a ranking gives."""
    masks = list(list_circuits(problem, scores))
    shares = measure_shares(problem, masks, len(masks), tick, label)
    return build_curve(GRID, tuple(int(mask.sum()) for mask in masks), tuple(shares))


def trace_random(problem: Problem, draws: int, seed: int, tick: Tick) -> Curve:
    """Curve of circuits drawn at random, the mean over the draws at each size."""
    sizes, means = list_sizes(problem), []
    for size in sizes[:-1]:
        masks = draw_random_masks(problem.wiring, problem.positions, size, draws, seed)
        means.append(float(np.mean(measure_shares(problem, masks, draws, tick, "random curve"))))
    whole = np.broadcast_to(problem.wiring.visible, (problem.positions, *problem.wiring.visible.shape))
    means += measure_shares(problem, [whole], 1, tick, "random curve")
    return build_curve(GRID, sizes, tuple(means))


def measure_curves(problem: Problem, scores: EdgeScores, draws: int, seed: int, tick: Tick) -> Curves:
    """Both curves of a ranking and the random one."""
    return Curves(
        absolute=trace_curve(problem, scores, tick, "curve by absolute score"),
        signed=trace_curve(problem, rank_signed(scores), tick, "curve by signed score"),
        random=trace_random(problem, draws, seed, tick),
        draws=draws,
    )
