"""The best circuit under a budget, by integer programming: most score in so many edges, all of them on paths.

    maximise    sum over edges of |score| kept[edge]
    subject to  sum over edges of kept[edge] <= budget
                kept[edge] <= on[its writer]
                kept[edge] <= open[its reader]
                on[writer] <= sum of kept over its edges
                on[writer] <= sum of kept over the edges into what feeds it      (a source needs none)
                open[reader] <= sum of on over the writers that it feeds         (the logits: open where they are read)

The graph runs one way, so an edge with one before it and one after it lies on a path. Only `kept` must be whole
numbers; the rest follows. Choosing circuits by integer programming: arXiv 2510.25786; the programme is ours. Solved by
HiGHS (`scipy.optimize.milp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.circuit import EdgeScores
from circuits.connectivity import Mask, crosses, drop_dead_ends, feed, list_sources
from circuits.graph import Wiring
from probes.errors import UserError

# Edges that a programme may choose from; above this the solver takes too long to be of use.
LARGEST_PROGRAMME = 50_000
# How far below the solver's bound a solution may lie and still be called optimal, relative to its value.
GAP = 1e-6


@dataclass(frozen=True, slots=True)
class Optimum:
    """Edges kept, the sum of their absolute scores, the solver's upper bound on it, and the relative gap between."""

    mask: Mask
    value: float
    bound: float
    gap: float


def constrain_paths(live: Mask, wiring: Wiring, ends: Sequence[int]) -> Any:
    """Sparse matrix of the constraints `matrix @ [kept, on, open] <= 0` but the budget's.

    `kept` has an entry for each edge of `live`, in flat order; `on` for each (position, writer), `open` for each
    (position, reader).
    """
    from scipy import sparse

    positions, writers, readers = live.shape
    position, writer, reader = np.nonzero(live)
    edges = np.arange(len(position))

    def join(places: np.ndarray, size: int) -> Any:
        return sparse.csr_array((np.ones(len(edges)), (edges, places)), shape=(len(edges), size))

    def one(size: int) -> Any:
        return sparse.eye_array(size, format="csr")

    leaves = join(position * writers + writer, positions * writers)
    enters = join(position * readers + reader, positions * readers)
    feeds, across = feed(wiring).astype(float), crosses(wiring)
    fed = sparse.kron(one(positions), feeds * ~across[:, None], format="csr")
    fed += sparse.kron(np.triu(np.ones((positions, positions))), feeds * across[:, None], format="csr")
    drawn = np.tile(~list_sources(wiring), positions)
    wanting = np.ones(positions * readers, dtype=bool)
    wanting[[end * readers + readers - 1 for end in ends]] = False
    every, all_open = one(positions * writers), one(positions * readers)
    blocks = [
        [one(len(edges)), -leaves, None],
        [one(len(edges)), None, -enters],
        [-leaves.T, every, None],
        [-(enters @ fed).T.tocsr()[drawn], every[drawn], None],
        [None, -fed[wanting], all_open[wanting]],
    ]
    return sparse.block_array(blocks, format="csr")


def find_optimum(scores: EdgeScores, count: int, ends: Sequence[int], seconds: float) -> Optimum:
    """The live set of at most `count` edges with the largest sum of absolute scores; edges of score 0 are never kept.

    Raises UserError when the graph is too large, or when the solver does not finish within `seconds`.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    wiring = scores.wiring
    live = drop_dead_ends(wiring.visible[None] & (scores.edges != 0), wiring, ends)
    chosen = np.flatnonzero(live)
    if len(chosen) > LARGEST_PROGRAMME:
        raise UserError(
            f"the whole graph has {len(chosen):,} edges and the integer programme takes {LARGEST_PROGRAMME:,}: "
            "use --selection backward-greedy, a shorter prompt, or several pairs (their positions are summed)"
        )
    matrix = constrain_paths(live, wiring, ends)
    kept = (np.arange(matrix.shape[1]) < len(chosen)).astype(float)
    gains = np.zeros(matrix.shape[1])
    gains[: len(chosen)] = np.abs(scores.edges.ravel()[chosen])
    found = milp(
        -gains,
        integrality=kept,
        bounds=Bounds(0.0, 1.0),
        constraints=[LinearConstraint(matrix, -np.inf, 0.0), LinearConstraint(kept[None], -np.inf, float(count))],
        options={"time_limit": seconds, "mip_rel_gap": GAP},
    )
    if found.status != 0:
        gap = f"{found.mip_gap:.2%} from the optimum" if found.x is not None else "without any circuit"
        raise UserError(
            f"the integer programme was stopped after {seconds:g} s, {gap}: allow more --solver-seconds, or use "
            "--selection backward-greedy"
        )
    mask = np.zeros(live.shape, dtype=bool)
    mask.ravel()[chosen[found.x[: len(chosen)] > 0.5]] = True
    return Optimum(
        mask, float(gains[: len(chosen)][found.x[: len(chosen)] > 0.5].sum()), -found.mip_dual_bound, found.mip_gap
    )
