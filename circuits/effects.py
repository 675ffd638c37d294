"""Effects of whole nodes, exact: total, or on the logits alone; and what a node method says about edges.

*Direct effect of an edge*: the drop of the metric when that edge alone is ablated and everything after its reader is
computed again (`circuits/patching.py`). *Total effect of a node*: the drop when all its outgoing edges are ablated.
*Direct effect of a node on the logits*: the drop when only its edge into the logits is.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.connectivity import crosses, feed
from circuits.graph import Wiring
from circuits.patching import Patch, measure_patches
from circuits.problem import Problem
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
