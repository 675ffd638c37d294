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
from probes.forward import Pass, project
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
        self._differences: list[Tensor] = []
        self._stacked: Tensor | None = None
        self._base = torch.zeros((), device=ablated.device)
        self._normed: Tensor | None = None
        self._normed_learned: Tensor | None = None

    def add_writes(self, current: Float[Tensor, "writer batch pos d_model"]) -> None:
        """Take note of what the next writers in order wrote in this run, less what they count as when ablated."""
        start, stop = self._written, self._written + current.shape[0]
        ablated = self.ablated[start:stop].float()
        self._base = self._base + ablated.sum(dim=0)
        self._written = stop
        if self.differentiable:
            self._differences.append(current.float() - ablated)
            return
        if self._stacked is None:
            self._stacked = torch.empty(self.ablated.shape[0], *current.shape[1:], device=current.device)
        torch.sub(current.float(), ablated, out=self._stacked[start:stop])

    def mix_streams(self, readers: int, layer: int) -> Float[Tensor, "reader batch pos d_model"]:
        """Streams of the next `readers` readers in order, at layer `layer` (biases counted up to there), in float32.

        One matrix product: of all rows and positions where the mask has one entry for all, else a batched one.
        """
        difference = torch.cat(self._differences) if self._stacked is None else self._stacked[: self._written]
        _, batch, pos, width = difference.shape
        mask = self.mask[:, :, self._next_reader : self._next_reader + readers, : self._written].float()
        fixed = (self._base + self.constants[layer]).expand(batch, pos, width)
        if mask.shape[:2] == (1, 1):
            mixed = torch.addmm(fixed.reshape(1, -1), mask[0, 0], difference.flatten(1))
            return mixed.view(readers, batch, pos, width)
        if mask.shape[1] == 1:
            rows = difference.flatten(2).transpose(0, 1)
            mixed = torch.baddbmm(fixed.reshape(batch, 1, -1), mask[:, 0].expand(batch, -1, -1), rows)
            return mixed.view(batch, readers, pos, width).transpose(0, 1)
        places = mask.expand(batch, pos, -1, -1).flatten(0, 1)
        mixed = torch.baddbmm(fixed.reshape(batch * pos, 1, width), places, difference.flatten(1, 2).transpose(0, 1))
        return mixed.view(batch, pos, readers, width).permute(2, 0, 1, 3)

    def read_queries(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Queries computed from each head's own stream, and from each memory read's own.

        The streams of the layer's learned key-values, keys and values are mixed along with them.
        """
        weights, heads, blocks = self.model.weights[layer], self.plan.heads, self._count_blocks(layer)
        queries, learned = heads * (1 + blocks), self._count_learned(layer)
        normed = weights.attention_norm.apply(self.mix_streams(queries + learned + 2 * self.plan.kv_heads, layer))
        self._next_reader += normed.shape[0]
        self._normed_learned, self._normed = normed[queries : queries + learned], normed[queries + learned :]
        memory = None
        if blocks:
            own = normed[heads:queries].reshape(heads, blocks, *normed.shape[1:])
            memory = torch.stack(
                [self._project_own(own[:, block], weights.query, weights.query_bias) for block in range(blocks)], dim=3
            )
        return self._project_own(normed[:heads], weights.query, weights.query_bias), memory

    def read_learned_queries(self, layer: int, query: Tensor) -> Tensor:
        """Queries of each block of learned key-values, from its own stream."""
        assert self._normed_learned is not None
        weights = self.model.weights[layer]
        queries = [
            project(own.to(weights.query.dtype), weights.query, weights.query_bias) for own in self._normed_learned
        ]
        return torch.stack(queries, dim=3)

    def read_keys(self, layer: int, key: Tensor) -> Tensor:
        """Keys computed from each key-value head's own stream."""
        assert self._normed is not None
        weights = self.model.weights[layer]
        return self._project_own(self._normed[: self.plan.kv_heads], weights.key, weights.key_bias)

    def read_values(self, layer: int, value: Tensor) -> Tensor:
        """Values computed from each key-value head's own stream."""
        assert self._normed is not None
        weights, normed = self.model.weights[layer], self._normed[self.plan.kv_heads :]
        self._normed = None
        return self._project_own(normed, weights.value, weights.value_bias)

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
