"""How strongly each part of a writer fires: the factor in front of the direction that the part writes.

An MLP's write is a sum over its units, `activation x row of the down projection`; a bank block's likewise; a head's
read of a memory block is a sum over slots, `attention weight x value` through the head's output projection. Behind a
norm after attention or MLP (Gemma 2 and 3) the factor is divided by the norm's scale, at which the norm is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from probes.forward import Record, list_mlp_outputs
from probes.models import Model
from probes.norms import Norm


@dataclass(frozen=True, slots=True)
class Activity:
    """Factors of all parts, by layer: `units` [batch pos unit], `bank` (one a level) [batch pos unit], `slots`
    [batch pos head block slot]; batch and pos are 1 for a mean.
    """

    units: dict[int, Tensor] = field(default_factory=dict)
    bank: dict[int, list[Tensor]] = field(default_factory=dict)
    slots: dict[int, Tensor] = field(default_factory=dict)


def measure_scale(norm: Norm | None, total: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos 1"] | None:
    """Scale of a norm after attention or MLP, None where there is no norm."""
    return None if norm is None else norm.measure(total)[1]


def measure_mlp_scale(model: Model, record: Record, layer: int) -> Float[Tensor, "batch pos 1"] | None:
    """Scale of the norm after a layer's MLP."""
    if model.weights[layer].post_mlp_norm is None:
        return None
    return measure_scale(model.weights[layer].post_mlp_norm, torch.stack(list_mlp_outputs(record, layer)).sum(dim=0))


def measure_attention_scale(model: Model, record: Record, layer: int) -> Float[Tensor, "batch pos 1"] | None:
    """Scale of the norm after a layer's attention."""
    weights = model.weights[layer]
    if weights.post_attention_norm is None:
        return None
    read = sum_reads(record, layer)
    if layer in record.learned_read:
        read = read + record.learned_read[layer].sum(dim=3)
    total = torch.einsum("bphd,hdm->bpm", read, weights.output)
    return measure_scale(weights.post_attention_norm, total)


def sum_reads(record: Record, layer: int) -> Float[Tensor, "batch pos head d_head"]:
    """All that a layer's heads read in one softmax, from the context and from explicit memories."""
    read = record.context_read[layer]
    return read + record.memory_read[layer].sum(dim=3) if layer in record.memory_read else read


def divide(factor: Tensor, scale: Tensor | None) -> Tensor:
    """Factor [batch pos ...] over a scale [batch pos 1]."""
    factor = factor.detach()
    return factor if scale is None else factor / scale.reshape(*scale.shape[:2], *[1] * (factor.dim() - 2))


def measure_activity(model: Model, record: Record) -> Activity:
    """Factors of one recorded run (of a pass that records parts)."""
    activity = Activity()
    with torch.no_grad():
        for layer in range(model.layers):
            scale = measure_mlp_scale(model, record, layer)
            if layer in record.units:
                activity.units[layer] = divide(record.units[layer], scale)
            if layer in record.bank_units:
                activity.bank[layer] = [divide(fired, scale) for fired in record.bank_units[layer]]
            if layer in record.slot_weights:
                scale = measure_attention_scale(model, record, layer)
                activity.slots[layer] = divide(record.slot_weights[layer], scale)
    return activity


def combine(function: Callable[..., Tensor], *runs: Activity) -> Activity:
    """Activity of `function` of the factors of each part in all runs."""
    first = runs[0]
    return Activity(
        units={layer: function(*(run.units[layer] for run in runs)) for layer in first.units},
        bank={
            layer: [function(*(run.bank[layer][level] for run in runs)) for level in range(len(levels))]
            for layer, levels in first.bank.items()
        },
        slots={layer: function(*(run.slots[layer] for run in runs)) for layer in first.slots},
    )


def average_activity(runs: Iterable[tuple[Activity, int]]) -> Activity:
    """Mean factors over runs, each with its number of positions, the first position of each row left out.

    The same positions as in the mean writes of mean ablation. At least one run must have two positions.
    """
    total: Activity | None = None
    count = 0
    for run, positions in runs:
        summed = combine(lambda tensor: tensor[:, 1:].sum(dim=(0, 1), keepdim=True), run)
        total = summed if total is None else combine(torch.add, total, summed)
        count += positions
    assert total is not None and count
    return combine(lambda tensor: tensor / count, total)
