"""Explicit memories written by the model that is being trained, within the graph, and laid out for its own reading.

References run through the model at positions that lie before the context, so that their keys come out of rotary as
they will be read, and the pass ends at the last memory layer, where the last of what it is for has been taken.
Source: Yang et al. 2024, sections 3.2, 3.3 and 3.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probes.slots import gather_slots, keep_slots, measure_received_attention, rotate
from workbench.training.attention import ReadSlots

# A chunk of the context, in tokens, and how many chunks read a reference: the one it was found for, and four more.
CHUNK, READERS = 64, 5


class Written(Exception):
    """Ends a forward pass whose memories have all been taken; caught by `write_live`."""


@dataclass(frozen=True, slots=True)
class LiveSlots:
    """Memories of one layer, one a reference; a slot that a short reference could not fill is not `present`."""

    keys: Float[Tensor, "reference kv_head slot d_head"]
    values: Float[Tensor, "reference kv_head slot d_head"]
    present: Bool[Tensor, "reference kv_head slot"]


class LiveWriting:
    """One writing pass: takes what each memory layer keeps, and ends the pass at the last of them."""

    def __init__(self, layers: tuple[int, ...], slots: int, valid: Bool[Tensor, "reference pos"]) -> None:
        """`valid` leaves out beginning of text, prefix and padding."""
        self.layers, self.slots, self.valid = layers, slots, valid
        self.angles: dict[int, tuple[Tensor, Tensor]] = {}
        self.kept: dict[int, LiveSlots] = {}

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Note the rotary angles that each memory layer is given, which attention itself never sees."""

        def note(layer: int, _module: nn.Module, _inputs: Any, named: dict[str, Any]) -> None:
            self.angles[layer] = named["position_embeddings"]

        blocks: Any = model.get_submodule("model.layers")
        handles = [
            blocks[layer].self_attn.register_forward_pre_hook(partial(note, layer), with_kwargs=True)
            for layer in self.layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> None:
        """Keep the tokens with most attention received before rotary, and their keys after it.

        Gradients flow into keys and values, not into the choice. Raises `Written` at the last memory layer.
        """
        if layer in self.layers:
            with torch.no_grad():
                bare = [self.turn_back(layer, states) for states in (query, key)]
                received = measure_received_attention(bare[0], bare[1], self.valid, scale)
                kept = keep_slots(received, self.slots)
                present = self.valid[:, None, :].expand(-1, kept.shape[1], -1).gather(2, kept)
            self.kept[layer] = LiveSlots(
                gather_slots(key.transpose(1, 2), kept), gather_slots(value.transpose(1, 2), kept), present
            )
        if layer == max(self.layers):
            raise Written

    def turn_back(self, layer: int, states: Float[Tensor, "reference head pos d_head"]) -> Tensor:
        """Queries or keys as they were before rotary, `[reference, pos, head, d_head]`."""
        cos, sin = (part.float() for part in self.angles[layer])
        # Scaled rotary embeddings also stretch by the length of (cos, sin), which is 1 in plain ones.
        stretch = cos.square() + sin.square()
        return rotate(states.transpose(1, 2).float(), cos / stretch, -sin / stretch)


def write_live(
    model: nn.Module,
    ids: Int[Tensor, "reference pos"],
    valid: Bool[Tensor, "reference pos"],
    layers: tuple[int, ...],
    slots: int,
    offset: int,
    gradient: bool,
) -> dict[int, LiveSlots]:
    """Memories of references at each memory layer, keys turned to lie `offset` positions before the context.

    `gradient` tells whether the training loss shall reach the weights through what was written too.
    """
    writing = LiveWriting(layers, slots, valid)
    positions = torch.arange(ids.shape[1], device=ids.device)[None] - offset
    with writing.watch(model), nullcontext() if gradient else torch.no_grad():
        try:
            model.get_submodule("model")(input_ids=ids, position_ids=positions, use_cache=False, writing=writing)
        except Written:
            return writing.kept
    raise RuntimeError("the model has no such memory layer")


def share_live(written: dict[int, LiveSlots], chosen: Int[Tensor, "row chunk"], positions: int) -> dict[int, ReadSlots]:
    """What each row reads: the reference of each of its 64-token chunks (-1: none), there and in the four after it."""
    place, chunk = torch.arange(positions, device=chosen.device), torch.arange(chosen.shape[1], device=chosen.device)
    age = place[:, None] // CHUNK - chunk[None, :]
    near = (age >= 0) & (age < READERS)
    rows, chunks = chosen.shape
    index = chosen.clamp(min=0)
    shared = {}
    for layer, slots in written.items():
        heads, kept, width = slots.keys.shape[1:]
        keys, values = (
            part[index].transpose(1, 2).reshape(rows, heads, chunks * kept, width)
            for part in (slots.keys, slots.values)
        )
        present = slots.present[index].transpose(1, 2) & (chosen >= 0)[:, None, :, None]
        seen = present[:, :, None] & near[None, None, :, :, None]
        shared[layer] = ReadSlots(keys, values, seen.flatten(3))
    return shared
