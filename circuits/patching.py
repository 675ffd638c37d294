"""Exact patching: ablate one edge or one node, run the model again, and read how far the metric drops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.masking import run_masked
from circuits.problem import Problem
from circuits.restarts import Patch, find_start, measure_restarted
from probes.progress import Tick
from probes.restarts import Start

# Tokens (rows times positions) of one batch of patches: enough to use the machine, few enough to fit into it.
LARGEST_BATCH = 1 << 11

# Numbers in the masks of one batch of masked runs (256 MB of float32), and in what its writers write and its largest
# attention scores together (1 GB).
LARGEST_MASK = 1 << 26
LARGEST_STATE = 1 << 28


def measure_masks(problem: Problem, masks: Float[Tensor, "mask pos reader writer"]) -> Float[Tensor, " mask"]:
    """Metric (mean over the pairs) with the edges of each mask kept and all others ablated.

    Masks of one pair run together as a batch; with several pairs each mask is a batch of its own.
    """
    inputs, plan, writes = problem.inputs, problem.wiring.plan, problem.ablated_writes

    def measure(tokens: Tensor, mask: Tensor) -> Tensor:
        ends = inputs.readout.positions
        return problem.metric_at_ends(run_masked(problem.model, inputs.attachment, tokens, plan, mask, writes, ends))

    with torch.set_grad_enabled(masks.requires_grad):
        if inputs.clean.shape[0] == 1:
            return measure(inputs.clean.expand(masks.shape[0], -1), masks)
        return torch.stack([measure(inputs.clean, masks[row : row + 1]).mean() for row in range(masks.shape[0])])


def count_rows(problem: Problem) -> int:
    """Masks of one pair that run together, so that they stay within memory."""
    wiring, model, tokens = problem.wiring, problem.model, problem.inputs.clean.shape[1]
    mask = problem.positions * len(wiring.readers) * len(wiring.writers)
    state = tokens * (len(wiring.writers) * model.d_model + model.heads * tokens)
    return max(1, min(64, LARGEST_MASK // mask, LARGEST_STATE // state))


def count_patches(problem: Problem) -> int:
    """Patches that run together, so that their activations stay within memory."""
    return max(1, LARGEST_BATCH // problem.inputs.clean.numel())


def group_patches(problem: Problem, patches: Sequence[Patch], rows: int) -> list[tuple[Start, list[int]]]:
    """Indices of patches that run together, at most `rows` of them, all on nodes or all on edges, by where they act."""
    groups: dict[tuple[Start, bool], list[int]] = {}
    for index, patch in enumerate(patches):
        groups.setdefault((find_start(problem, patch), isinstance(patch[1], slice)), []).append(index)
    return [
        (start, indices[first : first + rows])
        for (start, _), indices in sorted(groups.items())
        for first in range(0, len(indices), rows)
    ]


def measure_patches(problem: Problem, patches: Sequence[Patch], tick: Tick, label: str) -> Float[Tensor, " patch"]:
    """Drop of the metric, clean minus patched, when the edges of one patch alone are ablated."""
    drops, done = torch.zeros(len(patches), device=problem.model.device), 0
    with torch.no_grad():
        for start, indices in group_patches(problem, patches, count_patches(problem)):
            tick(label, done, len(patches))
            drops[indices] = measure_restarted(problem, start, [patches[index] for index in indices])
            done += len(indices)
    return drops


def list_edge_patches(visible: Bool[Tensor, "writer reader"], positions: int) -> Iterator[tuple[int, int, int]]:
    """Every existing edge at every position, as (pos, reader, writer)."""
    for position in range(positions):
        for writer, reader in visible.nonzero().tolist():
            yield position, reader, writer


def patch_everything(
    problem: Problem, tick: Tick
) -> tuple[Float[Tensor, "pos writer reader"], Float[Tensor, "pos writer"]]:
    """Exact scores of every edge and of every writer, at every position.

    Each takes a forward pass of its own: an edge's score ablates that edge alone, a node's all its outgoing edges.
    """
    wiring, positions = problem.wiring, problem.positions
    patches: list[Patch] = list(list_edge_patches(torch.from_numpy(wiring.visible), positions))
    drops = measure_patches(problem, patches, tick, "edges patched")
    edges = drops.new_zeros(positions, len(wiring.writers), len(wiring.readers))
    index = torch.tensor(patches, device=drops.device)
    edges[index[:, 0], index[:, 2], index[:, 1]] = drops
    outputs: list[Patch] = [(p, slice(None), w) for p in range(positions) for w in range(len(wiring.writers))]
    nodes = measure_patches(problem, outputs, tick, "nodes patched").reshape(positions, len(wiring.writers))
    return edges, nodes


def patch_node(problem: Problem, writer: int, position: int, tick: Tick) -> float:
    """Exact drop of the metric when one writer's whole output at one position is ablated."""
    return float(measure_patches(problem, [(position, slice(None), writer)], tick, "node patched"))


def patch_reader(problem: Problem, readers: list[int], position: int, tick: Tick) -> float:
    """Exact drop of the metric when everything these readers take in at one position is ablated."""
    tick("node patched", 0, 1)
    shape = (1, problem.positions, len(problem.wiring.readers), len(problem.wiring.writers))
    mask = torch.ones(shape, device=problem.model.device)
    mask[0, position, readers] = 0.0
    return problem.metric_clean - float(measure_masks(problem, mask))
