"""Arithmetic of a parametric memory block: extra gated units beside a model's own FFN.

Source: Pouransari et al. 2025, appendix I: `y = W3(silu(W1 x) * W2 x) + M3(silu(M1 x) * M2 x)`; widening the FFN by
concatenation and adding the block's output are the same function.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fire_units(
    x: Float[Tensor, "batch pos d_model"],
    gate: Float[Tensor, "_ unit d_model"],
    up: Float[Tensor, "_ unit d_model"],
) -> Float[Tensor, "batch pos unit"]:
    """Activations of a block's gated units, `silu(gate x) * (up x)`, one block a row of the batch (or one for all)."""
    return torch.nn.functional.silu(x @ gate.transpose(-1, -2)) * (x @ up.transpose(-1, -2))


def write_units(
    activations: Float[Tensor, "batch pos unit"], down: Float[Tensor, "_ unit d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """What the block adds to the residual stream; `down` holds one output vector a unit, zero at initialisation."""
    return activations @ down
