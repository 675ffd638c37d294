"""Take up a model in the middle: a pass that starts from a given residual stream at a layer, for many rows at once.

Only public hooks are used. The model is run on the tokens of one prompt, whatever they are; where the pass starts, a
hook returns the given stream instead, with as many rows as there are, and from there on the model computes those. So
what lies before costs one row, not all of them. Before an MLP the stream cannot be replaced where it enters the layer,
because attention stands between: there the layer is given a stream of zeros, and what attention adds to it is replaced
by the given stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.attachments import Attachment
from probes.forward import Pass, Record
from probes.models import Hook, Model, name_hook


@dataclass(frozen=True, slots=True, order=True)
class Start:
    """Where a pass starts: before the attention of a layer, or (`at_mlp`) before its MLP; after the last layer before
    the logits, which is the layer numbered as many as there are.
    """

    layer: int
    at_mlp: bool = False

    def read_stream(self, record: Record) -> Float[Tensor, "batch pos d_model"]:
        """Stream of a recorded pass at this point, off its autograd graph."""
        if self.at_mlp:
            return record.mlp_stream[self.layer].detach()
        stream = record.attention_stream.get(self.layer, record.final_stream)
        assert stream is not None
        return stream.detach()


class RestartedPass(Pass):
    """A pass from `start` on with `stream` [row, pos, d_model] there; `attachment` has a row for each, or one for all.

    Only layers with memories are recorded, and those in `listened`, where a subclass changes what is read.
    """

    def __init__(
        self,
        model: Model,
        attachment: Attachment,
        start: Start,
        stream: Float[Tensor, "row pos d_model"],
        ends: Int[Tensor, "row2 step"] | None = None,
        listened: tuple[int, ...] = (),
    ) -> None:
        super().__init__(model, attachment, ends=ends)
        assert not (start.at_mlp and model.parallel), "in a parallel model nothing stands between attention and MLP"
        self.start = start
        self.stream = stream
        self.listened = listened

    def run(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "row pos_or_step d_vocab"]:
        """Logits of the rows; of `tokens` only the length counts."""
        with torch.no_grad():
            return self.model.run(tokens[:1], self.list_hooks())

    def list_hooks(self) -> list[Hook]:
        """Hooks that put the stream in, and those of layers with memories from there on."""
        hooks = self.list_start_hooks()
        for layer in range(self.start.layer, self.model.layers):
            if self._hears_attention(layer):
                hooks += self.list_attention_hooks(layer)
            if layer in self.listened or self._count_levels(layer) or self.adapts(layer):
                hooks += self.list_mlp_hooks(layer)
        return [*hooks, *self.list_end_hooks()]

    def list_start_hooks(self) -> list[Hook]:
        """Hooks that put the stream in."""
        layer = self.start.layer
        if layer == self.model.layers:
            return [("ln_final.hook_in", self._replace)]
        if not self.start.at_mlp:
            return [(name_hook(layer, "hook_in"), self._replace)]
        post_norm = self.model.weights[layer].post_attention_norm is not None
        point = "ln1_post.hook_out" if post_norm else "attn.hook_out"
        return [(name_hook(layer, "hook_in"), self._empty), (name_hook(layer, point), self._replace)]

    def _hears_attention(self, layer: int) -> bool:
        if self.start.at_mlp and layer == self.start.layer:
            return False
        remembers = self._memory_layer(layer) is not None or self._count_learned(layer) > 0 or self.adapts(layer)
        return layer in self.listened or remembers

    def _replace(self, stream: Tensor, hook: Any) -> Tensor:
        return self.stream

    def _empty(self, stream: Tensor, hook: Any) -> Tensor:
        return torch.zeros_like(stream)
