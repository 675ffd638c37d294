"""Reading the blocks of a bank for logits alone: the part of the lean reader (`probes/reading.py`) that is theirs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from probes.attachments import NOTHING, Attachment
from probes.forward import Pass
from probes.models import Hook, Model, name_hook


class BlockPass(Pass):
    """A pass with hooks in layers with blocks alone; its record is not filled, and explicit memories are not read.

    It may run again and again: FFN blocks of all levels are put side by side once, so that a layer's blocks take two
    products, however many levels there are.
    """

    def __init__(
        self, model: Model, attachment: Attachment = NOTHING, ends: Int[Tensor, "row step"] | None = None
    ) -> None:
        super().__init__(model, attachment, ends=ends)
        self._joined: dict[int, tuple[Tensor, Tensor]] = {}

    def list_hooks(self) -> list[Hook]:
        """Hooks where blocks are read, and where logits are kept."""
        hooks: list[Hook] = []
        for layer in range(self.model.layers):
            if self._count_learned(layer) or self.adapts(layer):
                hooks += self.list_attention_hooks(layer)
            if self.adapts(layer):
                hooks += self.list_mlp_hooks(layer)
            elif self._count_levels(layer):
                points = {"mlp.hook_in": self._keep_input, "mlp.hook_out": self._add_blocks}
                hooks += [(name_hook(layer, point), partial(hear, layer=layer)) for point, hear in points.items()]
        return hooks if self.ends is None else [*hooks, ("unembed.hook_in", self._keep_ends)]

    def _keep_input(self, x: Tensor, hook: Any, layer: int) -> None:
        self._units_now = x

    def _add_blocks(self, own: Tensor, hook: Any, layer: int) -> Tensor:
        assert self._units_now is not None
        into, out = self._join_levels(layer, own.dtype)
        if into.shape[0] > 1:
            gate, up = (self._units_now @ into.transpose(-1, -2)).chunk(2, dim=-1)
            return own + (torch.nn.functional.silu(gate) * up) @ out
        gate, up = torch.nn.functional.linear(self._units_now, into[0]).chunk(2, dim=-1)
        fired = torch.nn.functional.silu(gate).mul_(up)
        return torch.addmm(own.flatten(0, 1), fired.flatten(0, 1), out[0]).view_as(own)

    def _join_levels(self, layer: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Gates and then ups of all levels [row, 2 unit, d_model], and what they write with [row, unit, d_model]."""
        if layer not in self._joined:
            bank = self.attachment.bank
            assert bank is not None
            parts = {
                name: [bank.pick(name, level, layer).to(dtype) for level in range(len(bank))]
                for name in ("gate", "up", "down")
            }
            into = torch.cat([*parts["gate"], *parts["up"]], dim=1)
            self._joined[layer] = into, torch.cat(parts["down"], dim=1)
        return self._joined[layer]
