"""A model as attribution sees it with LoRA blocks attached: the weights that they change, merged.

LoRA blocks are counted inside the heads and MLPs whose projections they change (`probes/forward.py`). A pass runs them
through hooks; whatever else reads weights (streams mixed edge by edge, gradients pulled back through a projection,
what a head or unit writes) needs `W + factor * sum over levels of (in^T out)`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from probes.attachments import Attachment, BankBlocks
from probes.errors import UserError
from probes.models import LayerWeights, Model


def adapt_model(model: Model, attachment: Attachment) -> Model:
    """The model with the weights that attached LoRA blocks give it; the model as loaded where there are none.

    Raises UserError when rows of one batch have LoRA blocks of different paths: they would need different weights.
    """
    base, bank = model.base or model, attachment.bank
    if bank is None or bank.kind != "lora":
        return base
    for levels in bank.weights.values():
        if any(bool((tensor != tensor[:1]).any()) for tensor in levels):
            raise UserError(
                "LoRA blocks are counted inside heads and MLPs, so prompts with blocks of different clusters cannot be "
                "traced in one batch: trace them one by one, or with one path for all"
            )
    weights = [
        merge_layer(layer, bank, index) if index in bank.layers else layer for index, layer in enumerate(base.weights)
    ]
    return replace(base, weights=tuple(weights), base=base)


def merge_layer(weights: LayerWeights, bank: BankBlocks, layer: int) -> LayerWeights:
    """Weights of one layer with the changes of all levels added."""

    def change(target: str, weight: Tensor | None) -> Float[Tensor, "width_in width_out"] | float:
        if weight is None or f"{target}.in" not in bank.weights:
            return 0.0
        total = torch.zeros((), device=weight.device)
        for level in range(len(bank)):
            into, out = (bank.pick(f"{target}.{end}", level, layer)[0] for end in ("in", "out"))
            total = total + bank.factor * (into.transpose(0, 1) @ out)
        return total.to(weight.dtype)

    def change_heads(target: str, weight: Float[Tensor, "head d_model d_head"]) -> Tensor:
        added = change(target, weight)
        if isinstance(added, float):
            return weight
        return weight + added.view(weight.shape[1], weight.shape[0], weight.shape[2]).transpose(0, 1)

    output = change("output", weights.output)
    down = weights.down
    if down is not None:
        down = down + change("down", down)
    return replace(
        weights,
        query=change_heads("query", weights.query),
        key=change_heads("key", weights.key),
        value=change_heads("value", weights.value),
        output=weights.output if isinstance(output, float) else weights.output + output.view_as(weights.output),
        down=down,
    )
