"""Writing explicit memories: references in batches through the model, the most attended tokens of each kept.

Numbered as it happens: (1) references are filled up to one length on the right, which no earlier token can see;
(2) one forward pass up to the deepest memory layer; at each memory layer, as soon as its states are there, tokens are
scored before rotary and without a mask, and the best kept (`probes/slots.py`); (3) nothing else of the pass is held.
Source: Yang et al. 2024, sections 3.2 and 3.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.errors import UserError
from probes.explicit import REFERENCE_LENGTH, ExplicitMemories, Positions, encode_reference, require_attention
from probes.models import Hook, Model, name_hook
from probes.slots import Pooling, Scoring, gather_slots, keep_slots, measure_received_attention, rotate

STATES, ANGLES = ("hook_q", "hook_k", "hook_v"), ("hook_cos", "hook_sin")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How memories are written: memory layers, tokens kept a key-value head, and how tokens are scored.

    `offset` is the distance in positions from a memory's start to the context that reads it. With learned positions
    (`written`) there is no such distance, and positions are in what tokens are scored by.
    """

    layers: tuple[int, ...]
    slots: int = 8
    offset: int = REFERENCE_LENGTH
    prefix: str = "Reference:"
    scoring: Scoring = "softmax"
    pooling: Pooling = "sum"
    positions: Positions = "parallel"

    def limit_tokens(self, model: Model) -> int:
        """Most tokens of a reference, its prefix counted."""
        return min(REFERENCE_LENGTH, self.offset, model.context)

    def check(self, model: Model) -> None:
        """Raise UserError for a model that cannot read memories so, absent layers, or no slot."""
        require_attention(model, self.positions)
        if not self.layers or any(not 0 <= layer < model.layers for layer in self.layers):
            raise UserError(f"memory layers {self.layers} are not all in 0..{model.layers - 1}")
        if not 1 <= self.slots <= REFERENCE_LENGTH:
            raise UserError(f"{self.slots} slots: a memory keeps 1 to {REFERENCE_LENGTH} tokens a key-value head")
        if self.offset < 1:
            raise UserError(f"the offset is {self.offset}: a memory lies 1 position or more before its context")


def list_states(model: Model) -> tuple[str, ...]:
    """Hook points whose states writing needs: angles where there are any."""
    return (*STATES, *ANGLES) if model.attention is not None and model.attention.rotary else STATES


