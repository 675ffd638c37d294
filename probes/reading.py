"""The lean reader: a pass with memories attached that computes logits, and hears nothing that this does not need.

Explicit memory: at a layer that has some, the scores of its slots are put before the context's (`hook_attn_scores`),
the model's softmax runs over both, their weights are taken off again (`hook_pattern`), and what they read is added to
z. Blocks of a bank are read by `probes/block_reading.py`. It is the same arithmetic as `probes/forward.py`, which
records everything for attribution and is slower. Source: Yang et al. 2024, equation 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.attachments import NOTHING, Attachment, ExplicitBlocks
from probes.block_reading import BlockPass
from probes.models import Hook, Model, name_hook
from probes.slots import rotate


@dataclass(slots=True)
class Slots:
    """What one layer reads: scaled keys, values, and what is added to the scores (None: no slot is absent)."""

    keys: Float[Tensor, "rows kv_head d_head slot"]
    values: Float[Tensor, "rows kv_head slot d_head"]
    bias: Float[Tensor, "rows kv_head 1 slot"] | None
    query: Float[Tensor, "rows pos head d_head"] | None = None
    turned: Float[Tensor, "rows head pos d_head"] | None = None
    cos: Tensor | None = None
    sin: Tensor | None = None
    weights: Float[Tensor, "rows head pos slot"] | None = None


class Reader:
    """Hooks under which every token of a pass reads `attachment`; nothing to read is the model itself, without a hook.

    It may run again and again. With `ends` [row, step] logits are computed at these positions of each row alone.
    """

    def __init__(
        self, model: Model, attachment: Attachment = NOTHING, ends: Int[Tensor, "row step"] | None = None
    ) -> None:
        self.model = model
        self.layers: dict[int, Slots] = {}
        explicit = attachment.explicit
        for index, layer in enumerate(explicit.layers if explicit is not None else ()):
            assert explicit is not None
            if (slots := flatten_slots(model, explicit, index)) is not None:
                self.layers[layer] = slots
        self.blocks = BlockPass(model, Attachment(bank=attachment.bank), ends=ends)

    def run(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos_or_step d_vocab"]:
        """Logits, at every position or at `ends`, without a gradient."""
        with torch.no_grad():
            return self.model.run(tokens, self.list_hooks())

    def list_hooks(self) -> list[Hook]:
        """The hooks, at the layers alone that have something to read.

        Those of one point run in this order. Blocks change queries before slots hear them, and change projections of
        what all heads read, slots included.
        """
        form = self.model.attention
        points: dict[str, Callable[..., Tensor | None]] = {
            "attn.hook_attn_scores": self._scores,
            "attn.hook_pattern": self._pattern,
            "attn.hook_z": self._z,
        }
        queries: dict[str, Callable[..., Tensor | None]] = {}
        if form is not None and form.shows_turned:
            queries["attn.hook_rot_q"] = self._turned
        else:
            queries["attn.hook_q"] = self._query
            if form is not None and form.rotary:
                queries |= {"attn.hook_cos": self._cos, "attn.hook_sin": self._sin}
        return [*self._place(points), *self.blocks.list_hooks(), *self._place(queries)]

    def _place(self, points: dict[str, Callable[..., Tensor | None]]) -> list[Hook]:
        return [
            (name_hook(layer, point), partial(function, slots=slots, layer=layer))
            for layer, slots in self.layers.items()
            for point, function in points.items()
        ]

    def _query(self, query: Tensor, hook: object, slots: Slots, layer: int) -> None:
        slots.query = query

    def _turned(self, query: Float[Tensor, "rows pos head d_head"], hook: object, slots: Slots, layer: int) -> None:
        slots.turned = query.transpose(1, 2)

    def _cos(self, angles: Tensor, hook: object, slots: Slots, layer: int) -> None:
        slots.cos = angles

    def _sin(self, angles: Tensor, hook: object, slots: Slots, layer: int) -> None:
        slots.sin = angles

    def _scores(self, scores: Float[Tensor, "rows head pos key"], hook: object, slots: Slots, layer: int) -> Tensor:
        return torch.cat([self._score_slots(slots, layer).to(scores.dtype), scores], dim=-1)

    def _score_slots(self, slots: Slots, layer: int) -> Float[Tensor, "rows head pos slot"]:
        query, form = self._turn(slots, layer), self.model.attention
        assert form is not None
        rows, heads, pos, width = query.shape
        # A key-value head's query heads, and their positions, are rows of one product.
        scores = query.reshape(rows, slots.keys.shape[1], -1, width) @ slots.keys
        if form.soft_cap is not None:
            scores = form.soft_cap * torch.tanh(scores / form.soft_cap)
        if slots.bias is not None:
            scores = scores + slots.bias
        return scores.reshape(rows, heads, pos, -1)

    def _turn(self, slots: Slots, layer: int) -> Float[Tensor, "rows head pos d_head"]:
        """Queries as they meet the keys: the model's own where it shows them, else after norm and rotary."""
        if slots.turned is not None:
            return slots.turned
        assert slots.query is not None
        norm = self.model.weights[layer].query_norm
        query = slots.query if norm is None else norm.apply(slots.query)
        if slots.cos is not None and slots.sin is not None:
            query = rotate(query, slots.cos, slots.sin)
        return query.transpose(1, 2)

    def _pattern(self, pattern: Float[Tensor, "rows head pos key"], hook: object, slots: Slots, layer: int) -> Tensor:
        count = slots.keys.shape[-1]
        slots.weights = pattern[..., :count]
        return pattern[..., count:]

    def _z(self, z: Float[Tensor, "rows pos head d_head"], hook: object, slots: Slots, layer: int) -> Tensor:
        assert slots.weights is not None
        rows, heads, pos, count = slots.weights.shape
        grouped = slots.weights.reshape(rows, slots.values.shape[1], -1, count)
        read = (grouped @ slots.values).view(rows, heads, pos, -1).transpose(1, 2)
        slots.query = slots.turned = slots.cos = slots.sin = slots.weights = None
        return z + read.to(z.dtype)


def join_slots(
    explicit: ExplicitBlocks, index: int
) -> (
    tuple[
        Float[Tensor, "rows kv_head slot d_head"],
        Float[Tensor, "rows kv_head slot d_head"],
        Bool[Tensor, "rows kv_head slot"] | None,
    ]
    | None
):
    """Keys, values and absence of all blocks of a memory layer side by side, slots absent everywhere left out.

    None when no slot is left; absence is None where every slot is there.
    """
    keys, values = (part[:, index].transpose(1, 2).flatten(2, 3) for part in (explicit.keys, explicit.values))
    absent = explicit.absent[:, index].transpose(1, 2).flatten(2, 3)
    there = ~absent.all(dim=0).all(dim=0)
    if not bool(there.any()):
        return None
    absent = absent[:, :, there]
    return keys[:, :, there], values[:, :, there], absent if bool(absent.any()) else None


def flatten_slots(model: Model, explicit: ExplicitBlocks, index: int) -> Slots | None:
    """What a memory layer reads (`join_slots`), ready for its hooks; None when there is nothing."""
    assert model.attention is not None
    if (joined := join_slots(explicit, index)) is None:
        return None
    keys, values, absent = joined
    dtype = model.final_norm.weight.dtype
    bias = None
    if absent is not None:
        bias = torch.zeros(absent.shape, dtype=dtype, device=keys.device)
        bias = bias.masked_fill(absent, torch.finfo(dtype).min)[:, :, None]
    return Slots(
        (keys * model.attention.scale).to(dtype).transpose(2, 3).contiguous(), values.to(dtype).contiguous(), bias
    )
