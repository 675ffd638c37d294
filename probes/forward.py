"""One forward pass seen as writers and readers, with memories attached through public hooks.

Explicit memory: one softmax over [memory; context] equals a merge of two by their log-sum-exp,
`z = share * z_context + sum over blocks of their reads`; it needs the query, the context's scores and z. A subclass
replaces what a reader takes in (`circuits/masking.py`); the methods named `read_...` are the only places where that
happens.

Bank blocks (`probes/blocks.py`), by kind:

- `ffn` blocks are writers with readers of their own: they add `down(silu(gate x) * up x)` of the MLP's own input to
  the MLP's output.
- `key-value` blocks are writers with readers of their own: queries of the attention's own input read them, and what
  they read goes through the output projection beside what the heads read.
- `lora` blocks are no writers: what they add depends on what the head or MLP computes, not on the stream alone. They
  change projections, and so are counted inside the heads and the MLP whose projections they change; everything that
  reads weights takes them from `adapt_model` (`probes/adapters.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.attachments import NOTHING, Attachment
from probes.models import Hook, LayerWeights, Model, name_hook
from probes.slots import read_slots, rotate, score_slots, share_attention
from probes.units import change_projection, fire_units, read_learned, write_units

# Score of a slot that is not there: exp() of it is 0, and unlike minus infinity its gradient is 0, not NaN.
ABSENT = -1e30


@dataclass(slots=True)
class Record:
    """Tensors of one pass, by layer; those read by a gradient stay on the autograd graph.

    Streams (before the norm): `attention_stream`, `mlp_stream`, `final_stream` [batch pos d_model]. Readers' inputs:
    `query`, `key`, `value` [batch pos head d_head] (before rotary), `memory_query` [batch pos head block d_head],
    `learned_query` [batch pos head level d_head], `mlp_input`, and `bank_input` (one a level) [batch pos d_model],
    after the norm. Writers: `embedding`, `context_read` [batch pos head d_head], `memory_read` [batch pos head block
    d_head], `learned_read` [batch pos head level d_head], `mlp_output`, in a mixture
    `expert_output` (one an expert) of which it is the sum, and `bank_output` (one a level) [batch pos d_model].
    Attention: `pattern` [batch head query_pos key_pos] of the context alone, `share` [batch pos head] left to it,
    `slot_weights` [batch pos head block slot].

    Only where a pass records parts (`probes/parts.py`): `units` [batch pos unit] and `bank_units` (one a level) are
    activations, the factors of the rows of the down projection.
    """

    embedding: Tensor | None = None
    final_stream: Tensor | None = None
    attention_stream: dict[int, Tensor] = field(default_factory=dict)
    mlp_stream: dict[int, Tensor] = field(default_factory=dict)
    query: dict[int, Tensor] = field(default_factory=dict)
    key: dict[int, Tensor] = field(default_factory=dict)
    value: dict[int, Tensor] = field(default_factory=dict)
    memory_query: dict[int, Tensor] = field(default_factory=dict)
    learned_query: dict[int, Tensor] = field(default_factory=dict)
    mlp_input: dict[int, Tensor] = field(default_factory=dict)
    bank_input: dict[int, list[Tensor]] = field(default_factory=dict)
    context_read: dict[int, Tensor] = field(default_factory=dict)
    memory_read: dict[int, Tensor] = field(default_factory=dict)
    learned_read: dict[int, Tensor] = field(default_factory=dict)
    mlp_output: dict[int, Tensor] = field(default_factory=dict)
    expert_output: dict[int, list[Tensor]] = field(default_factory=dict)
    bank_output: dict[int, list[Tensor]] = field(default_factory=dict)
    pattern: dict[int, Tensor] = field(default_factory=dict)
    share: dict[int, Tensor] = field(default_factory=dict)
    slot_weights: dict[int, Tensor] = field(default_factory=dict)
    units: dict[int, Tensor] = field(default_factory=dict)
    bank_units: dict[int, list[Tensor]] = field(default_factory=dict)


def project(
    x: Float[Tensor, "*any d_model"], weight: Float[Tensor, "head d_model d_head"], bias: Tensor | None
) -> Float[Tensor, "*any head d_head"]:
    """Per-head projection of one input."""
    y = torch.einsum("...m,hmd->...hd", x, weight)
    return y if bias is None else y + bias


def write_heads(
    weights: LayerWeights,
    context_read: Float[Tensor, "batch pos head d_head"],
    memory_read: Float[Tensor, "batch pos head block d_head"] | None,
    learned_read: Float[Tensor, "batch pos head level d_head"] | None = None,
) -> tuple[Float[Tensor, "batch pos head d_model"], Tensor | None, Tensor | None]:
    """What each head adds to the stream from the context and from each memory block [batch pos head block d_model],
    and what each block of learned key-values adds through all heads [batch pos level d_model].

    A norm after attention (Gemma 2) is linear at its scale, so its outputs still add up over heads and blocks.
    """
    heads = torch.einsum("bphd,hdm->bphm", context_read, weights.output)
    blocks = None if memory_read is None else torch.einsum("bphnd,hdm->bphnm", memory_read, weights.output)
    learned = None if learned_read is None else torch.einsum("bphnd,hdm->bpnm", learned_read, weights.output)
    norm = weights.post_attention_norm
    if norm is not None:
        total = heads.sum(dim=2) if blocks is None else heads.sum(dim=2) + blocks.sum(dim=(2, 3))
        total = total if learned is None else total + learned.sum(dim=2)
        _, scale = norm.measure(total)
        heads = norm.apply_frozen(heads, scale[:, :, None])
        blocks = None if blocks is None else norm.apply_frozen(blocks, scale[:, :, None, None])
        learned = None if learned is None else norm.apply_frozen(learned, scale[:, :, None])
    return heads, blocks, learned


def list_mlp_outputs(record: Record, layer: int) -> list[Float[Tensor, "batch pos d_model"]]:
    """Outputs of a layer's MLP (or of each expert of a mixture) and bank blocks, before any norm after them."""
    return [*record.expert_output.get(layer, [record.mlp_output[layer]]), *record.bank_output[layer]]


