"""A forward pass that reads attached memories and computes logits, and hears nothing that this does not need.

For asking and measuring; attribution starts from a pass that records (`probes/forward.py`). Both give the same logits.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from probes.forward import Pass
from probes.models import Hook, name_hook


class ReadingPass(Pass):
    """A pass with hooks in layers with memories alone; its record is not filled."""

    def list_hooks(self) -> list[Hook]:
        """Hooks where explicit memories or blocks are read, and where logits are kept."""
        hooks: list[Hook] = []
        for layer in range(self.model.layers):
            if self._memory_layer(layer) is not None or self._count_learned(layer) or self.adapts(layer):
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
        for level in range(self._count_levels(layer)):
            own = own + self._read_bank(layer, level, self._units_now)
        return own
