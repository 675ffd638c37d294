"""A forward pass that also records how FFN and bank units fire; where each half layer's write can be taken away."""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from probes.forward import Pass
from probes.models import Hook, Model, name_hook


def name_attention_write(model: Model, layer: int) -> str:
    """Hook point of what a layer's attention adds to the stream, memory reads and any norm after it included."""
    return name_hook(
        layer, "attn.hook_out" if model.weights[layer].post_attention_norm is None else "ln1_post.hook_out"
    )


def name_mlp_write(model: Model, layer: int) -> str:
    """Hook point of what a layer's MLP and bank blocks add to the stream, any norm after them included."""
    return name_hook(layer, "mlp.hook_out" if model.weights[layer].post_mlp_norm is None else "ln2_post.hook_out")


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
