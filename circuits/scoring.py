"""One call for every method of `circuits/methods.py`: a problem goes in, scores of all edges and nodes come out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from circuits.attribution import attribute, attribute_along_path, attribute_nodes, refuse_flat
from circuits.circuit import UNITS, EdgeScores
from circuits.effects import measure_direct_effects, measure_total_effects, spread_nodes
from circuits.methods import METHODS, Options
from circuits.patching import patch_everything
from circuits.problem import Problem
from probes.errors import UserError
from probes.progress import Tick

# Edges [pos, writer, reader], or None for a method of nodes; nodes [pos, writer], or None for the sum over edges.
Scored = tuple[Tensor | None, Tensor | None]

SCORERS: dict[str, Callable[[Problem, Options, Tick], Scored]] = {
    "eap": lambda problem, options, tick: (attribute(problem, tick), None),
    "eap-ig": lambda problem, options, tick: (attribute_along_path(problem, options.steps, tick), None),
    "atp": lambda problem, options, tick: (None, attribute_nodes(problem, tick)),
    "exact": lambda problem, options, tick: patch_everything(problem, tick),
    "exact-nodes": lambda problem, options, tick: (None, measure_total_effects(problem, tick)),
    "direct": lambda problem, options, tick: (None, measure_direct_effects(problem, tick)),
}


def score(problem: Problem, method: str, options: Options, tick: Tick) -> EdgeScores:
    """Scores of every edge and node by a method of the table.

    Raises UserError for a metric on which the method says nothing, and for scores that are not finite.
    """
    if METHODS[method].at_clean:
        refuse_flat(problem)
    edges, nodes = SCORERS[method](problem, options, tick)
    return collect_scores(problem, edges, nodes, method)


def collect_scores(problem: Problem, edges: Tensor | None, nodes: Tensor | None, method: str) -> EdgeScores:
    """Scores at rest; without node scores a node's is the sum over its outgoing edges (the chain rule).

    Raises UserError when a score is not finite.
    """
    given = [part for part in (edges, nodes) if part is not None]
    if not all(bool(torch.isfinite(part).all()) for part in given):
        raise UserError("scores are not finite: the gradient overflows here; try --dtype float32 or --method exact")
    if edges is None:
        assert nodes is not None
        edges = spread_nodes(problem.wiring, nodes)
    nodes = edges.sum(dim=2) if nodes is None else nodes
    return EdgeScores(
        wiring=problem.wiring,
        edges=edges.detach().float().cpu().numpy(),
        nodes=nodes.detach().float().cpu().numpy(),
        method=method,
        ablation=problem.ablation,
        metric=problem.metric_name,
        unit=UNITS[problem.metric_name],
    )
