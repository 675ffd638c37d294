"""Experts of a mixture: what each adds to the stream, its routing weight included.

An expert writes `weight x down(act(gate x) * up x)` at the positions that the router sends to it and nothing elsewhere;
the weights are the router's own, after it chose (and, in most models, after they were made to sum to 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Experts:
    """Weights of one layer's experts: gate and up projections stacked, down projection, and the activation function."""

    gate_up: Float[Tensor, "expert twice_units d_model"] = field(repr=False)
    down: Float[Tensor, "expert d_model units"] = field(repr=False)
    activate: Callable[[Tensor], Tensor] = field(repr=False)

    def __len__(self) -> int:
        """Number of experts."""
        return int(self.gate_up.shape[0])

    def write(
        self, x: Float[Tensor, "batch pos d_model"], weights: Float[Tensor, "batch pos expert"]
    ) -> list[Float[Tensor, "batch pos d_model"]]:
        """What each expert writes, computed only at the positions that are routed to it."""
        return [self._write_one(expert, x, weights[..., expert]) for expert in range(len(self))]

    def _write_one(
        self, expert: int, x: Tensor, weight: Float[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        rows, positions = weight.nonzero(as_tuple=True)
        gate, up = torch.nn.functional.linear(x[rows, positions], self.gate_up[expert]).chunk(2, dim=-1)
        written = torch.nn.functional.linear(self.activate(gate) * up, self.down[expert])
        written = (written * weight[rows, positions, None]).to(x.dtype)
        return torch.zeros_like(x).index_put((rows, positions), written)


def read_experts(mlp: Any) -> Experts | None:
    """Experts of a TransformerLens mixture, or None where the MLP is none or stores them otherwise."""
    block = getattr(mlp, "original_component", None)
    experts = getattr(block, "experts", None)
    if experts is None or not hasattr(getattr(mlp, "gate", None), "hook_expert_weights"):
        return None
    gate_up, down = getattr(experts, "gate_up_proj", None), getattr(experts, "down_proj", None)
    activate = getattr(experts, "act_fn", None)
    if not isinstance(gate_up, Tensor) or not isinstance(down, Tensor) or activate is None:
        return None
    if gate_up.dim() != 3 or tuple(down.shape) != (gate_up.shape[0], gate_up.shape[2], gate_up.shape[1] // 2):
        return None
    return Experts(gate_up.detach(), down.detach(), activate)
