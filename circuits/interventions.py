"""What the model answers when some nodes are ablated or scaled together, exactly.

A node's output becomes `ablated + factor * (current - ablated)`, where `current` is what it writes in this very run:
factor 0 is the ablation itself, 1 leaves the node alone, 2 doubles how far it stands from its ablated output, a
negative factor turns it round. A key-value head writes nothing itself: the same happens to all that it takes in.
It is a masked run (`circuits/masking.py`) whose mask holds factors, so nodes after others see what these now write.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Wiring
from circuits.masking import run_masked
from circuits.problem import Problem
from circuits.quality import list_edges_of
from probes.errors import UserError


def build_mask(
    wiring: Wiring, positions: int, nodes: Sequence[str], factor: float
) -> Float[np.ndarray, "pos writer reader"]:
    """Ones, and the factor on the edges that carry these nodes. Raises UserError for a node that carries none."""
    mask = np.ones((positions, *wiring.visible.shape), dtype=np.float32)
    for node in nodes:
        edges = list_edges_of(node, wiring)
        if not len(edges) or int(edges.max()) >= mask.size:
            raise UserError(
                f"{node[:80]} writes nothing that could be scaled: choose a node of the circuit below the logits"
            )
        mask.ravel()[edges] = factor
    return mask


def run_intervened(problem: Problem, nodes: Sequence[str], factor: float) -> Float[Tensor, "row step d_vocab"]:
    """Logits at the readout with these nodes scaled by the factor; no nodes: the model's own."""
    mask = build_mask(problem.wiring, problem.positions, nodes, factor)
    turned = torch.from_numpy(mask.transpose(0, 2, 1).copy()).to(problem.model.device)[None]
    inputs, plan, writes = problem.inputs, problem.wiring.plan, problem.ablated_writes
    ends = inputs.readout.positions
    with torch.no_grad():
        return run_masked(problem.model, inputs.attachment, inputs.clean, plan, turned, writes, ends)
