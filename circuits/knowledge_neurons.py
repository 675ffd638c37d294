"""Knowledge neurons: FFN units to which integrated gradients give the probability of a fact's answer.

Dai et al. 2022 (arXiv 2104.08696), section 3: with w the activations of a layer's units where the answer is predicted
and P the answer's probability (of its first token), a unit's attribution is

    w_i * mean over steps k of dP / dw_i  at  (k / steps) w

all units of the layer scaled together, as in the authors' code. Units reach a prompt's threshold at `ADAPTIVE` times
its largest attribution in the model; the fact's knowledge neurons are those that do in at least `SHARED` of its
wordings. The paper's two numbers differ by data set; 0.2 and 0.7 are those of its section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.component_effects import Item
from probes.attachments import repeat_rows
from probes.forward import Pass
from probes.models import Hook, Model, name_hook
from probes.parts import PartsPass
from probes.progress import Tick, quiet

STEPS, ADAPTIVE, SHARED = 20, 0.2, 0.7


class ScaledPass(Pass):
    """A pass in whose rows the units of one layer, at the last position, are `units` [row, unit]."""

    layer: int
    units: Tensor

    def list_hooks(self) -> list[Hook]:
        """The pass's hooks, and one that puts the units in."""
        return [*super().list_hooks(), (name_hook(self.layer, "mlp.out.hook_in"), partial(self._replace))]

    def _replace(self, values: Tensor, hook: Any) -> Tensor:
        return torch.cat([values[:, :-1], self.units.unsqueeze(1)], dim=1)


def attribute_units(
    model: Model, item: Item, steps: int = STEPS, tick: Tick = quiet
) -> Float[np.ndarray, "layer unit"]:
    """Attribution of every unit for one prompt, in probability; layers without units score 0."""
    tokens = torch.tensor([item.ids])
    whole = PartsPass(model, item.attachment)
    whole.run(tokens)
    shares = (torch.arange(1, steps + 1) / steps).unsqueeze(1)
    width = max((units.shape[-1] for units in whole.record.units.values()), default=0)
    found = np.zeros((model.layers, width))
    ends = torch.tensor([[len(item.ids) - 1]])
    for layer, activations in whole.record.units.items():
        tick("knowledge neurons", layer, model.layers)
        clean = activations[0, -1].detach()
        scaled = ScaledPass(model, repeat_rows(item.attachment, steps), differentiable=True, ends=ends)
        scaled.layer, scaled.units = layer, (shares.to(clean) * clean).requires_grad_()
        logits = scaled.run(tokens.repeat(steps, 1))
        with torch.enable_grad():
            value = logits[:, 0].float().softmax(dim=-1)[:, item.answer_ids[0]].sum()
        (slopes,) = torch.autograd.grad(value, scaled.units)
        found[layer, : len(clean)] = (clean * slopes.mean(dim=0)).double().cpu().numpy()
    return found


def find_neurons(
    scores: Sequence[Float[np.ndarray, "layer unit"]], adaptive: float = ADAPTIVE, shared: float = SHARED
) -> Bool[np.ndarray, "layer unit"]:
    """Knowledge neurons of one fact, from the attributions of its wordings. Needs one wording or more."""
    reached = np.stack([own >= adaptive * own.max() if own.max() > 0 else np.zeros(own.shape, bool) for own in scores])
    return np.asarray(reached.mean(axis=0) >= shared)
