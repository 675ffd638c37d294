"""From scores to the edges of a circuit: several rules in one table, each keeping only edges on a path to the logits.

1. Every rule ranks by the absolute score: an edge that works against the answer is part of the mechanism too.
2. An edge stays only when some source (embedding, explicit memory, bank block) reaches it and it reaches the logits
   where they are read (`circuits/connectivity.py`); what a rule adds but no path uses falls away.
3. `requested` edges are an upper bound: top-n and backward-greedy keep as many live edges as fit.

Backward-greedy is the greedy rule of EAP-IG's `apply_greedy` (Hanna et al. 2024), with one difference: a head that
joins the circuit asks for its keys and values at its own and at all earlier positions, since ours have positions.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from jaxtyping import Float

from circuits.circuit import EdgeScores
from circuits.connectivity import Mask, crosses, drop_dead_ends, feed, find_links
from circuits.graph import Wiring
from probes.errors import UserError


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of a selection.

    `edges` is the largest number to keep (`threshold` takes no notice of it). `ends` are the positions at which the
    logits are read. `threshold` is the smallest absolute score kept, in the scores' unit. `seconds` bounds the solver
    of `optimal`. `pairs` are the scores of each prompt pair alone, which `stable` resamples `resamples` times from
    `seed`, keeping what holds in at least `share` of them.
    """

    edges: int
    ends: tuple[int, ...]
    threshold: float = 0.0
    seconds: float = 60.0
    pairs: Float[np.ndarray, "pair pos writer reader"] | None = None
    resamples: int = 200
    share: float = 0.9
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Selected:
    """Edges kept, and what the rule has to say about them (numbers by name, such as the gap to the optimum)."""

    mask: Mask
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """One rule: its name in commands and files, its label, one sentence of explanation, and the rule itself."""

    name: str
    label: str
    explanation: str
    select: Callable[[EdgeScores, Goal], Selected]


def rank_edges(scores: EdgeScores) -> np.ndarray:
    """Flat indices of all edges with a score, largest absolute score first; ties in order of position, writer, reader.

    An edge of score 0 does nothing or was left out by the method (pruned, or measured on the logits alone).
    """
    size = np.where(scores.wiring.visible[None], np.abs(scores.edges), 0.0).ravel()
    order = np.argsort(-size, kind="stable")
    return order[: np.count_nonzero(size)]


def keep_strongest(scores: EdgeScores, count: int) -> Mask:
    """Mask of the `count` edges with the largest absolute scores."""
    return keep_ranked(rank_edges(scores)[:count], scores.edges.shape)


def keep_ranked(chosen: np.ndarray | Sequence[int], shape: tuple[int, ...]) -> Mask:
    """Mask of edges given by their flat indices."""
    mask = np.zeros(shape, dtype=bool)
    mask.ravel()[chosen] = True
    return mask


def fit_prefix(
    ranked: np.ndarray | Sequence[int], shape: tuple[int, ...], wiring: Wiring, ends: Sequence[int], count: int
) -> Mask:
    """Live edges of the longest prefix of a ranking of which at most `count` survive once dead ends are dropped.

    More edges never make a live one dead, so the prefix is found by bisection.
    """
    low, high, links = 0, len(ranked), find_links(wiring)
    best = np.zeros(shape, dtype=bool)
    while low < high:
        middle = (low + high + 1) // 2
        mask = drop_dead_ends(keep_ranked(ranked[:middle], shape), wiring, ends, links)
        if int(mask.sum()) <= count:
            low, best = middle, mask
        else:
            high = middle - 1
    return best


def select_top(scores: EdgeScores, goal: Goal) -> Selected:
    """The edges of largest absolute score, as many live ones as fit."""
    return Selected(fit_prefix(rank_edges(scores), scores.edges.shape, scores.wiring, goal.ends, goal.edges))


def select_above(scores: EdgeScores, goal: Goal) -> Selected:
    """Every live edge whose absolute score reaches the threshold. Raises UserError when there is none."""
    mask = scores.wiring.visible[None] & (np.abs(scores.edges) >= goal.threshold)
    mask = drop_dead_ends(mask, scores.wiring, goal.ends)
    if not mask.any():
        raise UserError(
            f"no path to the logits is made of edges that score {goal.threshold:g} {scores.unit} or more (the largest "
            f"scores {float(np.abs(scores.edges).max()):.4g}): lower --threshold"
        )
    return Selected(mask)


