"""Explicit memories as values: what is kept of a reference, and how it is fetched for a prompt.

A reference of up to 128 tokens is encoded alone behind a prefix; at each memory layer every key-value head keeps the
few tokens that receive most attention (`probes/slots.py`). Keys are kept after rotary, at the positions of the
reference, and turned at fetching so that the reference lies `offset` positions before the context: all memories share
the same interval of positions (Yang et al. 2024, section 3.2). Unlike the paper, the prefix's own key-values are not
put before the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.attachments import ExplicitBlocks
from probes.errors import UserError
from probes.models import Model
from probes.slots import shift_keys

REFERENCE_LENGTH = 128

# Parallel: every memory lies the same distance before the context (the paper). Written: keys keep the learned positions
# they were written at, from 0 on like the context's own; nothing says to the model that they come before it.
Positions = Literal["parallel", "written"]


@dataclass(frozen=True, slots=True)
class ExplicitMemories:
    """Memories of one model: `ids` in row order, keys after rotary, kept token indices in `positions` (-1: absent)."""

    ids: tuple[str, ...]
    layers: tuple[int, ...]
    offset: int
    prefix: str
    sha256: str
    keys: Float[Tensor, "memory layer kv_head slot d_head"]
    values: Float[Tensor, "memory layer kv_head slot d_head"]
    positions: Int[Tensor, "memory layer kv_head slot"]

    @property
    def slots(self) -> int:
        """Tokens kept per key-value head."""
        return int(self.positions.shape[-1])

    def __contains__(self, memory_id: object) -> bool:
        """Whether there is a memory of this id."""
        return memory_id in self.ids

    def select(self, ids: tuple[str, ...]) -> ExplicitMemories:
        """The memories of these ids, in this order. Raises UserError when there is none of an id."""
        rows = torch.tensor([find_row(self.ids, name) for name in ids], dtype=torch.long)
        return replace(self, ids=ids, keys=self.keys[rows], values=self.values[rows], positions=self.positions[rows])


@runtime_checkable
class MemorySource(Protocol):
    """Where explicit memories come from: those of `ExplicitMemories` in memory, or a bank on disk."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Memory layers."""
        ...

    @property
    def offset(self) -> int:
        """Positions from a memory's start to the context that reads it."""
        ...

    @property
    def prefix(self) -> str:
        """Text before every reference when it was written."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the contents."""
        ...

    @property
    def slots(self) -> int:
        """Tokens kept per key-value head."""
        ...

    def __contains__(self, memory_id: object) -> bool:
        """Whether there is a memory of this id."""
        ...

    def select(self, ids: tuple[str, ...]) -> ExplicitMemories:
        """The memories of these ids, in this order. Raises UserError when there is none of an id."""
        ...


def find_row(ids: tuple[str, ...], memory_id: str) -> int:
    """Row of a memory. Raises UserError when there is none of that id."""
    if memory_id not in ids:
        raise UserError(f"no explicit memory {memory_id[:80]!r} in this bank of {len(ids)}")
    return ids.index(memory_id)


def encode_reference(tokenizer: Any, prefix: str, text: str, limit: int = REFERENCE_LENGTH) -> tuple[list[int], int]:
    """Token ids of a reference behind its prefix, cut at `limit`, and the index of the text's first token."""
    head = list(tokenizer(prefix)["input_ids"])
    body = list(tokenizer(" " + text.strip(), add_special_tokens=False)["input_ids"])
    return (head + body)[:limit], len(head)


def require_attention(model: Model, positions: Positions | None = None) -> None:
    """Raise UserError for a model whose attention cannot read memories, or not at such positions (None: any)."""
    if model.attention is None:
        raise UserError(
            f"{model.name} ({model.architecture}) has attention that explicit memories cannot join (its scores are no "
            "plain products of queries and keys): use --memory none, or put the text in the prompt"
        )
    if positions == "parallel" and not model.attention.rotary:
        raise UserError(
            f"{model.name} ({model.architecture}) has learned absolute positions, no plain rotary attention: they "
            "are in its keys and cannot be moved to parallel ones before the context. --positions written keeps keys "
            "at the positions they were written at, the same as the context's; or put the text in the prompt"
        )
    if positions == "written" and model.attention.rotary:
        raise UserError(f"{model.name} has rotary positions, so its keys can be moved: use --positions parallel")


def fetch_memories(memories: MemorySource, model: Model, ids: tuple[str, ...]) -> ExplicitBlocks:
    """Memories of these ids, keys turned to lie `offset` positions before the context, ready to attach."""
    return turn_memories(memories.select(ids), model)


def fetch_memory_rows(memories: MemorySource, model: Model, rows: Sequence[tuple[str, ...]]) -> ExplicitBlocks:
    """Memories of several prompts, a row each with as many as any other, as `fetch_memories`."""
    every = tuple(dict.fromkeys(name for row in rows for name in row))
    turned = fetch_memories(memories, model, every)
    places = torch.tensor([[every.index(name) for name in row] for row in rows], device=turned.keys.device)

    def spread(part: Tensor) -> Tensor:
        return part[0][:, places].transpose(0, 1).contiguous()

    keys, values, absent = (spread(part) for part in (turned.keys, turned.values, turned.absent))
    return replace(turned, ids=rows[0], keys=keys, values=values, absent=absent)


def turn_memories(memories: ExplicitMemories, model: Model) -> ExplicitBlocks:
    """All of these memories, keys turned to lie `offset` positions before the context, ready to attach.

    Keys of a model that turns nothing stay as they were written.
    """
    require_attention(model)
    assert model.attention is not None
    keys = memories.keys.to(model.device)
    turned = [
        shift_keys(keys[:, index], model.attention.frequencies[layer].to(model.device), -float(memories.offset))
        for index, layer in enumerate(memories.layers)
    ]
    return ExplicitBlocks(
        ids=memories.ids,
        layers=memories.layers,
        keys=torch.stack(turned)[None],
        values=memories.values.to(model.device).transpose(0, 1)[None],
        absent=(memories.positions.to(model.device) < 0).transpose(0, 1)[None],
    )
