"""Blocks of a bank in a transformers model, by hooks that a `with` block installs and removes; one set a row.

The arithmetic is that of tracing (`probes/units.py`), so that a bank does in a trace what it did in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from probes.attachments import BankBlocks
from probes.blocks import Design, Widths
from probes.units import change_projection, fire_units, read_learned, write_units
from workbench.training.networks import Network

# The projections that LoRA may change, as they are called in a transformers model.
PROJECTIONS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def measure_network(network: Network) -> Widths:
    """Widths of a model's projections."""
    config = network.model.config
    first = network.model.get_submodule("model.layers")[0]
    d_head = int(first.self_attn.head_dim)
    return Widths(
        network.width, int(config.num_attention_heads), int(config.num_key_value_heads), d_head,
        int(first.mlp.down_proj.in_features),
    )  # fmt: skip


class BlockHooks:
    """Hooks of a model that add what the blocks under way add; none are under way by default."""

    def __init__(self, model: nn.Module, design: Design) -> None:
        """`design` says which kind of block and at which layers."""
        self.model, self.design = model, design
        self.blocks: BankBlocks | None = None
        self._queries: dict[int, Tensor] = {}

    @contextmanager
    def install(self) -> Iterator[None]:
        """Have the hooks in the model within the block."""
        handles: list[Any] = []
        layers: Any = self.model.get_submodule("model.layers")
        try:
            for layer in self.design.layers:
                handles += self._hook(layers[layer], layer)
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def attach(self, blocks: BankBlocks) -> Iterator[None]:
        """Add these blocks, one set a row, within the block."""
        self.blocks = blocks
        try:
            yield
        finally:
            self.blocks = None
            self._queries.clear()

    def _hook(self, block: Any, layer: int) -> list[Any]:
        if self.design.kind == "ffn":
            return [block.mlp.register_forward_hook(partial(self._add_units, layer))]
        if self.design.kind == "lora":
            return [
                block.get_submodule(PROJECTIONS[target]).register_forward_hook(partial(self._change, layer, target))
                for target in self.design.targets
            ]
        attention = block.self_attn
        return [
            attention.q_proj.register_forward_hook(partial(self._keep_query, layer, attention)),
            attention.o_proj.register_forward_pre_hook(partial(self._add_read, layer)),
        ]

    def _pick(self, name: str, level: int, layer: int, like: Tensor) -> Tensor:
        assert self.blocks is not None
        return self.blocks.pick(name, level, layer).to(like.dtype)

    def _add_units(self, layer: int, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.blocks is None:
            return output
        for level in range(len(self.blocks)):
            gate, up, down = (self._pick(name, level, layer, output) for name in ("gate", "up", "down"))
            output = output + write_units(fire_units(inputs[0].to(output.dtype), gate, up), down)
        return output

    def _change(
        self, layer: int, target: str, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        if self.blocks is None:
            return output
        for level in range(len(self.blocks)):
            into, out = (self._pick(f"{target}.{end}", level, layer, output) for end in ("in", "out"))
            output = output + change_projection(inputs[0].to(output.dtype), into, out, self.design.factor)
        return output

    def _keep_query(self, layer: int, attention: Any, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if self.blocks is not None:
            query = output.view(*output.shape[:-1], -1, self.design.widths.d_head)
            norm = getattr(attention, "q_norm", None)
            self._queries[layer] = query if norm is None else norm(query)

    def _add_read(self, layer: int, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        if self.blocks is None:
            return None
        heads, query = inputs[0], self._queries.pop(layer).to(inputs[0].dtype)
        for level in range(len(self.blocks)):
            key, value = (self._pick(name, level, layer, heads) for name in ("key", "value"))
            heads = heads + read_learned(query, key, value).flatten(2)
        return (heads,)
