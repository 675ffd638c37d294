"""Exact removal of single parts: take one unit's or slot's write away, run again, read how far the metric drops.

Up to the part nothing differs from the clean run, so what it would lose is known: `(clean - ablated factor) x
direction`. It is subtracted from the stream after the part's half layer (all readers), or from what one reader takes
in. Behind a norm after attention or MLP the norm keeps its clean scale, as in every score of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.activity import measure_attention_scale, sum_reads
from circuits.graph import Component, Kind, Reader
from circuits.parts import Removal
from circuits.problem import Problem
from probes.attachments import Attachment
from probes.errors import UserError
from probes.forward import Pass, project
from probes.models import Hook
from probes.norms import Norm
from probes.parts import name_attention_write, name_mlp_write
from probes.progress import Tick

# Removals of one pair that run together, and tokens of all of them.
ROWS, LARGEST_BATCH = 64, 1 << 11

# A layer and whether the write is the MLP's side of it.
Place = tuple[int, bool]


class RemovingPass(Pass):
    """A pass from whose stream `losses` are subtracted, for all readers or for `reader` alone.

    `losses[layer, is_mlp]` [batch pos d_model] is what attention (or MLP and bank) of that layer no longer adds.
    """

    def __init__(self, problem: Problem, losses: dict[Place, Tensor], reader: Reader | None) -> None:
        super().__init__(problem.model, problem.inputs.attachment, ends=problem.inputs.readout.positions)
        self.losses = {place: loss.to(self.model.final_norm.weight.dtype) for place, loss in losses.items()}
        self.reader = reader

    def list_hooks(self) -> list[Hook]:
        """Hooks of the plain pass; where all readers lose the write, it is taken from the stream itself."""
        hooks = super().list_hooks()
        if self.reader is None:
            for (layer, mlp), loss in self.losses.items():
                name = (name_mlp_write if mlp else name_attention_write)(self.model, layer)
                hooks.append((name, partial(self._subtract, loss=loss)))
        return hooks

    def read_queries(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Queries; the reader's own from the stream that lacks the write."""
        query, memory = super().read_queries(layer, query)
        weights = self.model.weights[layer]
        if (c := self._read_here(layer, Kind.HEAD, "q")) is not None:
            query = self._replace(query, c.head, self._project(layer, weights.query, weights.query_bias, c.head))
        if (c := self._read_here(layer, Kind.EXPLICIT, "q")) is not None and memory is not None:
            memory = memory.clone()
            memory[:, :, c.head, c.block] = self._project(layer, weights.query, weights.query_bias, c.head)
        return query, memory

    def read_learned_queries(self, layer: int, query: Tensor) -> Tensor:
        """Queries of learned key-values; the reader's own from the stream that lacks the write."""
        queries, weights = super().read_learned_queries(layer, query), self.model.weights[layer]
        if (c := self._read_here(layer, Kind.LEARNED, "in")) is not None:
            queries = queries.clone()
            normed = weights.attention_norm.apply(self.record.attention_stream[layer] - self._lose())
            queries[:, :, :, c.block] = project(normed.to(weights.query.dtype), weights.query, weights.query_bias)
        return queries

    def read_keys(self, layer: int, key: Tensor) -> Tensor:
        """Keys; the reader's own from the stream that lacks the write."""
        weights = self.model.weights[layer]
        if (c := self._read_here(layer, Kind.KEY_VALUE, "k")) is None:
            return key
        return self._replace(key, c.head, self._project(layer, weights.key, weights.key_bias, c.head))

    def read_values(self, layer: int, value: Tensor) -> Tensor:
        """Values; the reader's own from the stream that lacks the write."""
        weights = self.model.weights[layer]
        if (c := self._read_here(layer, Kind.KEY_VALUE, "v")) is None:
            return value
        return self._replace(value, c.head, self._project(layer, weights.value, weights.value_bias, c.head))

    def read_mlp(self, layer: int, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Inputs of MLP and bank; the reader's own from the stream that lacks the write."""
        own, bank = super().read_mlp(layer, x)
        norm, stream = self.model.weights[layer].mlp_norm, self.record.mlp_stream[layer]
        if self._read_here(layer, Kind.MLP, "in") is not None:
            own = norm.apply(stream - self._lose()).to(x.dtype)
        if (c := self._read_here(layer, Kind.BANK, "in")) is not None:
            bank[c.block] = norm.apply(stream - self._lose()).to(x.dtype)
        return own, bank

    def read_final(self, stream: Tensor) -> Tensor:
        """Stream of the logits, without the write where they are the reader."""
        return stream if self._read_here(self.model.layers, Kind.LOGITS, "in") is None else stream - self._lose()

    def _read_here(self, layer: int, kind: Kind, role: str) -> Component | None:
        reader = self.reader
        if reader is None or (reader.component.layer, reader.component.kind, reader.role) != (layer, kind, role):
            return None
        return reader.component

    def _lose(self) -> Tensor:
        return torch.stack(list(self.losses.values())).sum(dim=0)

    def _project(self, layer: int, weight: Tensor, bias: Tensor | None, head: int) -> Float[Tensor, "batch pos d_head"]:
        normed = self.model.weights[layer].attention_norm.apply(self.record.attention_stream[layer] - self._lose())
        own = None if bias is None else bias[head : head + 1]
        return project(normed.to(weight.dtype), weight[head : head + 1], own)[:, :, 0]

    @staticmethod
    def _replace(heads: Tensor, head: int, own: Tensor) -> Tensor:
        heads = heads.clone()
        heads[:, :, head] = own
        return heads

    @staticmethod
    def _subtract(write: Tensor, hook: Any, loss: Tensor) -> Tensor:
        return write - loss


def direct(norm: Norm | None, vector: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
    """A direction as it reaches the stream through a norm of scale 1."""
    return vector if norm is None else norm.apply_frozen(vector, torch.ones_like(vector[..., :1]))


def weigh(factor: Float[Tensor, "batch pos"], direction: Tensor) -> Float[Tensor, "batch pos d_model"]:
    """Factor times direction ([d_model], or one a row [batch, d_model])."""
    return factor.unsqueeze(-1) * (direction if direction.dim() == 1 else direction.unsqueeze(1))


def lose_unit(problem: Problem, part: Component) -> Float[Tensor, "batch pos d_model"]:
    """What the stream loses with one unit of an MLP."""
    weights, ablated = problem.model.weights[part.layer], problem.ablated_activity
    assert weights.down is not None
    factor = problem.clean_activity.units[part.layer][..., part.part]
    if ablated is not None:
        factor = factor - ablated.units[part.layer][..., part.part]
    return weigh(factor, direct(weights.post_mlp_norm, weights.down[part.part]))


def lose_bank_unit(problem: Problem, part: Component) -> Float[Tensor, "batch pos d_model"]:
    """What the stream loses with one unit of a bank block."""
    clean, ablated = problem.inputs.attachment.bank, problem.inputs.counterfactual_attachment.bank
    assert clean is not None and ablated is not None
    norm = problem.model.weights[part.layer].post_mlp_norm
    factor = problem.clean_activity.bank[part.layer][part.block][..., part.part]
    loss = weigh(factor, direct(norm, clean.pick("down", part.block, part.layer)[:, part.part]))
    if problem.ablated_activity is None:
        return loss
    factor = problem.ablated_activity.bank[part.layer][part.block][..., part.part]
    return loss - weigh(factor, direct(norm, ablated.pick("down", part.block, part.layer)[:, part.part]))


def write_slot(problem: Problem, part: Component, attachment: Attachment) -> Float[Tensor, "rows d_model"]:
    """What one slot writes through one head at attention weight 1 (behind a norm, at scale 1)."""
    explicit, weights = attachment.explicit, problem.model.weights[part.layer]
    assert explicit is not None
    kv_head = part.head // (problem.model.heads // problem.model.kv_heads)
    value = explicit.values[:, explicit.layers.index(part.layer), part.block, kv_head, part.part]
    return direct(weights.post_attention_norm, value.to(weights.output.dtype) @ weights.output[part.head])


def lose_slot(problem: Problem, part: Component, removal: Removal) -> Float[Tensor, "batch pos d_model"]:
    """What the stream loses with one slot as one head reads it, under one way of removal."""
    model, record, inputs = problem.model, problem.clean_record, problem.inputs
    place = (..., part.head, part.block, part.part)
    factor = problem.clean_activity.slots[part.layer][place]
    loss = weigh(factor, write_slot(problem, part, inputs.attachment))
    if removal == "renormalised":
        weights = model.weights[part.layer]
        read = sum_reads(record, part.layer)[:, :, part.head] @ weights.output[part.head]
        scale = measure_attention_scale(model, record, part.layer)
        whole = direct(weights.post_attention_norm, read if scale is None else read / scale)
        weight = record.slot_weights[part.layer][place].unsqueeze(-1)
        return (loss - weight * whole) / (1 - weight)
    if removal == "ablated" and problem.ablated_activity is not None:
        factor = problem.ablated_activity.slots[part.layer][place]
        return loss - weigh(factor, write_slot(problem, part, inputs.counterfactual_attachment))
    return loss


def lose_part(problem: Problem, part: Component, removal: Removal) -> Float[Tensor, "batch pos d_model"]:
    """What the stream loses with one part. Raises UserError for a name that is no part of the model's writers."""
    problem.wiring.find_writer(part.whole.name)
    activity, counts = problem.clean_activity, {}
    counts[Kind.MLP] = activity.units[part.layer].shape[-1] if part.layer in activity.units else 0
    counts[Kind.BANK] = activity.bank[part.layer][part.block].shape[-1] if part.layer in activity.bank else 0
    counts[Kind.EXPLICIT] = activity.slots[part.layer].shape[-1] if part.layer in activity.slots else 0
    if not 0 <= part.part < counts.get(part.kind, 0):
        raise UserError(f"{part.name} is no part: {part.whole.name} has {counts.get(part.kind, 0)} units or slots")
    with torch.no_grad():
        match part.kind:
            case Kind.MLP:
                return lose_unit(problem, part)
            case Kind.BANK:
                return lose_bank_unit(problem, part)
            case _:
                return lose_slot(problem, part, removal)


def keep_position(problem: Problem, loss: Float[Tensor, "batch pos d_model"], position: int) -> Tensor:
    """The loss at one position alone, 0 elsewhere; all positions where those are summed."""
    if problem.summed:
        return loss
    kept = torch.zeros_like(loss)
    kept[:, position] = loss[:, position]
    return kept


def run_removal(problem: Problem, losses: Sequence[tuple[Place, Tensor]], reader: Reader | None) -> Tensor:
    """Metric without each of the losses, one number a loss."""
    tokens = problem.inputs.clean
    if tokens.shape[0] > 1:
        return torch.stack([measure_removal(problem, {place: loss}, reader, 1).mean() for place, loss in losses])
    places = {place for place, _ in losses}
    joined = {
        here: torch.cat([loss if place == here else torch.zeros_like(loss) for place, loss in losses])
        for here in places
    }
    return measure_removal(problem, joined, reader, len(losses))


def measure_removal(problem: Problem, losses: dict[Place, Tensor], reader: Reader | None, rows: int) -> Tensor:
    """Metric of each row of one pass."""
    tokens = problem.inputs.clean.repeat(rows, 1)
    with torch.no_grad():
        return problem.metric_at_ends(RemovingPass(problem, losses, reader).run(tokens))


def run_removals(
    problem: Problem, losses: Sequence[tuple[Place, Tensor]], reader: Reader | None, tick: Tick, label: str
) -> Float[Tensor, " loss"]:
    """Drop of the metric, clean minus without, for each loss alone."""
    drops, rows = [], max(1, min(ROWS, LARGEST_BATCH // problem.inputs.clean.shape[1]))
    for start in range(0, len(losses), rows):
        tick(label, start, len(losses))
        drops.append(problem.metric_clean - run_removal(problem, losses[start : start + rows], reader))
    return torch.cat(drops) if drops else torch.zeros(0)


def remove_parts(
    problem: Problem,
    parts: Sequence[tuple[Component, int]],
    tick: Tick,
    reader: str = "",
    removal: Removal = "ablated",
    strength: float = 1.0,
) -> Float[Tensor, " part"]:
    """Exact drop of the metric, clean minus without, for each part at its position, one pass a part.

    `reader` names the one reader that loses the part, empty for all; `strength` is the share of the part that is taken
    away. Raises UserError for a part or reader that the model does not have, or a part that the reader does not see.
    """
    reads = None if not reader else problem.wiring.readers[problem.wiring.find_reader(reader)]
    losses = []
    for part, position in parts:
        if reads is not None and not problem.wiring.sees(part.whole.name, reader):
            raise UserError(f"{reader} does not read what {part.name} writes: choose a reader in a later layer")
        loss = strength * keep_position(problem, lose_part(problem, part, removal), position)
        losses.append(((part.layer, part.kind is not Kind.EXPLICIT), loss))
    return run_removals(problem, losses, reads, tick, "parts removed")
