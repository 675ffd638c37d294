"""Exact removal of single parts: take one unit's or slot's write away, run again, read how far the metric drops.

Up to the part nothing differs from the clean run, so what it would lose is known: `(clean - ablated factor) x
direction`. It is subtracted from the stream after the part's half layer (all readers), or from what one reader takes
in, and the model is taken up there (`circuits/restarts.py`). Behind a norm after attention or MLP the norm keeps its
clean scale, as in every score of this project.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.activity import measure_attention_scale, sum_reads
from circuits.graph import Component, Kind, Reader
from circuits.parts import Removal
from circuits.patching import count_patches
from circuits.problem import Problem
from circuits.restarts import find_reading, find_writing, measure_losses
from probes.attachments import Attachment
from probes.errors import UserError
from probes.norms import Norm
from probes.progress import Tick
from probes.restarts import Start


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


def run_removals(
    problem: Problem, losses: Sequence[tuple[Component, Tensor]], reader: Reader | None, tick: Tick, label: str
) -> Float[Tensor, " loss"]:
    """Drop of the metric, clean minus without, for each loss alone; with each the writer from which it is taken.

    The model is taken up behind the writer, or at the one `reader` that loses it.
    """
    parallel, groups = problem.model.parallel, dict[Start, list[int]]()
    for index, (writer, _) in enumerate(losses):
        start = find_writing(writer, parallel) if reader is None else find_reading(reader.component, parallel)
        groups.setdefault(start, []).append(index)
    drops, rows, done = torch.zeros(len(losses), device=problem.model.device), count_patches(problem), 0
    for start, indices in sorted(groups.items()):
        for first in range(0, len(indices), rows):
            tick(label, done, len(losses))
            chosen = indices[first : first + rows]
            lost = torch.stack([losses[index][1] for index in chosen])
            with torch.no_grad():
                drops[chosen] = measure_losses(problem, start, lost, [] if reader is None else [reader] * len(chosen))
            done += len(chosen)
    return drops


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
        losses.append((part.whole, loss))
    return run_removals(problem, losses, reads, tick, "parts removed")
