"""How far two sets of scores, or two circuits, agree: estimate against exact patching, one circuit against another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from circuits.circuit import EdgeScores
from circuits.connectivity import Mask
from circuits.patching import measure_patches
from circuits.problem import Problem
from circuits.restarts import Patch
from circuits.selection import rank_edges
from probes.progress import Tick

# Strata of the ranking, from strongest to weakest, out of which equally many edges are drawn.
STRATA = 6
WORST = 5

# Effects smaller than this share of the largest are float32 noise (it depends on what else runs in a batch), so none.
NOISE = 1e-6


@dataclass(frozen=True, slots=True)
class Miss:
    """One edge with its estimate and its exact effect, in the unit of the scores."""

    edge: str
    estimate: float
    exact: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Spearman correlation of estimate and exact effect over sampled edges (None where one of them is constant).

    `sign` is the share of edges on which both have the same sign; `misses` are the edges that are furthest apart.
    """

    spearman: float | None
    sign: float
    sampled: int
    unit: str
    misses: tuple[Miss, ...]


def sample_edges(scores: EdgeScores, count: int, seed: int) -> np.ndarray:
    """Flat indices of edges with a score, about equally many from each stratum of the ranking.

    Strata are cut at powers of the rank: the strongest are few and the weakest many, so each power gets its say.
    """
    ranked = rank_edges(scores)
    generator = np.random.default_rng(seed)
    cuts = np.unique(np.round(len(ranked) ** (np.arange(STRATA + 1) / STRATA)).astype(int))
    cuts[0] = 0
    chosen: list[int] = []
    for place, (start, stop) in enumerate(pairwise(cuts.tolist())):
        # What a small stratum cannot give, later ones do.
        wanted = round(count * (place + 1) / (len(cuts) - 1)) - len(chosen)
        chosen += generator.choice(ranked[start:stop], size=min(wanted, stop - start), replace=False).tolist()
    return np.array(chosen, dtype=np.int64)


def correlate(first: Float[np.ndarray, " item"], second: Float[np.ndarray, " item"]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where either is constant or has fewer than 3."""
    from scipy.stats import spearmanr

    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def measure_agreement(problem: Problem, scores: EdgeScores, count: int, seed: int, tick: Tick) -> Agreement:
    """Patch sampled edges exactly and compare with their scores."""
    chosen = sample_edges(scores, count, seed)
    places = np.array(np.unravel_index(chosen, scores.edges.shape)).T.tolist()
    patches: list[Patch] = [(position, reader, writer) for position, writer, reader in places]
    exact = measure_patches(problem, patches, tick, "sampled edges patched").cpu().numpy().astype(np.float64)
    estimate = scores.edges.ravel()[chosen].astype(np.float64)
    noise = NOISE * np.abs(exact).max()
    estimate, exact = (np.where(np.abs(part) < noise, 0.0, part) for part in (estimate, exact))
    wiring = scores.wiring
    names = [f"{wiring.writers[w].name}@{p} -> {wiring.readers[r].name}@{p}" for p, w, r in places]
    worst = np.argsort(-np.abs(estimate - exact), kind="stable")[:WORST]
    return Agreement(
        spearman=correlate(estimate, exact),
        sign=float(np.mean(np.sign(estimate) == np.sign(exact))),
        sampled=len(chosen),
        unit=scores.unit,
        misses=tuple(Miss(names[i], float(estimate[i]), float(exact[i])) for i in worst),
    )


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two circuits over the same model: Jaccard index of their edges, and Spearman over all edges' absolute scores.

    Edges count without their position, so that circuits of prompts of different lengths compare.
    """

    name: str
    jaccard: float
    spearman: float | None
    edges: int


def compare_circuits(name: str, first: tuple[EdgeScores, Mask], second: tuple[EdgeScores, Mask]) -> Overlap:
    """Overlap of two circuits, each given by its scores and its mask; both must have the same writers and readers."""
    kept, other = first[1].any(axis=0), second[1].any(axis=0)
    visible = first[0].wiring.visible
    sizes = [np.abs(scores.edges).sum(axis=0)[visible].astype(np.float64) for scores, _ in (first, second)]
    either = int((kept | other).sum())
    return Overlap(
        name=name,
        jaccard=float((kept & other).sum() / either) if either else 1.0,
        spearman=correlate(*sizes),
        edges=int(second[1].sum()),
    )
