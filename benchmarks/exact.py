"""Exact patching and circuits of every size beside bare forward passes: `python benchmarks/exact.py`.

Random weights, 32 tokens, logit difference, positions summed. *Nodes*: every head and MLP ablated alone. *Edges*: the
500 strongest edges by EAP ablated one by one. *Grid*: the metric of the ten circuits of MIB's grid, strongest edges by
EAP first. Each is divided by as many bare forward passes (of the whole batch) as there are nodes, edges or circuits;
the last row says what is wanted at most.
"""

from __future__ import annotations

import torch
from options import build_models, describe, read_options
from shapes import draw_inputs, measure, print_table, run_forward

from circuits.attribution import attribute
from circuits.graph import Kind
from circuits.patching import count_rows, measure_masks, measure_patches
from circuits.problem import Inputs, Problem, pose_problem
from circuits.restarts import Patch
from probes.models import Model
from probes.progress import quiet

# What is wanted at most, by the table's columns; a circuit of the grid may take 1.3 x two forward passes.
TARGETS = {"nodes / (nodes x bare)": 0.65, "edges / (edges x bare)": 0.65, "grid / (circuits x bare)": 2.6}

EDGES = 500
GRID = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def list_nodes(problem: Problem) -> list[Patch]:
    """Every head and MLP."""
    kinds = (Kind.HEAD, Kind.MLP)
    return [(0, slice(None), index) for index, writer in enumerate(problem.wiring.writers) if writer.kind in kinds]


def list_edges(scores: torch.Tensor, count: int) -> list[Patch]:
    """The strongest edges, [pos, writer, reader]."""
    _, writers, readers = scores.shape
    flat = scores.abs().flatten().topk(count).indices.tolist()
    return [(index // (writers * readers), index % readers, index // readers % writers) for index in flat]


def build_masks(problem: Problem, scores: torch.Tensor) -> torch.Tensor:
    """Masks [circuit, pos, reader, writer] of the strongest edges at each share of the grid."""
    order = scores.abs().flatten().argsort(descending=True)
    masks = torch.zeros(len(GRID), scores.numel(), device=scores.device)
    for row, share in enumerate(GRID):
        masks[row, order[: int(share * problem.wiring.edges * problem.positions)]] = 1.0
    return masks.view(len(GRID), *scores.shape).transpose(2, 3)


def measure_grid(problem: Problem, masks: torch.Tensor) -> None:
    """The metric of each circuit, as many at once as fit."""
    for part in masks.split(count_rows(problem)):
        measure_masks(problem, part)


def compare(model: Model, inputs: Inputs, repeats: int, clock: str) -> dict[str, object]:
    """Counts, seconds of the bare forward pass, and ratios."""
    problem = pose_problem(model, inputs, summed=True)
    scores = attribute(problem, quiet)
    nodes, edges, masks = list_nodes(problem), list_edges(scores, EDGES), build_masks(problem, scores)
    work = {
        "forward": lambda: run_forward(model, inputs.clean),
        "nodes": lambda: measure_patches(problem, nodes, quiet, ""),
        "edges": lambda: measure_patches(problem, edges, quiet, ""),
        "grid": lambda: measure_grid(problem, masks),
    }
    seconds = measure(work, repeats, clock)
    forward = seconds["forward"]
    return {
        "bare forward, s": forward,
        "nodes": len(nodes),
        "nodes / (nodes x bare)": seconds["nodes"] / (len(nodes) * forward),
        "edges": len(edges),
        "edges / (edges x bare)": seconds["edges"] / (len(edges) * forward),
        "grid / (circuits x bare)": seconds["grid"] / (len(GRID) * forward),
    }


def main() -> None:
    """Print one row a shape and batch size."""
    options = read_options(__doc__)
    rows = [
        {"shape": shape, "batch": batch} | compare(model, draw_inputs(model, batch), options.repeats, options.clock)
        for shape, model in build_models(options)
        for batch in options.batches
    ]
    print(describe(options))
    print_table([*rows, dict.fromkeys(rows[0], "") | {"shape": "at most"} | TARGETS])


if __name__ == "__main__":
    main()
