"""How well the scores of a method tell planted edges from all others.

Every method of `circuits/methods.py` scores every edge of every planted model; the larger the absolute score, the more
an edge is said to matter. *AUROC* is the probability that a planted edge outranks another one (a tie counts half), the
yardstick of MIB (Mueller et al. 2025) on models with a known circuit; *average precision* the mean, over planted edges,
of the share of planted ones among all edges that score at least as much, which the many edges that carry nothing do
not flatter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from circuits.attention import remove_attention
from circuits.faithfulness import measure_kept, normalise
from circuits.graph import Component, Kind, parse_component
from circuits.methods import Options
from circuits.part_selection import score_parts
from circuits.parts import PART_KINDS
from circuits.planted.model import Planted, mark_edges
from circuits.planted.planting import PLANTERS, pose_planted
from circuits.problem import Problem
from circuits.removal import remove_parts
from circuits.scoring import score
from probes.progress import Tick, quiet


@dataclass(frozen=True, slots=True)
class Size:
    """One planted model: its graph, and how clearly the planted edges stand out.

    `kept` is the normalised faithfulness of the planted edges alone, `others` that of all the others alone. With
    exact scores, `weakest` is the smallest drop, in absolute value, of the metric by a planted edge that is not
    unseen, and `strongest` the largest by any edge that is not planted, both as shares of the whole change.
    """

    family: str
    seed: int
    layers: int
    positions: int
    edges: int
    planted: int
    unseen: int
    kept: float
    others: float
    weakest: float | None
    strongest: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """How well one method finds the circuit of one planted model."""

    family: str
    seed: int
    method: str
    auroc: float
    precision: float


@dataclass(frozen=True, slots=True)
class Finding:
    """How well planted parts of one kind are found among all parts of that kind, at all positions.

    `worst` is the rank of the lowest planted one (1 is the top) by its absolute estimate, `weakest` that estimate and
    `strongest` the largest of any other part, `exact` the smallest exact drop of a planted one; the last three in
    absolute value, as shares of the metric's whole change. Parts are removed as `ablated`.
    """

    family: str
    seed: int
    kind: str
    parts: int
    planted: int
    worst: int
    weakest: float
    strongest: float
    exact: float


@dataclass(frozen=True, slots=True)
class Validation:
    """Every planted model, every method's scores on each, and where its planted parts come out."""

    sizes: tuple[Size, ...]
    scores: tuple[Score, ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def measure_auroc(scores: Float[np.ndarray, " edge"], planted: Bool[np.ndarray, " edge"]) -> float:
    """Probability that a planted edge scores higher than another, ties counting half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    hits = int(planted.sum())
    return float((ranks[planted].sum() - hits * (hits + 1) / 2) / (hits * (planted.size - hits)))


def measure_precision(scores: Float[np.ndarray, " edge"], planted: Bool[np.ndarray, " edge"]) -> float:
    """Average precision: mean over planted edges of the share of planted ones among those that score no less."""
    values, inverse = np.unique(-scores, return_inverse=True)
    total = np.bincount(inverse, minlength=values.size)
    hits = np.bincount(inverse, weights=planted, minlength=values.size)
    return float((hits * hits.cumsum() / total.cumsum()).sum() / hits.sum())


def describe_size(
    planted: Planted, problem: Problem, family: str, seed: int, exact: Float[np.ndarray, "pos writer reader"] | None
) -> Size:
    """Numbers of one planted model; `exact` are its exact edge scores, where they were measured."""
    wiring, positions = problem.wiring, problem.positions
    mask = mark_edges(planted.edges, wiring, positions)
    seen = mask & ~mark_edges(planted.unseen, wiring, positions)
    kept, others = measure_kept(problem, np.stack([mask, ~mask & wiring.visible]))
    drops = None if exact is None else np.abs(exact) / abs(problem.metric_clean - problem.metric_ablated)
    return Size(
        family=family,
        seed=seed,
        layers=wiring.plan.layers,
        positions=positions,
        edges=wiring.edges * positions,
        planted=len(planted.edges),
        unseen=len(planted.unseen),
        kept=normalise(problem, kept),
        others=normalise(problem, others),
        weakest=None if drops is None else float(drops[seen].min()),
        strongest=None if drops is None else float(drops[~mask].max()),
    )


def find_parts(planted: Planted, problem: Problem, family: str, seed: int) -> Iterator[Finding]:
    """Where the planted parts of each kind come out, and what removing them does."""
    change = abs(problem.metric_clean - problem.metric_ablated)
    if not planted.parts:
        return
    table = score_parts(problem, (), tuple(PART_KINDS), quiet)
    total = sum(scores.values.size for scores in table.scores)
    for kind, name in PART_KINDS.items():
        components = [(parse_component(part, problem.wiring.plan.layers), pos) for pos, part in planted.parts]
        wanted = [(component, position) for component, position in components if component.kind is kind]
        if not wanted:
            continue
        ranked = table.rank(total, "", "ablated", (kind,))
        sizes = {(part.component, part.position): abs(part.score) / change for part in ranked}
        order = list(sizes)
        drops = [abs(remove_part(problem, *part)) / change for part in wanted]
        yield Finding(
            family=family,
            seed=seed,
            kind=name,
            parts=len(order),
            planted=len(wanted),
            worst=1 + max(order.index(part) for part in wanted),
            weakest=min(sizes[part] for part in wanted),
            strongest=max(size for part, size in sizes.items() if part not in wanted),
            exact=min(drops),
        )


def remove_part(problem: Problem, part: Component, position: int) -> float:
    """Exact drop of the metric without one part, as ablated."""
    if part.kind is Kind.HEAD:
        return float(remove_attention(problem, [(part.layer, part.head, position, part.part)], quiet, "ablated"))
    return float(remove_parts(problem, [(part, position)], quiet))


def validate(
    families: Sequence[str], methods: Sequence[str], seeds: Sequence[int], options: Options, tick: Tick
) -> Validation:
    """Score every planted model of these families and seeds by these methods, and its parts."""
    sizes, scores, findings = [], [], list[Finding]()
    pairs = [(family, seed) for family in families for seed in seeds]
    for done, (family, seed) in enumerate(pairs):
        planted = PLANTERS[family](seed)
        problem = pose_planted(planted)
        mask = mark_edges(planted.edges, problem.wiring, problem.positions)
        existing = np.broadcast_to(problem.wiring.visible, mask.shape)
        exact = None
        for method in methods:
            tick(f"{family}, {method}", done, len(pairs))
            found = score(problem, method, options, tick).edges
            size = np.abs(found[existing])
            values = measure_auroc(size, mask[existing]), measure_precision(size, mask[existing])
            scores.append(Score(family, seed, method, *values))
            exact = found if method == "exact" else exact
        sizes.append(describe_size(planted, problem, family, seed, exact))
        findings += find_parts(planted, problem, family, seed)
    return Validation(tuple(sizes), tuple(scores), tuple(findings))
