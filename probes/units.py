"""Arithmetic of parametric memory blocks: extra gated units, low-rank changes of a projection, learned key-values.

Pure tensor functions, differentiable, shared by tracing (hooks on a model) and by training. Source: Pouransari et al.
2025, appendix I. Units: `y = W3(silu(W1 x) * W2 x) + M3(silu(M1 x) * M2 x)`; widening the FFN by concatenation and
adding the block's output are the same function. LoRA: `W x + factor * B A x`. Learned key-values: every head's query
reads them in a softmax of its own, and what it reads is added to what it reads of the context.
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
    return torch.nn.functional.silu(multiply(x, gate)) * multiply(x, up)


def multiply(x: Float[Tensor, "batch pos width"], rows: Float[Tensor, "_ row width"]) -> Float[Tensor, "batch pos row"]:
    """Products of every position with each row, one matrix a row of the batch; one for all as one plain product."""
    if rows.shape[0] == 1:
        return torch.nn.functional.linear(x, rows[0])
    return x @ rows.transpose(-1, -2)


def write_units(
    activations: Float[Tensor, "batch pos unit"], down: Float[Tensor, "_ unit d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """What the block adds to the residual stream; `down` holds one output vector a unit, zero at initialisation."""
    return multiply(activations, down.transpose(-1, -2))


def change_projection(
    x: Float[Tensor, "batch pos width_in"],
    into: Float[Tensor, "_ rank width_in"],
    out: Float[Tensor, "_ rank width_out"],
    factor: float,
) -> Float[Tensor, "batch pos width_out"]:
    """What LoRA adds to a projection's output, one block a row of the batch (or one for all); 0 while `out` is."""
    return factor * ((x @ into.transpose(-1, -2)) @ out)


def read_learned(
    query: Float[Tensor, "batch pos head d_head"],
    key: Float[Tensor, "_ head rank d_head"],
    value: Float[Tensor, "_ head rank d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """What every head reads of learned key-values: a softmax over them alone, no mask, no positions.

    `query` is before rotary, behind a norm on queries where the model has one. That scores are divided by the square
    root of `d_head` is inferred; 0 while `value` is.
    """
    scores = query.transpose(1, 2) @ key.transpose(-1, -2) * key.shape[-1] ** -0.5
    read: Tensor = scores.softmax(dim=-1) @ value
    return read.transpose(1, 2)
