"""Effects of whole nodes, exact: total, or on the logits alone; and what a node method says about edges.

*Direct effect of an edge*: the drop of the metric when that edge alone is ablated and everything after its reader is
computed again (`circuits/patching.py`). *Total effect of a node*: the drop when all its outgoing edges are ablated.
*Direct effect of a node on the logits*: the drop when only its edge into the logits is. *Effect of a memory as a
whole*: the drop when one explicit memory, or one level of the bank, is removed everywhere, in either of two ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.connectivity import crosses, feed
from circuits.graph import Kind, Wiring
from circuits.patching import measure_patches
from circuits.problem import Problem, record_run
from circuits.restarts import Patch
from probes.attachments import Attachment, remove_memories
from probes.progress import Tick


def measure_total_effects(problem: Problem, tick: Tick) -> Float[Tensor, "pos writer"]:
    """Total effect of every writer at every position: drop of the metric with all its outgoing edges ablated."""
    positions, writers = problem.positions, len(problem.wiring.writers)
    patches: list[Patch] = [(p, slice(None), w) for p in range(positions) for w in range(writers)]
    return measure_patches(problem, patches, tick, "nodes patched").reshape(positions, writers)


def measure_direct_effects(problem: Problem, tick: Tick) -> Float[Tensor, "pos writer"]:
    """Direct effect of every writer on the logits, where they are read; elsewhere it is 0."""
    writers, logits = len(problem.wiring.writers), len(problem.wiring.readers) - 1
    ends = problem.list_ends()
    patches: list[Patch] = [(p, logits, w) for p in ends for w in range(writers)]
    drops = measure_patches(problem, patches, tick, "direct effects").reshape(len(ends), writers)
    effects = drops.new_zeros(problem.positions, writers)
    effects[list(ends)] = drops
    return effects


def spread_nodes(wiring: Wiring, nodes: Float[Tensor, "pos writer"]) -> Float[Tensor, "pos writer reader"]:
    """Edge scores of a node method: that of the edge's weaker end, with the sign of the writer's.

    A reader is as strong as the strongest node it feeds (keys and values: at its own or a later position), and the
    logits are stronger than any. The edges above a threshold are then all edges between the nodes above it.
    """
    sizes = nodes.detach().abs().float().cpu().numpy()
    feeds, across = feed(wiring), crosses(wiring)
    strength = np.where(feeds[None], sizes[:, None, :], 0.0).max(axis=2)
    strength[:, across] = np.maximum.accumulate(strength[::-1, across], axis=0)[::-1]
    strength[:, -1] = np.inf
    edges = np.minimum(sizes[:, :, None], strength[:, None, :]) * wiring.visible
    return torch.from_numpy(edges.astype(np.float32)).to(nodes.device) * nodes.detach().float().sign()[:, :, None]


@dataclass(frozen=True, slots=True)
class MemoryEffect:
    """Drop of the metric when one memory as a whole is removed, at all layers, heads and positions.

    `contribution`: what it adds counts as zero, its attention is not given back (the same as ablating its writers by
    zero). `renormalised`: it is absent from the softmax, and context and other memories take its share. A bank block
    has no attention to give back; both are the same. LoRA blocks, no writers of the graph, are measured here alone.
    """

    kind: Kind
    index: int
    contribution: float
    renormalised: float


def measure_memory_effects(problem: Problem, tick: Tick) -> tuple[MemoryEffect, ...]:
    """Effect of every explicit memory and every bank level, two plain forward passes for each."""
    attachment = problem.inputs.attachment
    blocks, levels = len(attachment.explicit or ()), len(attachment.bank or ())
    learned = attachment.bank is not None and attachment.bank.kind == "key-value"
    bank = Kind.LEARNED if learned else Kind.BANK
    memories = [(Kind.EXPLICIT, i) for i in range(blocks)] + [(bank, i) for i in range(levels)]
    effects = []
    for done, (kind, index) in enumerate(memories):
        tick("memories removed", done, len(memories))
        chosen = ([index], []) if kind is Kind.EXPLICIT else ([], [index])
        contribution, renormalised = (
            problem.metric_clean - measure_with(problem, remove_memories(attachment, give_back, *chosen))
            for give_back in (False, True)
        )
        effects.append(MemoryEffect(kind, index, contribution, renormalised))
    return tuple(effects)


def measure_with(problem: Problem, attachment: Attachment) -> float:
    """Metric of the clean prompts with other memories attached."""
    ends = problem.inputs.readout.positions
    _, logits = record_run(problem.model, problem.inputs.clean, attachment, ends=ends)
    return float(problem.metric_at_ends(logits).mean())
