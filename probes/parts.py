"""A forward pass that also records how FFN and bank units fire."""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from probes.forward import Pass
from probes.models import Hook, name_hook


class PartsPass(Pass):
    """A pass whose record also holds activations of units."""

    def list_hooks(self) -> list[Hook]:
        """Hooks of the plain pass and those that record units."""
        hooks = super().list_hooks()
        for layer, weights in enumerate(self.model.weights):
            if weights.down is not None:
                hooks.append((name_hook(layer, "mlp.out.hook_in"), partial(self._units, layer=layer)))
        return hooks

    def fire_bank(self, layer: int, level: int, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos _"]:
        """Activations of a bank block's units, noted in the record."""
        fired = super().fire_bank(layer, level, x)
        self.record.bank_units.setdefault(layer, []).append(fired)
        return fired

    def _units(self, units: Tensor, hook: Any, layer: int) -> None:
        self.record.units[layer] = units
