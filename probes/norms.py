"""Layer norm and RMS norm as values: apply them, and pull a gradient back through them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm over the last axis: `weight * (x - mean) / scale + bias`, the mean left in where `centred` is false.

    `weight` is the factor that is applied, so a checkpoint that stores it less one (Gemma) has one added. `epsilon`
    is added to the mean square before the root.
    """

    weight: Float[Tensor, " width"]
    bias: Float[Tensor, " width"] | None
    epsilon: float
    centred: bool

    def measure(self, x: Float[Tensor, "*any width"]) -> tuple[Float[Tensor, "*any width"], Float[Tensor, "*any 1"]]:
        """Centred input and its scale (root of mean square plus epsilon), in float32 as the models compute it."""
        x = x.float()
        if self.centred:
            x = x - x.mean(dim=-1, keepdim=True)
        return x, torch.sqrt(x.square().mean(dim=-1, keepdim=True) + self.epsilon)

    def apply(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """The norm of x."""
        if self.centred:
            bias = None if self.bias is None else self.bias.float()
            normed = torch.nn.functional.layer_norm(x.float(), x.shape[-1:], self.weight.float(), bias, self.epsilon)
            return normed.to(x.dtype)
        centred, scale = self.measure(x)
        y = centred / scale * self.weight
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype)

    def apply_frozen(
        self, x: Float[Tensor, "*any width"], scale: Float[Tensor, "*any2 1"]
    ) -> Float[Tensor, "*any width"]:
        """The norm's linear part at a given scale, without bias: adds up over the terms of a sum."""
        if self.centred:
            x = x - x.mean(dim=-1, keepdim=True)
        return x / scale * self.weight

    def pull_back_frozen(self, gradient: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Gradient at the input of `apply_frozen` at scale 1, given the gradient at its output."""
        weighted = gradient * self.weight
        return weighted - weighted.mean(dim=-1, keepdim=True) if self.centred else weighted

    def pull_back(
        self, gradient: Float[Tensor, "*any width"], x: Float[Tensor, "*any2 width"]
    ) -> Float[Tensor, "*any width"]:
        """Gradient at the norm's input `x`, given the gradient at its output (exact, epsilon included)."""
        centred, scale = self.measure(x)
        normed = centred / scale
        weighted = gradient * self.weight
        pulled = weighted - normed * (weighted * normed).mean(dim=-1, keepdim=True)
        if self.centred:
            pulled = pulled - weighted.mean(dim=-1, keepdim=True)
        return pulled / scale

    def pull_back_heads(
        self,
        gradient: Float[Tensor, "batch pos head d_head"],
        projection: Float[Tensor, "head width d_head"],
        x: Float[Tensor, "batch pos width"],
        output: Float[Tensor, "batch pos head d_head"],
        room: Float[Tensor, "room batch pos width"] | None = None,
    ) -> Float[Tensor, "head batch pos width"]:
        """Gradient at the norm's input for each head, given the gradient at the output of the head's projection.

        `output` is what the projections gave, less their biases. The same as projecting back and then `pull_back`, in
        fewer passes over the result: weight, scale and mean go into the factors of one batched product, and only the
        component along the normed input is taken off after; how long that is follows from `output`. The result fills
        `room` from the front where that is given, in float32.
        """
        centred, scale = self.measure(x)
        normed = (centred / scale).flatten(0, 1)
        projection = projection.float()
        folded = projection * self.weight.float()[:, None]
        if self.centred:
            folded = folded - folded.mean(dim=1, keepdim=True)
        scaled = (gradient.float() / scale[..., None]).flatten(0, 1).transpose(0, 1)
        out = None if room is None else room[: projection.shape[0]].flatten(1, 2)
        pulled = torch.bmm(scaled, folded.transpose(1, 2), out=out)
        if self.bias is not None:
            output = output - torch.einsum("hmd,m->hd", projection, self.bias.float())
        along = (scaled * output.float().flatten(0, 1).transpose(0, 1)).sum(dim=-1) / x.shape[-1]
        pulled.addcmul_(along.unsqueeze(-1), normed, value=-1.0)
        return pulled.view(-1, *x.shape)
