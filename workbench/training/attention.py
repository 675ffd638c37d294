"""The attention function that every trained model runs: context, explicit memory and document borders in one softmax.

`transformers.AttentionInterface` knows it by name, so that nothing forks a model's code. What a forward pass brings
beside tokens travels as keyword arguments of that pass: `memory`, `segments`, `writing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from workbench.training.live import LiveWriting

ATTENTION = "memory_circuits_training"


@dataclass(frozen=True, slots=True)
class ReadSlots:
    """Explicit memory that one layer reads: keys after rotary, and which slots each position of a row sees."""

    keys: Float[Tensor, "row kv_head slot d_head"]
    values: Float[Tensor, "row kv_head slot d_head"]
    seen: Bool[Tensor, "row kv_head pos slot"]


def mask_context(
    positions: int, window: int | None, segments: Int[Tensor, "row pos"] | None, device: torch.device
) -> Bool[Tensor, "rows 1 pos pos"] | None:
    """Which positions each position sees: those before it, inside the window, of its own document.

    None where that is everything before it, which attention knows how to do without a mask.
    """
    if segments is None and (window is None or window >= positions):
        return None
    place = torch.arange(positions, device=device)
    distance = place[:, None] - place[None, :]
    seen = (distance >= 0)[None, None]
    if window is not None:
        seen = seen & (distance < window)
    if segments is not None:
        seen = seen & (segments[:, None, :, None] == segments[:, None, None, :])
    return seen


def attend(
    module: nn.Module,
    query: Float[Tensor, "row head pos d_head"],
    key: Float[Tensor, "row kv_head pos d_head"],
    value: Float[Tensor, "row kv_head pos d_head"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    memory: dict[int, ReadSlots] | None = None,
    segments: Int[Tensor, "row pos"] | None = None,
    writing: LiveWriting | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "row pos head d_head"], None]:
    """Causal attention over the context, at memory layers in one softmax with the slots (Yang et al. 2024, eq. 4).

    `segments` numbers the document of each position: positions see their own document only. Memory slots lie before
    every sliding window and are seen from everywhere. Rows are padded on the right, which causality keeps out.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if writing is not None:
        writing.take(layer, query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling)
    slots = None if memory is None else memory.get(layer)
    positions = query.shape[2]
    mask = mask_context(positions, sliding_window, segments, query.device)
    if slots is not None:
        whole = mask if mask is not None else mask_context(positions, 1 + positions, segments, query.device)
        if whole is None:
            whole = torch.ones(positions, positions, dtype=torch.bool, device=query.device).tril()[None, None]
        seen = slots.seen.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        mask = torch.cat([seen, whole.expand(*seen.shape[:3], positions)], dim=-1)
        key, value = torch.cat([slots.keys.to(key), key], dim=2), torch.cat([slots.values.to(value), value], dim=2)
    query, key = query.to(value.dtype), key.to(value.dtype)
    if softcap is not None:
        return attend_capped(query, key, value, mask, scaling, dropout, softcap), None
    out = nn.functional.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous(), None


def attend_capped(
    query: Float[Tensor, "row head pos d_head"],
    key: Float[Tensor, "row kv_head place d_head"],
    value: Float[Tensor, "row kv_head place d_head"],
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float,
) -> Float[Tensor, "row pos head d_head"]:
    """The same with Gemma 2's scores, `softcap * tanh(score / softcap)`, which no fused attention computes."""
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * scale / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    weights = scores.float().masked_fill(~mask, float("-inf")).softmax(dim=-1).to(value.dtype)
    return (nn.functional.dropout(weights, dropout) @ value).transpose(1, 2).contiguous()
