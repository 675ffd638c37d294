"""Run a model with some edges ablated, exactly: every reader takes in its own mixture of writers.

A reader's stream is `constants + sum over writers of (ablated + mask * (current - ablated))`, where `current` is what
the writer writes in this very run. With every edge kept this is the model itself; with none, every reader sees the
ablated run. Patching one edge is a mask with one edge off, patching a node a mask with all its outgoing edges off.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.graph import Plan, list_writers
from circuits.tracing import list_attention_writes, list_constants, list_mlp_writes
from probes.attachments import Attachment
from probes.forward import Pass
from probes.models import Model


class MaskedPass(Pass):
    """A pass in which each edge is kept (mask 1) or ablated (mask 0).

    `mask` [batch, pos, reader, writer] in the graph's order; axes of size 1 stand for all. `ablated` [writer, batch,
    pos, d_model] is what an ablated writer counts as; batch and pos may be 1. Entries for edges that do not exist are
    not read.
    """

    def __init__(
        self,
        model: Model,
        attachment: Attachment,
        plan: Plan,
        mask: Float[Tensor, "batch pos reader writer"],
        ablated: Float[Tensor, "writer batch2 pos2 d_model"],
        differentiable: bool = False,
        ends: Int[Tensor, "row step"] | None = None,
    ) -> None:
        super().__init__(model, attachment, differentiable=differentiable, ends=ends)
        self.plan = plan
        self.mask = mask
        self.ablated = ablated
        self.constants = list_constants(model)
        self._next_reader = 0
        self._written = 0
        self._difference: list[Tensor] = []
        self._base: Tensor | float = 0.0

    def add_writes(self, current: Float[Tensor, "writer batch pos d_model"]) -> None:
        """Take note of what the next writers in order wrote in this run."""
        ablated = self.ablated[self._written : self._written + current.shape[0]].to(current.dtype)
        self._difference.append(current - ablated)
        self._base = self._base + ablated.sum(dim=0)
        self._written += current.shape[0]

    def mix_streams(self, readers: int, layer: int, ahead: int = 0) -> Float[Tensor, "reader batch pos d_model"]:
        """Streams of the next `readers` readers in order, at layer `layer` (biases counted up to there).

        `ahead` skips readers without taking them: keys and values are asked for before the order's turn.
        """
        start = self._next_reader + ahead
        mask = self.mask[:, :, start : start + readers, : self._written]
        difference = torch.cat(self._difference)
        mixed = torch.einsum("bprw,wbpm->rbpm", mask.to(difference.dtype).expand(*self._shape(mask)), difference)
        return mixed + self._base + self.constants[layer]

    def _shape(self, mask: Tensor) -> tuple[int, ...]:
        batch, pos = self._difference[0].shape[1:3]
        return (batch, pos, *mask.shape[2:])

    def read_queries(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Queries computed from each head's own stream, and from each memory read's own."""
        weights, heads, blocks = self.model.weights[layer], self.plan.heads, self._count_blocks(layer)
        streams = self.mix_streams(heads * (1 + blocks), layer)
        normed = weights.attention_norm.apply(streams)
        queries = self._project_own(normed[:heads], weights.query, weights.query_bias)
        memory = None
        if blocks:
            own = normed[heads:].reshape(heads, blocks, *normed.shape[1:])
            memory = torch.stack(
                [self._project_own(own[:, block], weights.query, weights.query_bias) for block in range(blocks)], dim=3
            )
        return queries.to(query.dtype), memory

    def read_keys(self, layer: int, key: Tensor) -> Tensor:
        """Keys computed from each key-value head's own stream."""
        weights = self.model.weights[layer]
        ahead = self.plan.heads * (1 + self._count_blocks(layer))
        normed = weights.attention_norm.apply(self.mix_streams(self.plan.kv_heads, layer, ahead))
        return self._project_own(normed, weights.key, weights.key_bias).to(key.dtype)

    def read_values(self, layer: int, value: Tensor) -> Tensor:
        """Values computed from each key-value head's own stream."""
        weights = self.model.weights[layer]
        ahead = self.plan.heads * (1 + self._count_blocks(layer)) + self.plan.kv_heads
        normed = weights.attention_norm.apply(self.mix_streams(self.plan.kv_heads, layer, ahead))
        return self._project_own(normed, weights.value, weights.value_bias).to(value.dtype)

    def read_mlp(self, layer: int, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Inputs of the MLP and of each bank block, each from its own stream."""
        weights, readers = self.model.weights[layer], 1 + self._count_levels(layer)
        bias = layer if self.plan.parallel else layer + 1
        own, *bank = weights.mlp_norm.apply(self.mix_streams(readers, bias)).to(x.dtype).unbind(0)
        self._next_reader += readers
        return own, bank

    def read_final(self, stream: Tensor) -> Tensor:
        """The logits' own stream."""
        return self.mix_streams(1, self.model.layers)[0].to(stream.dtype)

    def _embed(self, stream: Tensor, hook: object) -> Tensor:
        stream = super()._embed(stream, hook)
        self.add_writes(stream.unsqueeze(0))
        return stream

    def end_attention(self, layer: int) -> None:
        """Note what the heads wrote; in a parallel model only once the MLP has read."""
        self._next_reader += self.plan.heads * (1 + self._count_blocks(layer)) + 2 * self.plan.kv_heads
        if not self.plan.parallel:
            self.add_writes(list_attention_writes(self.model, self.record, layer))

    def end_layer(self, layer: int) -> None:
        """Note what the MLP and the bank blocks wrote."""
        if self.plan.parallel:
            self.add_writes(list_attention_writes(self.model, self.record, layer))
        self.add_writes(list_mlp_writes(self.model, self.record, layer))

    @staticmethod
    def _project_own(
        normed: Float[Tensor, "head batch pos d_model"],
        weight: Float[Tensor, "head d_model d_head"],
        bias: Tensor | None,
    ) -> Float[Tensor, "batch pos head d_head"]:
        projected = torch.einsum("hbpm,hmd->bphd", normed.to(weight.dtype), weight)
        return projected if bias is None else projected + bias


def run_masked(
    model: Model,
    attachment: Attachment,
    tokens: Int[Tensor, "batch pos"],
    plan: Plan,
    mask: Float[Tensor, "mask_batch mask_pos reader writer"],
    ablated: Float[Tensor, "writer batch2 pos3 d_model"],
    ends: Int[Tensor, "row step"] | None = None,
) -> Float[Tensor, "batch pos_or_step d_vocab"]:
    """Logits (at `ends` alone where given) with the edges of `mask` kept and all others ablated.

    The mask has a row a prompt, or one for all.
    """
    assert mask.shape[3] == len(list_writers(plan))
    masked = MaskedPass(model, attachment, plan, mask, ablated, differentiable=mask.requires_grad, ends=ends)
    return masked.run(tokens)
