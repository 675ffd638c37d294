"""Arithmetic of explicit memory: which tokens are kept as slots, and one softmax over memory and context.

Pure tensor functions, differentiable throughout, shared by tracing (hooks on a model) and by training. Source: Yang
et al. 2024, section 3.2 (reading), section 3.3 (token selection) and equation 4.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Scoring = Literal["softmax", "exp-sum"]
Pooling = Literal["sum", "max"]


def rotate(
    x: Float[Tensor, "batch pos head d_head"],
    cos: Float[Tensor, "_ pos d_rotary"],
    sin: Float[Tensor, "_ pos d_rotary"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Turn queries or keys by their positions' angles (rotary embedding, halves paired as in Llama and GPT-NeoX).

    Only the first `d_rotary` numbers of a head are turned (GPT-NeoX turns a quarter of them).
    """
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    first, second = turned.chunk(2, dim=-1)
    quarter = torch.cat([-second, first], dim=-1)
    turned = turned * cos.unsqueeze(2) + quarter * sin.unsqueeze(2)
    return torch.cat([turned, rest], dim=-1)


def shift_keys(
    keys: Float[Tensor, "*any d_head"], frequencies: Float[Tensor, " half"], positions: float
) -> Float[Tensor, "*any d_head"]:
    """Move keys that already carry rotary positions by `positions` (negative: towards the past).

    `frequencies` are radians a position, one for each pair of numbers that the model turns.
    """
    angle = frequencies * positions
    cos, sin = torch.cos(angle), torch.sin(angle)
    half = frequencies.shape[-1]
    first, second, rest = keys[..., :half], keys[..., half : 2 * half], keys[..., 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def measure_received_attention(
    queries: Float[Tensor, "batch pos head d_head"],
    keys: Float[Tensor, "batch pos kv_head d_head"],
    valid: Bool[Tensor, "batch pos"],
    scale: float,
    scoring: Scoring = "softmax",
    pooling: Pooling = "sum",
) -> Float[Tensor, "batch kv_head pos"]:
    """Attention that each token receives from all valid tokens, per key-value head.

    Queries and keys are those *before* rotary, there is no causal mask, and tokens that are not `valid` (beginning of
    text, prefix, padding) neither give nor receive. `softmax` is the sum over queries of the normalised attention;
    `exp-sum` the paper's cheaper sum of exponentials, on an arbitrary scale per key-value head. The paper does not
    say how the query heads that share a key-value head are pooled; `pooling` is our choice. Invalid tokens get -inf.
    """
    batch, pos, heads, width = queries.shape
    kv_heads = keys.shape[2]
    grouped = queries.reshape(batch, pos, kv_heads, heads // kv_heads, width)
    scores = torch.einsum("bikgd,bjkd->bkgij", grouped, keys) * scale
    scores = scores.masked_fill(~valid[:, None, None, None, :], float("-inf"))
    if scoring == "softmax":
        given = scores.softmax(dim=-1)
    else:
        # The shift must not come from a query that does not count: it could leave nothing of those that do.
        scores = scores.masked_fill(~valid[:, None, None, :, None], float("-inf"))
        given = (scores - scores.amax(dim=(2, 3, 4), keepdim=True)).exp()
    received = (given * valid[:, None, None, :, None]).sum(dim=3)
    pooled = received.sum(dim=2) if pooling == "sum" else received.amax(dim=2)
    return pooled.masked_fill(~valid[:, None, :], float("-inf"))


def keep_slots(received: Float[Tensor, "batch kv_head pos"], slots: int) -> Int[Tensor, "batch kv_head slot"]:
    """Positions of the `slots` tokens with most attention received, in order of position, per key-value head.

    A reference with fewer valid tokens than slots yields invalid positions too; `received` is -inf there, and the
    caller masks them.
    """
    return received.topk(min(slots, received.shape[-1]), dim=-1).indices.sort(dim=-1).values


def gather_slots(
    states: Float[Tensor, "batch pos kv_head d_head"], positions: Int[Tensor, "batch kv_head slot"]
) -> Float[Tensor, "batch kv_head slot d_head"]:
    """Keys or values of the kept tokens."""
    index = positions.unsqueeze(-1).expand(*positions.shape, states.shape[-1])
    return states.transpose(1, 2).gather(2, index)


def score_slots(
    queries: Float[Tensor, "batch pos head block d_head"],
    keys: Float[Tensor, "batch block kv_head slot d_head"],
    scale: float,
    soft_cap: float | None = None,
) -> Float[Tensor, "batch pos head block slot"]:
    """Attention scores before the softmax of every query on every memory slot.

    Queries carry a block axis so that each block's read can have a query of its own (edges into one block); expand
    one query over it where they are the same.
    """
    batch, pos, heads, blocks, width = queries.shape
    kv_heads = keys.shape[2]
    grouped = queries.reshape(batch, pos, kv_heads, heads // kv_heads, blocks, width)
    scores = torch.einsum("bpkgmd,bmksd->bpkgms", grouped, keys) * scale
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    return scores.reshape(batch, pos, heads, blocks, keys.shape[3])


def share_attention(
    slot_scores: Float[Tensor, "batch pos head block slot"],
    context_total: Float[Tensor, "batch pos head"],
) -> tuple[Float[Tensor, "batch pos head"], Float[Tensor, "batch pos head block slot"]]:
    """One softmax over memory slots and context, as (share left to the context, weight of every slot).

    `context_total` is the log-sum-exp of the context's own scores. Share and weights of a head sum to 1. A slot with
    score -inf (absent) weighs nothing; with every slot absent the context keeps everything.
    """
    memory_total = torch.logsumexp(slot_scores.flatten(-2), dim=-1)
    total = torch.logaddexp(memory_total, context_total)
    return (context_total - total).exp(), (slot_scores - total[..., None, None]).exp()


def read_slots(
    weights: Float[Tensor, "batch pos head block slot"],
    values: Float[Tensor, "batch block kv_head slot d_head"],
) -> Float[Tensor, "batch pos head block d_head"]:
    """What each head takes from each memory block: the weighted sum of the block's values."""
    batch, pos, heads, blocks, slots = weights.shape
    kv_heads = values.shape[2]
    grouped = weights.reshape(batch, pos, kv_heads, heads // kv_heads, blocks, slots)
    read = torch.einsum("bpkgms,bmksd->bpkgmd", grouped, values)
    return read.reshape(batch, pos, heads, blocks, values.shape[-1])
