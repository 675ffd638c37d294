"""Kinds of parametric memory on a frozen anchor: FFN units, LoRA, learned key-values; one block a leaf of the tree.

Source: Pouransari et al. 2025, section 3.1 and appendix (memory types). Every kind begins without effect: FFN down
rows, LoRA's second factor and the values are zero. The size of a block is given in numbers, and each kind takes the
largest rank that stays within it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from probes.units import fire_units, write_units

# LoRA adds this times x A B; the paper gives alpha = 2, that it is the factor itself is inferred.
LORA_FACTOR = 2.0

# Projections that a LoRA kind changes.
LORA_TARGETS = {
    "LoRA (query, key)": ("self_attn.q_proj", "self_attn.k_proj"),
    "LoRA (value, output)": ("self_attn.v_proj", "self_attn.o_proj"),
    "LoRA (FFN)": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}
KINDS = ("FFN", *LORA_TARGETS, "key-value")


class Blocks(nn.Module):
    """Blocks of one kind, `[leaf, layer, ...]`, hooked into the anchor; without paths they add nothing."""

    def __init__(self, anchor: LlamaForCausalLM, kind: str, leaves: int, layers: Sequence[int], numbers: int) -> None:
        """`numbers` is the size of one leaf's block over all its layers."""
        super().__init__()
        self.kind, self.layers, self.rank = kind, tuple(layers), 0
        self.leaf: Tensor | None = None
        self.weights = nn.ParameterDict()
        self._queries: dict[int, Tensor] = {}
        make = {"FFN": self._make_units, "key-value": self._make_key_values}.get(kind, self._make_lora)
        make(anchor, leaves, numbers // len(self.layers))

    @property
    def numbers(self) -> int:
        """Numbers in one leaf's block."""
        return sum(weights[0].numel() for weights in self.weights.values())

    @contextmanager
    def fetch(self, leaf: Int[Tensor, " row"]) -> Iterator[None]:
        """Add the blocks of these leaves, one a row, within the context."""
        self.leaf = leaf
        try:
            yield
        finally:
            self.leaf = None
            self._queries.clear()

    def _pick(self, name: str, place: int) -> Tensor:
        picked: Tensor = self.weights[name][:, place][self.leaf]
        return picked

    def _add(self, name: str, *shape: int, random: bool) -> None:
        start = torch.zeros(shape)
        if random and self.kind in LORA_TARGETS:
            nn.init.uniform_(start, -(shape[-1] ** -0.5), shape[-1] ** -0.5)  # Kaiming's for a linear layer
        elif random:
            nn.init.trunc_normal_(start, std=shape[-1] ** -0.5)
        self.weights[name] = nn.Parameter(start)

    def _make_units(self, anchor: LlamaForCausalLM, leaves: int, numbers: int) -> None:
        d_model = anchor.config.hidden_size
        self.rank = numbers // (3 * d_model)
        for name in ("gate", "up", "down"):
            self._add(name, leaves, len(self.layers), self.rank, d_model, random=name != "down")
        for place, layer in enumerate(self.layers):
            anchor.model.layers[layer].mlp.register_forward_hook(partial(self._add_units, place))

    def _add_units(self, place: int, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.leaf is None:
            return output
        gate, up, down = (self._pick(name, place) for name in ("gate", "up", "down"))
        return output + write_units(fire_units(inputs[0], gate, up), down)

    def _make_lora(self, anchor: LlamaForCausalLM, leaves: int, numbers: int) -> None:
        targets = LORA_TARGETS[self.kind]
        modules = [anchor.model.layers[self.layers[0]].get_submodule(target) for target in targets]
        self.rank = numbers // sum(int(m.in_features) + int(m.out_features) for m in modules)
        for target, module in zip(targets, modules, strict=True):
            name, shape = target.replace(".", "_"), (leaves, len(self.layers), self.rank)
            self._add(name + "_in", *shape, int(module.in_features), random=True)
            self._add(name + "_out", *shape, int(module.out_features), random=False)
            for place, layer in enumerate(self.layers):
                layered = anchor.model.layers[layer].get_submodule(target)
                layered.register_forward_hook(partial(self._add_lora, name, place))

    def _add_lora(
        self, name: str, place: int, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        if self.leaf is None:
            return output
        low = inputs[0] @ self._pick(name + "_in", place).transpose(1, 2)
        return output + LORA_FACTOR * (low @ self._pick(name + "_out", place))

    def _make_key_values(self, anchor: LlamaForCausalLM, leaves: int, numbers: int) -> None:
        heads, d_head = anchor.config.num_attention_heads, int(anchor.config.head_dim)
        self.rank = numbers // (2 * heads * d_head)
        for name in ("key", "value"):
            self._add(name, leaves, len(self.layers), heads, self.rank, d_head, random=name == "key")
        for place, layer in enumerate(self.layers):
            attention = anchor.model.layers[layer].self_attn
            attention.q_proj.register_forward_hook(partial(self._keep_query, place))
            attention.o_proj.register_forward_pre_hook(partial(self._add_read, place))

    def _keep_query(self, place: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if self.leaf is not None:
            self._queries[place] = output

    def _add_read(self, place: int, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        """A softmax of its own, without positions, added to what the heads read (the paper's key-value memory)."""
        if self.leaf is None:
            return None
        keys, values = self._pick("key", place), self._pick("value", place)
        query = self._split(self._queries.pop(place), keys.shape[1])
        read = nn.functional.scaled_dot_product_attention(query, keys, values)
        return (inputs[0] + read.transpose(1, 2).flatten(2),)

    @staticmethod
    def _split(x: Float[Tensor, "row pos width"], heads: int) -> Float[Tensor, "row head pos d_head"]:
        return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)
