"""The demo's network: a Hugging Face Llama, memory read by a registered attention function, a bank added by hooks.

Nothing forks the model's code. Explicit memory: memory keys and values travel as keyword arguments of the forward pass
to an attention function that `transformers.AttentionInterface` knows by name. The bank: forward hooks on the FFNs add
`down^T (silu(gate x) * up x)` for the blocks of each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from probes.slots import gather_slots, keep_slots, measure_received_attention, rotate, shift_keys
from probes.units import fire_units, write_units
from workbench.demo.config import Config

ATTENTION = "memory_circuits_demo"
NONE, GENERIC, FETCHED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Slots:
    """Explicit memory of one layer for a batch of rows, or of one reference a row."""

    keys: Float[Tensor, "row kv_head slot d_head"]
    values: Float[Tensor, "row kv_head slot d_head"]
    present: Bool[Tensor, "row kv_head slot"]
    positions: Int[Tensor, "row kv_head slot"]


def attend(
    module: nn.Module,
    query: Float[Tensor, "row head pos d_head"],
    key: Float[Tensor, "row kv_head pos d_head"],
    value: Float[Tensor, "row kv_head pos d_head"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    memory: dict[int, Slots] | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "row pos head d_head"], None]:
    """Causal attention over the context, at memory layers in one softmax with the memory slots.

    Rows are padded on the right, so that the causal mask alone keeps padding out.
    """
    slots = None if memory is None else memory.get(int(module.layer_idx))  # type: ignore[arg-type]
    attention = nn.functional.scaled_dot_product_attention
    if slots is None:
        out = attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None
    rows, heads, pos, _width = query.shape
    causal = torch.ones(pos, pos, dtype=torch.bool, device=query.device).tril()
    shared = heads // slots.present.shape[1]
    seen = slots.present.repeat_interleave(shared, dim=1)[:, :, None, :].expand(rows, heads, pos, -1)
    mask = torch.cat([seen, causal.expand(rows, heads, pos, pos)], dim=-1)
    keys, values = torch.cat([slots.keys, key], dim=2), torch.cat([slots.values, value], dim=2)
    out = attention(query, keys, values, attn_mask=mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


def build_network(config: Config, vocabulary: int, ids: tuple[int, int, int]) -> LlamaForCausalLM:
    """A freshly initialised anchor; `ids` are the tokens for beginning, end and padding."""
    AttentionInterface.register(ATTENTION, attend)
    shape = config.model
    llama = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.d_head,
        max_position_embeddings=shape.positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=ids[0],
        eos_token_id=ids[1],
        pad_token_id=ids[2],
        initializer_range=0.04,
    )
    llama._attn_implementation = ATTENTION
    return LlamaForCausalLM(llama)


class BankWeights(nn.Module):
    """The FFN-memory bank and its generic block: per level `[clusters + 1, layer, unit, d_model]`, generic last."""

    def __init__(self, config: Config) -> None:
        """Gate and up from a truncated normal, down zero, so that a new bank changes nothing."""
        super().__init__()
        self.units = tuple(config.bank.units)
        self.gate, self.up, self.down = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for level, units in enumerate(self.units, 1):
            clusters = config.clusters.branching**level
            shape = (clusters + 1, config.model.layers, units, config.model.d_model)
            for weights in (self.gate, self.up):
                start = torch.empty(shape)
                nn.init.trunc_normal_(start, std=config.model.d_model**-0.5)
                weights.append(nn.Parameter(start))
            self.down.append(nn.Parameter(torch.zeros(shape)))

    def fetch(self, paths: Int[Tensor, "row level"], mode: Int[Tensor, " row"]) -> tuple[Tensor, Tensor, Tensor]:
        """Blocks of each row, concatenated over levels: gate, up, down, each `[row, layer, unit, d_model]`.

        `mode` is NONE, GENERIC or FETCHED a row.
        """
        parts: list[list[Tensor]] = [[], [], []]
        for level in range(len(self.units)):
            generic = self.gate[level].shape[0] - 1
            ids = torch.where(mode == GENERIC, generic, paths[:, level])
            for part, weights in zip(parts, (self.gate, self.up, self.down), strict=True):
                part.append(weights[level][ids])
        gate, up, down = (torch.cat(part, dim=2) for part in parts)
        return gate, up, down * (mode != NONE)[:, None, None, None]


class Attached:
    """The blocks that the FFN hooks add in the forward pass under way; none by default."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        """Hook every FFN of the model."""
        self.blocks: tuple[Tensor, Tensor, Tensor] | None = None
        for number, layer in enumerate(model.model.layers):
            layer.mlp.register_forward_hook(self._make_hook(number))

    def _make_hook(self, layer: int) -> Any:
        def add_block(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self.blocks is None:
                return output
            gate, up, down = (part[:, layer] for part in self.blocks)
            return output + write_units(fire_units(inputs[0], gate, up), down)

        return add_block

    @contextmanager
    def attach(self, blocks: tuple[Tensor, Tensor, Tensor] | None) -> Iterator[None]:
        """Add these blocks, one set a row, within the context."""
        self.blocks = blocks
        try:
            yield
        finally:
            self.blocks = None


def write_memory(
    model: LlamaForCausalLM,
    ids: Int[Tensor, "row pos"],
    valid: Bool[Tensor, "row pos"],
    layers: list[int],
    slots: int,
    received_by_layer: dict[int, Tensor] | None = None,
) -> dict[int, Slots]:
    """Explicit memories of references, one a row: the tokens with most attention received, per key-value head.

    `valid` leaves out beginning, prefix and padding. Keys carry the rotary positions of the reference. Gradients flow
    into keys and values, not into the choice of tokens; `received_by_layer`, if given, is filled with the attention
    received, `[row, kv_head, pos]` and differentiable, for a loss that teaches the choice.
    """
    config = model.config
    hidden = model.model.embed_tokens(ids)
    places = torch.arange(ids.shape[1], device=ids.device)[None]
    cos, sin = model.model.rotary_emb(hidden, position_ids=places)
    written: dict[int, Slots] = {}
    for number, layer in enumerate(model.model.layers[: max(layers) + 1]):
        if number in layers:
            attention, x = layer.self_attn, layer.input_layernorm(hidden)
            width = (*ids.shape, -1, config.head_dim)
            query, key, value = (part(x).view(width) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
            received = measure_received_attention(query, key, valid, config.head_dim**-0.5, "softmax", "sum")
            if received_by_layer is not None:
                received_by_layer[number] = received
            kept = keep_slots(received.detach(), slots)
            written[number] = Slots(
                gather_slots(rotate(key, cos, sin), kept),
                gather_slots(value, kept),
                valid[:, None, :].expand(-1, kept.shape[1], -1).gather(2, kept),
                kept,
            )
        if number < max(layers):
            hidden = layer(hidden, attention_mask=None, position_embeddings=(cos, sin), position_ids=places)
    return written


def share_memory(
    model: LlamaForCausalLM, written: dict[int, Slots], chosen: Int[Tensor, "row memory"], offset: int
) -> dict[int, Slots]:
    """What each row reads: the memories that it names (-1: none), moved `offset` positions before the context."""
    frequencies = model.model.rotary_emb.inv_freq
    rows, count = chosen.shape
    index = chosen.clamp(min=0)
    shared = {}
    for layer, slots in written.items():
        heads, kept = slots.keys.shape[1], slots.keys.shape[2]

        def spread(part: Tensor, heads: int = heads, kept: int = kept) -> Tensor:
            return part[index].transpose(1, 2).reshape(rows, heads, count * kept, *part.shape[3:])

        there = spread(slots.present) & (chosen >= 0)[:, None, :, None].expand(rows, heads, count, kept).flatten(2)
        keys = shift_keys(slots.keys, frequencies, -float(offset))
        shared[layer] = Slots(spread(keys), spread(slots.values), there, spread(slots.positions))
    return shared