def choose_first_half(model: Model) -> tuple[int, ...]:
    """Memory layers when none are named: the first half of the model, the paper's choice (section 3.3)."""
    return tuple(range(max(1, model.layers // 2)))


@dataclass(slots=True)
class WritingPass:
    """One forward pass that keeps, layer by layer, the states of the most attended tokens and drops the rest."""

    model: Model
    recipe: Recipe
    valid: Bool[Tensor, "batch pos"]
    seen: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    kept: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def list_hooks(self) -> list[Hook]:
        """Hooks on the states of the memory layers, and one that leaves one position to the unembedding, if reached."""
        hooks: list[Hook] = [
            (name_hook(layer, f"attn.{point}"), partial(self.collect, layer=layer, point=point))
            for layer in self.recipe.layers
            for point in list_states(self.model)
        ]
        return [*hooks, ("unembed.hook_in", self.skip_logits)]

    def collect(self, tensor: Tensor, hook: object, layer: int, point: str) -> None:
        """Take one state; with the last of a layer, choose and keep its tokens."""
        states = self.seen.setdefault(layer, {})
        states[point] = tensor
        if len(states) == len(list_states(self.model)):
            self.kept[layer] = keep_tokens(self.model, self.recipe, layer, self.seen.pop(layer), self.valid)

    def skip_logits(self, stream: Tensor, hook: object) -> Tensor:
        """Writing reads no logits."""
        return stream[:, :1]


def keep_tokens(
    model: Model, recipe: Recipe, layer: int, states: dict[str, Tensor], valid: Bool[Tensor, "batch pos"]
) -> tuple[
    Float[Tensor, "batch kv_head slot d_head"],
    Float[Tensor, "batch kv_head slot d_head"],
    Int[Tensor, "batch kv_head slot"],
]:
    """Keys after rotary, values and positions of the kept tokens of one layer, in order of position.

    Slots that a short reference cannot fill come last, with position -1 and zeros.
    """
    assert model.attention is not None
    weights = model.weights[layer]
    query = states["hook_q"] if weights.query_norm is None else weights.query_norm.apply(states["hook_q"])
    key = states["hook_k"] if weights.key_norm is None else weights.key_norm.apply(states["hook_k"])
    received = measure_received_attention(query, key, valid, model.attention.scale, recipe.scoring, recipe.pooling)
    missing = recipe.slots - received.shape[-1]
    chosen = keep_slots(received, recipe.slots)
    chosen = chosen.masked_fill(received.gather(-1, chosen).isinf(), valid.shape[1]).sort(dim=-1).values
    if missing > 0:
        chosen = torch.nn.functional.pad(chosen, (0, missing), value=valid.shape[1])
    absent = chosen == valid.shape[1]
    index = chosen.masked_fill(absent, 0)
    turned = rotate(key, states["hook_cos"], states["hook_sin"]) if model.attention.rotary else key
    keys, values = (
        gather_slots(tensor, index).masked_fill(absent[..., None], 0.0) for tensor in (turned, states["hook_v"])
    )
    return keys, values, chosen.masked_fill(absent, -1).to(torch.int32)


def write_batch(
    model: Model, recipe: Recipe, references: Sequence[Sequence[int]], first: int
) -> tuple[
    Float[Tensor, "memory layer kv_head slot d_head"],
    Float[Tensor, "memory layer kv_head slot d_head"],
    Int[Tensor, "memory layer kv_head slot"],
]:
    """Keys, values and kept positions of references given as token ids, whose text begins at token `first`."""
    lengths = torch.tensor([len(ids) for ids in references])
    positions = torch.arange(int(lengths.max()))
    # Any token will do as filling: it is behind every valid one and no score counts it.
    tokens = torch.zeros(len(references), len(positions), dtype=torch.long)
    for row, ids in enumerate(references):
        tokens[row, : len(ids)] = torch.tensor(ids)
    valid = (positions >= first) & (positions < lengths[:, None])
    run = WritingPass(model, recipe, valid.to(model.device))
    with torch.no_grad():
        model.run_until(tokens, run.list_hooks(), max(recipe.layers) + 1)
    keys, values, kept = (
        torch.stack(parts, dim=1) for parts in zip(*[run.kept[layer] for layer in recipe.layers], strict=True)
    )
    return keys, values, kept


def write_memories(
    model: Model,
    texts: dict[str, str],
    layers: tuple[int, ...] | None = None,
    slots: int = 8,
    offset: int = REFERENCE_LENGTH,
    prefix: str = "Reference:",
    scoring: Scoring = "softmax",
    pooling: Pooling = "sum",
    batch: int = 16,
    positions: Positions = "parallel",
) -> ExplicitMemories:
    """Write one memory a text, cut at 128 tokens; `layers` defaults to the first half of the model.

    Raises UserError for a model that cannot read memories at such positions, an empty text, or an absent layer.
    """
    chosen = choose_first_half(model) if layers is None else layers
    recipe = Recipe(chosen, slots, offset, prefix, scoring, pooling, positions)
    recipe.check(model)
    references, first = [], 0
    for name, text in texts.items():
        ids, first = encode_reference(model.tokenizer, prefix, text, recipe.limit_tokens(model))
        if len(ids) <= first:
            raise UserError(f"the reference {name[:80]!r} is empty: give it some text")
        references.append(ids)
    parts = [
        write_batch(model, recipe, references[start : start + batch], first)
        for start in range(0, len(references), batch)
    ]
    keys, values, kept = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return ExplicitMemories(tuple(texts), recipe.layers, offset, prefix, hash_memories(keys), keys, values, kept)


def hash_memories(keys: Tensor) -> str:
    """SHA-256 of the keys of memories that were written here and not loaded."""
    return hashlib.sha256(keys.detach().float().cpu().numpy().tobytes()).hexdigest()
