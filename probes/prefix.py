"""The faithful reader's prefix: `<s>Reference:` before the context, at every head of every layer.

Its keys and values are those of the prefix read alone, all its tokens, at the positions of a reference's start. They
join the memories as one more block, the last, so that it is read in the same softmax and traced like a memory; at
layers that are no memory layers it is the only one. Source: Yang et al. 2024, section 3.2. The shipped model was
trained without, so this is off unless asked for.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from probes.attachments import ExplicitBlocks
from probes.errors import UserError
from probes.models import Model
from probes.slots import shift_keys


def read_prefix(model: Model, prefix: str, offset: int) -> ExplicitBlocks:
    """One block, named as the prefix, with keys and values of all its tokens at all layers, `offset` positions back.

    Raises UserError for an empty prefix, and for a model without rotary positions.
    """
    if model.attention is None or not model.attention.rotary:
        raise UserError(
            f"{model.name} has no rotary positions, so nothing can be put before its context: leave out --faithful"
        )
    if not prefix:
        raise UserError("the bank was written without a prefix, so there is none to put before the context")
    cache = model.start_cache()
    with torch.no_grad():
        model.run(torch.tensor([model.encode(prefix)]), cache=cache)
    keys = [
        shift_keys(layer.keys, frequencies.to(layer.keys.device), -float(offset))
        for layer, frequencies in zip(cache.layers, model.attention.frequencies, strict=True)
    ]
    stacked = torch.stack(keys, dim=1)[:, :, None]
    values = torch.stack([layer.values for layer in cache.layers], dim=1)[:, :, None]
    absent = torch.zeros(stacked.shape[:-1], dtype=torch.bool, device=stacked.device)
    return ExplicitBlocks((prefix,), tuple(range(model.layers)), stacked, values, absent)


def add_prefix(explicit: ExplicitBlocks, prefix: ExplicitBlocks) -> ExplicitBlocks:
    """Memories with the prefix as their last block, over all layers; what is not there is absent."""
    slots = max(explicit.keys.shape[4], prefix.keys.shape[4])
    whole = spread_layers(explicit, prefix.layers)

    def join(name: str) -> Float[Tensor, "rows layer block kv_head slot d_head"]:
        first, second = (getattr(part, name) for part in (whole, prefix))
        parts = [pad(part, (0, 0, 0, slots - part.shape[4])) for part in (first, second.to(first.dtype))]
        return torch.cat([parts[0], parts[1].expand(len(parts[0]), *parts[1].shape[1:])], dim=2)

    lacking = [pad(part.absent, (0, slots - part.absent.shape[4]), value=True) for part in (whole, prefix)]
    absent = torch.cat([lacking[0], lacking[1].expand(len(lacking[0]), *lacking[1].shape[1:])], dim=2)
    return ExplicitBlocks((*explicit.ids, *prefix.ids), prefix.layers, join("keys"), join("values"), absent)


def spread_layers(explicit: ExplicitBlocks, layers: tuple[int, ...]) -> ExplicitBlocks:
    """The same memories over more layers, absent at those that they were not written at."""
    places = torch.tensor([layers.index(layer) for layer in explicit.layers], device=explicit.keys.device)

    def spread(part: Tensor, filling: float) -> Tensor:
        whole = part.new_full((part.shape[0], len(layers), *part.shape[2:]), filling)
        return whole.index_copy_(1, places, part)

    keys, values = spread(explicit.keys, 0.0), spread(explicit.values, 0.0)
    return replace(explicit, layers=layers, keys=keys, values=values, absent=spread(explicit.absent, True))