def write_mlp(weights: LayerWeights, record: Record, layer: int) -> list[Float[Tensor, "batch pos d_model"]]:
    """What a layer's MLP or experts and then each bank block add to the stream, through any norm after the MLP."""
    parts, norm = list_mlp_outputs(record, layer), weights.post_mlp_norm
    if norm is None:
        return parts
    _, scale = norm.measure(torch.stack(parts).sum(dim=0))
    return [norm.apply_frozen(part, scale) for part in parts]


class Pass:
    """A forward pass of `model` with `attachment`; `run` fills `record`.

    `embedding` replaces the stream before the first layer; `differentiable` starts the autograd graph there;
    `attention` records the patterns. With `ends` [row, step] logits are computed at these positions of each row alone
    (one row stands for all, several are repeated), which spares most of the unembedding.
    """

    def __init__(
        self,
        model: Model,
        attachment: Attachment = NOTHING,
        embedding: Tensor | None = None,
        differentiable: bool = False,
        attention: bool = False,
        ends: Int[Tensor, "row step"] | None = None,
    ) -> None:
        self.model = model
        self.attachment = attachment
        self.embedding = embedding
        self.differentiable = differentiable
        self.attention = attention
        self.ends = ends
        self.record = Record()
        self._angles: dict[tuple[int, str], Tensor] = {}
        self._context_total: Tensor | None = None
        self._routing: Tensor | None = None
        self._normed_stream: Tensor | None = None
        self._heads: Tensor | None = None
        self._units_now: Tensor | None = None

    def run(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos_or_step d_vocab"]:
        """Logits, at every position or at `ends`; the record is filled on the way."""
        with torch.set_grad_enabled(self.differentiable):
            return self.model.run(tokens, self.list_hooks())

    def list_hooks(self) -> list[Hook]:
        """Every hook of the pass, in the order of the layers."""
        hooks: list[Hook] = [(name_hook(0, "hook_in"), self._embed)]
        for layer in range(self.model.layers):
            hooks += [*self.list_attention_hooks(layer), *self.list_mlp_hooks(layer)]
        return [*hooks, *self.list_end_hooks()]

    def list_attention_hooks(self, layer: int) -> list[Hook]:
        """Hooks of a layer's attention and its memory reads."""
        points = {
            "ln1.hook_in": self._attention_stream,
            "attn.hook_q": self._query,
            "attn.hook_k": self._key,
            "attn.hook_v": self._value,
            "attn.hook_z": self._z,
        }
        if self._memory_layer(layer) is not None:
            points |= {"attn.hook_cos": self._cos, "attn.hook_sin": self._sin}
            points["attn.hook_attn_scores"] = self._scores
        if self.attention:
            points["attn.hook_pattern"] = self._pattern
        if self.adapts(layer):
            # Before the others: what they see is the changed projection.
            points = {"attn.hook_in": self._attention_input} | points | {"attn.o.hook_out": self._attention_output}
        return [(name_hook(layer, point), partial(function, layer=layer)) for point, function in points.items()]

    def list_mlp_hooks(self, layer: int) -> list[Hook]:
        """Hooks of a layer's MLP and its bank blocks."""
        points: dict[str, Callable[..., Tensor | None]] = {
            "ln2.hook_in": self._mlp_stream,
            "mlp.hook_in": self._mlp_input,
            "mlp.gate.hook_expert_weights": self._route,
            "mlp.hook_out": self._mlp_output,
        }
        if self.adapts(layer):
            points |= self._list_changes()
        if self.model.weights[layer].experts is None:
            del points["mlp.gate.hook_expert_weights"]
        if self.model.weights[layer].mlp_norm is self.model.weights[layer].attention_norm:
            del points["ln2.hook_in"]
        return [(name_hook(layer, point), partial(function, layer=layer)) for point, function in points.items()]

    def _list_changes(self) -> dict[str, Callable[..., Tensor | None]]:
        """Hooks at the projections of an MLP that LoRA blocks change."""
        bank = self.attachment.bank
        assert bank is not None
        points: dict[str, Callable[..., Tensor | None]] = {
            point: partial(self._change_input, target=target)
            for point, target in (("mlp.gate.hook_out", "gate"), ("mlp.in.hook_out", "up"))
            if f"{target}.in" in bank.weights
        }
        if "down.in" in bank.weights:
            points |= {"mlp.out.hook_in": self._see_units, "mlp.out.hook_out": self._change_output}
        return points

    def list_end_hooks(self) -> list[Hook]:
        """Hooks after the last layer."""
        hooks: list[Hook] = [("ln_final.hook_in", self._final)]
        return hooks if self.ends is None else [*hooks, ("unembed.hook_in", self._keep_ends)]

    def read_queries(
        self, layer: int, query: Float[Tensor, "batch pos head d_head"]
    ) -> tuple[Float[Tensor, "batch pos head d_head"], Float[Tensor, "batch pos head block d_head"] | None]:
        """Queries for the context and, at a memory layer, for each memory block."""
        blocks = self._count_blocks(layer)
        if not blocks:
            return query, None
        return query, query.unsqueeze(3).expand(*query.shape[:3], blocks, query.shape[3])

    def read_learned_queries(
        self, layer: int, query: Float[Tensor, "batch pos head d_head"]
    ) -> Float[Tensor, "batch pos head level d_head"]:
        """Queries for each block of learned key-values."""
        return query.unsqueeze(3).expand(*query.shape[:3], self._count_learned(layer), query.shape[3])

    def read_keys(self, layer: int, key: Tensor) -> Tensor:
        """Keys of the context, before rotary."""
        return key

    def read_values(self, layer: int, value: Tensor) -> Tensor:
        """Values of the context."""
        return value

    def read_mlp(
        self, layer: int, x: Float[Tensor, "batch pos d_model"]
    ) -> tuple[Float[Tensor, "batch pos d_model"], list[Float[Tensor, "batch pos d_model"]]]:
        """Inputs (after the norm) of the MLP and of each bank block."""
        return x, [x.view_as(x) for _ in range(self._count_levels(layer))]

    def read_final(self, stream: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Stream (before the norm) that the logits read."""
        return stream

    def end_attention(self, layer: int) -> None:
        """Called when the heads of a layer have read."""

    def end_layer(self, layer: int) -> None:
        """Called when the MLP and the bank blocks of a layer have written."""

    def _memory_layer(self, layer: int) -> int | None:
        explicit = self.attachment.explicit
        return None if explicit is None or layer not in explicit.layers else explicit.layers.index(layer)

    def _count_blocks(self, layer: int) -> int:
        explicit = self.attachment.explicit
        return 0 if explicit is None or layer not in explicit.layers else len(explicit)

    def _count_levels(self, layer: int) -> int:
        """Writers among the blocks at a layer's MLP."""
        bank = self.attachment.bank
        return 0 if bank is None or layer not in bank.layers or bank.kind != "ffn" else len(bank)

    def _count_learned(self, layer: int) -> int:
        """Writers among the blocks at a layer's attention."""
        bank = self.attachment.bank
        return 0 if bank is None or layer not in bank.layers or bank.kind != "key-value" else len(bank)

    def adapts(self, layer: int) -> bool:
        """Whether LoRA blocks change projections of a layer."""
        bank = self.attachment.bank
        return bank is not None and bank.kind == "lora" and layer in bank.layers

    def _embed(self, stream: Tensor, hook: Any) -> Tensor:
        stream = (stream if self.embedding is None else self.embedding).detach()
        self.record.embedding = stream.requires_grad_(self.differentiable)
        return stream

    def _attention_stream(self, stream: Tensor, hook: Any, layer: int) -> None:
        self.record.attention_stream[layer] = stream
        self.record.mlp_stream[layer] = stream

    def _mlp_stream(self, stream: Tensor, hook: Any, layer: int) -> None:
        self.record.mlp_stream[layer] = stream

    def _query(self, query: Tensor, hook: Any, layer: int) -> Tensor:
        query = self._change(layer, "query", query)
        own, memory = self.read_queries(layer, query)
        self.record.query[layer] = own
        if memory is not None:
            self.record.memory_query[layer] = memory
        if self._count_learned(layer):
            self.record.learned_query[layer] = self.read_learned_queries(layer, own)
        return own

    def _key(self, key: Tensor, hook: Any, layer: int) -> Tensor:
        self.record.key[layer] = self.read_keys(layer, self._change(layer, "key", key))
        return self.record.key[layer]

    def _value(self, value: Tensor, hook: Any, layer: int) -> Tensor:
        self.record.value[layer] = self.read_values(layer, self._change(layer, "value", value))
        return self.record.value[layer]

    def _cos(self, angles: Tensor, hook: Any, layer: int) -> None:
        self._angles[layer, "cos"] = angles

    def _sin(self, angles: Tensor, hook: Any, layer: int) -> None:
        self._angles[layer, "sin"] = angles

    def _scores(self, scores: Float[Tensor, "batch head query_pos key_pos"], hook: Any, layer: int) -> None:
        self._context_total = torch.logsumexp(scores, dim=-1).transpose(1, 2)

    def _pattern(self, pattern: Tensor, hook: Any, layer: int) -> None:
        self.record.pattern[layer] = pattern

    def _z(self, z: Float[Tensor, "batch pos head d_head"], hook: Any, layer: int) -> Tensor:
        index = self._memory_layer(layer)
        if index is not None:
            z = self._merge(z, layer, index)
        else:
            self.record.context_read[layer] = z
        if self._count_learned(layer):
            self.record.learned_read[layer] = self._read_learned(layer)
            z = z + self.record.learned_read[layer].sum(dim=3)
        self._heads = z
        self.end_attention(layer)
        return z

    def _read_learned(self, layer: int) -> Float[Tensor, "batch pos head level d_head"]:
        bank, queries = self.attachment.bank, self.address(layer, self.record.learned_query[layer])
        assert bank is not None
        reads = []
        for level, query in enumerate(queries.unbind(3)):
            key, value = (bank.pick(name, level, layer).to(query.dtype) for name in ("key", "value"))
            reads.append(read_learned(query, key, value))
        return torch.stack(reads, dim=3)

    def address(
        self, layer: int, query: Float[Tensor, "batch pos head level d_head"]
    ) -> Float[Tensor, "batch pos head level d_head"]:
        """Queries as learned key-values are read with: behind the model's norm on queries, not turned."""
        norm = self.model.weights[layer].query_norm
        return query if norm is None else norm.apply(query)

    def _attention_input(self, x: Tensor, hook: Any, layer: int) -> None:
        self._normed_stream = x

    def _change(self, layer: int, target: str, output: Tensor) -> Tensor:
        """Output of an attention projection [batch pos head d_head] with what LoRA blocks add to it."""
        if not self.adapts(layer):
            return output
        assert self._normed_stream is not None
        added = self._sum_changes(layer, target, self._normed_stream)
        return output if added is None else output + added.view_as(output)

    def _attention_output(self, output: Tensor, hook: Any, layer: int) -> Tensor:
        assert self._heads is not None
        added = self._sum_changes(layer, "output", self._heads.flatten(2))
        return output if added is None else output + added

    def _change_input(self, output: Tensor, hook: Any, layer: int, target: str) -> Tensor:
        added = self._sum_changes(layer, target, self.record.mlp_input[layer])
        return output if added is None else output + added

    def _see_units(self, units: Tensor, hook: Any, layer: int) -> None:
        self._units_now = units

    def _change_output(self, output: Tensor, hook: Any, layer: int) -> Tensor:
        assert self._units_now is not None
        added = self._sum_changes(layer, "down", self._units_now)
        return output if added is None else output + added

    def _sum_changes(self, layer: int, target: str, x: Float[Tensor, "batch pos _"]) -> Tensor | None:
        """What the LoRA blocks of all levels add to a projection's output; None where they do not change it."""
        bank = self.attachment.bank
        assert bank is not None
        if f"{target}.in" not in bank.weights:
            return None
        added = []
        for level in range(len(bank)):
            into, out = (bank.pick(f"{target}.{end}", level, layer).to(x.dtype) for end in ("in", "out"))
            added.append(change_projection(x, into, out, bank.factor))
        return torch.stack(added).sum(dim=0)

    def _merge(self, z: Float[Tensor, "batch pos head d_head"], layer: int, index: int) -> Tensor:
        explicit, form = self.attachment.explicit, self.model.attention
        assert explicit is not None and form is not None and self._context_total is not None
        record, batch = self.record, z.shape[0]
        query = self._turn(record.memory_query[layer], layer)
        keys = explicit.keys[:, index].expand(batch, *explicit.keys.shape[2:])
        values = explicit.values[:, index].expand(batch, *explicit.values.shape[2:])
        scores = score_slots(query, keys.to(query.dtype), form.scale, form.soft_cap)
        absent = explicit.absent[:, index].repeat_interleave(self.model.heads // self.model.kv_heads, dim=2)
        scores = scores.masked_fill(absent.transpose(1, 2)[:, None], ABSENT)
        share, weights = share_attention(scores, self._context_total)
        record.context_read[layer] = z * share[..., None]
        record.memory_read[layer] = read_slots(weights, values.to(weights.dtype))
        record.share[layer], record.slot_weights[layer] = share, weights
        return record.context_read[layer] + record.memory_read[layer].sum(dim=3)

    def _turn(self, query: Float[Tensor, "batch pos head block d_head"], layer: int) -> Tensor:
        """Queries as the model itself would turn them: norm on queries where there is one, then rotary."""
        norm = self.model.weights[layer].query_norm
        if norm is not None:
            query = norm.apply(query)
        flat = query.flatten(2, 3)
        return rotate(flat, self._angles[layer, "cos"], self._angles[layer, "sin"]).view_as(query)

    def _mlp_input(self, x: Tensor, hook: Any, layer: int) -> Tensor:
        # A view of its own: attention may read the same normed stream (GPT-J, Phi), and gradients must not mix.
        self.record.mlp_input[layer], self.record.bank_input[layer] = self.read_mlp(layer, x.view_as(x))
        return self.record.mlp_input[layer]

    def _route(self, weights: Float[Tensor, "token expert"], hook: Any, layer: int) -> None:
        self._routing = weights

    def _mlp_output(self, own: Tensor, hook: Any, layer: int) -> Tensor:
        self.record.mlp_output[layer] = own
        if (experts := self.model.weights[layer].experts) is not None:
            assert self._routing is not None
            weights = self._routing.view(*own.shape[:2], len(experts))
            self.record.expert_output[layer] = experts.write(self.record.mlp_input[layer], weights)
        self.record.bank_output[layer] = [
            self._read_bank(layer, level, x) for level, x in enumerate(self.record.bank_input[layer])
        ]
        self.end_layer(layer)
        return own + sum(self.record.bank_output[layer]) if self.record.bank_output[layer] else own

    def fire_bank(self, layer: int, level: int, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos _"]:
        """Activations of a bank block's units."""
        bank = self.attachment.bank
        assert bank is not None
        gate, up = (bank.pick(name, level, layer).to(x.dtype) for name in ("gate", "up"))
        return fire_units(x, gate, up)

    def _read_bank(self, layer: int, level: int, x: Float[Tensor, "batch pos d_model"]) -> Tensor:
        bank = self.attachment.bank
        assert bank is not None
        down = bank.pick("down", level, layer).to(x.dtype)
        return write_units(self.fire_bank(layer, level, x), down)

    def _final(self, stream: Tensor, hook: Any) -> Tensor:
        self.record.final_stream = self.read_final(stream)
        return self.record.final_stream

    def _keep_ends(self, stream: Tensor, hook: Any) -> Tensor:
        assert self.ends is not None
        ends = self.ends.to(stream.device).repeat(stream.shape[0] // self.ends.shape[0], 1)
        return stream.gather(1, ends.unsqueeze(-1).expand(-1, -1, stream.shape[-1]))