def grow_backward(scores: EdgeScores, ends: Sequence[int]) -> Iterator[int]:
    """Flat indices of edges in the order in which they join, from the logits backwards.

    The next edge is always the one of largest absolute score among those whose reader is in the circuit already; its
    writer then joins with its own readers. Ties go to the lower index; edges of score 0 never join.
    """
    wiring, sizes = scores.wiring, np.abs(scores.edges)
    feeds, across = feed(wiring), crosses(wiring)
    heap: list[tuple[float, int, int]] = []
    columns: dict[int, list[int]] = {}

    def offer(column: int, place: int) -> None:
        if place < len(columns[column]):
            edge = columns[column][place]
            heapq.heappush(heap, (-float(sizes.ravel()[edge]), edge, place))

    def join(position: int, reader: int) -> None:
        column = position * len(wiring.readers) + reader
        if column not in columns:
            writers = np.flatnonzero(wiring.visible[:, reader] & (sizes[position, :, reader] > 0))
            order = writers[np.argsort(-sizes[position, writers, reader], kind="stable")]
            columns[column] = [int(np.ravel_multi_index((position, w, reader), sizes.shape)) for w in order]
            offer(column, 0)

    for end in ends:
        join(end, len(wiring.readers) - 1)
    while heap:
        _, edge, place = heapq.heappop(heap)
        yield edge
        position, writer, reader = (int(i) for i in np.unravel_index(edge, sizes.shape))
        offer(position * len(wiring.readers) + reader, place + 1)
        for own in np.flatnonzero(feeds[:, writer]).tolist():
            for at in range(position + 1) if across[own] else (position,):
                join(at, own)


def select_backward(scores: EdgeScores, goal: Goal) -> Selected:
    """Edges in the order of `grow_backward`, as many live ones as fit."""
    growing = grow_backward(scores, goal.ends)
    order: list[int] = []
    while batch := list(islice(growing, max(goal.edges, len(order)))):
        order += batch
        if int(drop_dead_ends(keep_ranked(order, scores.edges.shape), scores.wiring, goal.ends).sum()) > goal.edges:
            break
    return Selected(fit_prefix(order, scores.edges.shape, scores.wiring, goal.ends, goal.edges))


def select_optimal(scores: EdgeScores, goal: Goal) -> Selected:
    """The live set of at most so many edges whose absolute scores add up to most (`circuits/optimum.py`)."""
    from circuits.optimum import find_optimum

    optimum = find_optimum(scores, goal.edges, goal.ends, goal.seconds)
    return Selected(optimum.mask, {"sum": optimum.value, "bound": optimum.bound, "gap": optimum.gap})


def select_stable(scores: EdgeScores, goal: Goal) -> Selected:
    """Live edges that stay among the strongest, with their sign, when the pairs are resampled."""
    from circuits.stability import count_stable

    if goal.pairs is None or len(goal.pairs) < 2:
        raise UserError(
            "stable edges are found by resampling prompt pairs: give several (--pairs FILE, or --fact twice)"
        )
    shares = count_stable(goal.pairs, scores.wiring, goal.edges, goal.resamples, goal.seed)
    return Selected(drop_dead_ends(shares >= goal.share, scores.wiring, goal.ends), {"share": goal.share})


SELECTIONS: dict[str, Selection] = {
    "top-n": Selection(
        "top-n", "Strongest edges", "The edges of largest absolute score that lie on a path to the logits.", select_top
    ),
    "threshold": Selection(
        "threshold",
        "Above a threshold",
        "Every edge on a path to the logits whose absolute score reaches the threshold, however many there are.",
        select_above,
    ),
    "backward-greedy": Selection(
        "backward-greedy",
        "Backward from the logits",
        "Grown from the logits: always the strongest edge into what is in the circuit already.",
        select_backward,
    ),
    "optimal": Selection(
        "optimal",
        "Optimal under the budget",
        "The edges of largest total absolute score among all sets of that size with paths to the logits (HiGHS).",
        select_optimal,
    ),
    "stable": Selection(
        "stable",
        "Stable over pairs",
        "Edges that stay among the strongest, with their sign, in most resamples of the prompt pairs.",
        select_stable,
    ),
}


def select_edges(scores: EdgeScores, name: str, goal: Goal) -> Selected:
    """Edges by the rule of this name; none when no path fits. Raises UserError for what the rule cannot do."""
    return SELECTIONS[name].select(scores, goal)
