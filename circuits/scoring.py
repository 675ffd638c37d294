"""One call for every method of `circuits/methods.py`: a problem goes in, scores of all edges and nodes come out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from circuits.attribution import attribute, attribute_along_path, attribute_nodes, refuse_flat
from circuits.circuit import UNITS, EdgeScores
from circuits.edge_masks import train_gates
from circuits.effects import measure_direct_effects, measure_total_effects, spread_nodes
from circuits.graph import Wiring
from circuits.limits import explain_memory
from circuits.methods import METHODS, Options
from circuits.patching import patch_everything
from circuits.problem import Problem
from circuits.pruning import prune_edges
from circuits.relevance import attribute_relevance
from circuits.stages import attribute_along_stages
from probes.errors import UserError
from probes.progress import Tick

# Edges [pos, writer, reader], or None for a method of nodes; nodes [pos, writer], or None for the sum over edges.
Scored = tuple[Tensor | None, Tensor | None]


def mask_edges(problem: Problem, options: Options, tick: Tick) -> Scored:
    """Probabilities of trained gates; a node's is that of its likeliest edge."""
    edges = train_gates(problem, options.edges, options.updates, options.seed, tick)
    return edges, edges.amax(dim=2)


SCORERS: dict[str, Callable[[Problem, Options, Tick], Scored]] = {
    "eap": lambda problem, options, tick: (attribute(problem, tick), None),
    "eap-ig": lambda problem, options, tick: (attribute_along_path(problem, options.steps, tick), None),
    "eap-ig-activations": lambda problem, options, tick: (attribute_along_stages(problem, options.steps, tick), None),
    "atp": lambda problem, options, tick: (None, attribute_nodes(problem, tick)),
    "relp": lambda problem, options, tick: (attribute_relevance(problem, "frozen", tick), None),
    "attnlrp": lambda problem, options, tick: (attribute_relevance(problem, "half", tick), None),
    "acdc": lambda problem, options, tick: (prune_edges(problem, options.threshold, tick), None),
    "edge-masks": mask_edges,
    "exact": lambda problem, options, tick: patch_everything(problem, tick),
    "exact-nodes": lambda problem, options, tick: (None, measure_total_effects(problem, tick)),
    "direct": lambda problem, options, tick: (None, measure_direct_effects(problem, tick)),
}


def measure_scores(problem: Problem, method: str, options: Options, tick: Tick) -> Scored:
    """What a method of the table measures, edges or nodes or both.

    Raises UserError for a metric on which the method says nothing, and when memory runs out.
    """
    if METHODS[method].at_clean:
        refuse_flat(problem)
    with explain_memory(f"scoring by {METHODS[method].label}"):
        return SCORERS[method](problem, options, tick)


def score(problem: Problem, method: str, options: Options, tick: Tick) -> EdgeScores:
    """Scores of every edge and node by a method of the table. Raises UserError as `measure_scores` and for NaN."""
    edges, nodes = measure_scores(problem, method, options, tick)
    return collect_scores(problem.wiring, problem.ablation, problem.metric_name, edges, nodes, method)


def collect_scores(
    wiring: Wiring, ablation: str, metric: str, edges: Tensor | None, nodes: Tensor | None, method: str
) -> EdgeScores:
    """Scores at rest; without node scores a node's is the sum over its outgoing edges (the chain rule).

    Raises UserError when a score is not finite.
    """
    given = [part for part in (edges, nodes) if part is not None]
    if not all(bool(torch.isfinite(part).all()) for part in given):
        raise UserError("scores are not finite: the gradient overflows here; try --dtype float32 or --method exact")
    if edges is None:
        assert nodes is not None
        edges = spread_nodes(wiring, nodes)
    nodes = edges.sum(dim=2) if nodes is None else nodes
    return EdgeScores(
        wiring=wiring,
        edges=edges.detach().float().cpu().numpy(),
        nodes=nodes.detach().float().cpu().numpy(),
        method=method,
        ablation=ablation,
        metric=metric,
        unit=METHODS[method].unit or UNITS[metric],
    )
