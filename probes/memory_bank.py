"""A bank of explicit memories read from disk: only the rows that are asked for, through memory-mapped shards.

A compressed bank reads like any other: vectors are decoded as they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from probes.codebooks import CODEBOOKS, SIDES, Codebooks, open_codebooks
from probes.descriptions import hash_file, require_model
from probes.errors import UserError
from probes.explicit import ExplicitMemories, require_attention
from probes.memory_format import HEAD, Head, Part, read_entries, read_head, read_ids
from probes.models import Model

TENSORS = ("keys", "values", "positions")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KNOWN = 4096
# The same as safetensors calls them.
STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class MemoryBank:
    """An open bank: its head, the id of every row (null: deleted), and the hash of what it holds.

    `known` holds rows of ids that were asked for or found lately, `KNOWN` at most: to look for one among a million ids
    takes longer than to read it.
    """

    folder: Path
    head: Head
    sha256: str
    ids: pa.ChunkedArray = field(repr=False)
    codebooks: Codebooks | None = field(default=None, repr=False)
    known: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def layers(self) -> tuple[int, ...]:
        """Memory layers."""
        return self.head.layers

    @property
    def offset(self) -> int:
        """Positions from a memory's start to the context that reads it."""
        return self.head.offset

    @property
    def prefix(self) -> str:
        """Text before every reference when it was written."""
        return self.head.prefix

    @property
    def slots(self) -> int:
        """Tokens kept per key-value head."""
        return self.head.slots

    def describe(self) -> dict[str, Any]:
        """How the memories were written and how they are kept, as a JSON object; bytes are of one memory's tensors."""
        head = self.head
        size = head.read_code().bytes if head.code else head.d_head * PRECISIONS[head.precision].itemsize
        return {
            "memories": len(self),
            "layers": list(head.layers),
            "slots": head.slots,
            "offset": head.offset,
            "prefix": head.prefix,
            "scoring": head.scoring,
            "pooling": head.pooling,
            "positions": head.positions,
            "model_sha256": head.model_sha256,
            "compressed": bool(head.code),
            "code": head.code or None,
            "precision": head.precision,
            "bytes_a_vector": size,
            "bytes_a_memory": 2 * torch.Size(head.shape[:-1]).numel() * size,
        }

    def __len__(self) -> int:
        """Number of memories, deleted ones not counted."""
        return len(self.ids) - int(self.ids.null_count)

    def __contains__(self, memory_id: object) -> bool:
        """Whether there is a memory of this id."""
        return isinstance(memory_id, str) and pc.index(self.ids, memory_id).as_py() >= 0

    def locate(self, memory_id: str) -> tuple[Part, int]:
        """Part and row of a memory. Raises UserError when there is none of that id."""
        row = self.known.get(memory_id, -1)
        if row < 0:
            row = pc.index(self.ids, memory_id).as_py()
        if row < 0:
            raise UserError(f"no explicit memory {memory_id[:80]!r} in this bank of {len(self)}")
        self.note({memory_id: row})
        for part in self.head.parts:
            if row < part.rows:
                return part, int(row)
            row -= part.rows
        raise AssertionError("the ids are those of the parts")

    def note(self, rows: dict[str, int]) -> None:
        """Remember the rows of some ids."""
        if len(self.known) + len(rows) > KNOWN:
            self.known.clear()
        self.known.update(rows)

    def select(self, ids: tuple[str, ...]) -> ExplicitMemories:
        """The memories of these ids, in this order, as float32.

        Raises UserError when there is none of an id, or when a shard is damaged.
        """
        rows = [self.decode(*read_rows(self.folder, self.head, *self.locate(name))) for name in ids]
        keys, values, positions = (torch.stack(tensors) for tensors in zip(*rows, strict=True))
        return ExplicitMemories(
            ids, self.layers, self.offset, self.prefix, self.sha256, keys.float(), values.float(), positions
        )

    def decode(self, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and positions of one memory, from what lies in its shard."""
        if self.codebooks is None:
            return keys, values, positions
        keys, values = (
            self.codebooks.decode(side, packed, positions >= 0)
            for side, packed in zip(SIDES, (keys, values), strict=True)
        )
        return keys, values, positions


def read_rows(folder: Path, head: Head, part: Part, row: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and positions of one row as they are stored; nothing else of the shard is read."""
    path = folder / part.shard
    try:
        with safe_open(path, framework="pt") as file:
            check_shard(path, head, part, file)
            keys, values, positions = (file.get_slice(name)[row] for name in TENSORS)
    except (OSError, SafetensorError, KeyError, IndexError) as error:
        raise UserError(f"{path} is damaged ({error}): `memory-circuits memory verify` says what is whole") from None
    return keys, values, positions


def check_shard(path: Path, head: Head, part: Part, file: Any) -> None:
    """Raise UserError unless a shard's tensors have the shapes that the head promises."""
    wanted = (part.rows, *head.stored_shape)
    for name in TENSORS:
        stored = file.get_slice(name)
        shape = tuple(stored.get_shape())
        promised = wanted[:-1] if name == "positions" else wanted
        if shape != promised:
            raise UserError(f"{path} holds {name} of shape {shape} and {HEAD} promises {promised}")
        if name == "positions" and not stored.get_dtype().startswith("I"):
            raise UserError(f"{path} holds {name} as {stored.get_dtype()}, which are no whole numbers")
        if head.code and name != "positions" and stored.get_dtype() != "U8":
            raise UserError(f"{path} holds {name} as {stored.get_dtype()} and a compressed bank has bytes")


def open_bank(folder: Path, model: Model | None = None) -> MemoryBank:
    """Bank in a folder, of this format or of version 1, for use with `model` (None: to look at).

    Raises UserError when it is missing, damaged, of a version to come, or was written by another model.
    """
    head = read_head(folder)
    if head.version == 1:
        head = complete_head(folder, head)
    if model is not None:
        require_attention(model, head.positions)
        require_model(folder, head.model_sha256, model.sha256)
        shape = (model.kv_heads, model.d_head)
        if (head.kv_heads, head.d_head) != shape or any(not 0 <= layer < model.layers for layer in head.layers):
            raise UserError(f"{folder} does not fit the model: it has {shape[0]} key-value heads of width {shape[1]}")
    contents = hash_file(folder / (head.parts[0].shard if head.version == 1 else HEAD))
    codebooks = open_codebooks(folder, head.read_code(), len(head.layers)) if head.code else None
    return MemoryBank(folder, head, contents, read_ids(folder, head), codebooks)


def complete_head(folder: Path, head: Head) -> Head:
    """Head of a version 1 bank with the shape that its shard has."""
    path = folder / head.parts[0].shard
    try:
        with safe_open(path, framework="pt") as file:
            stored = file.get_slice("keys")
            _, _, kv_heads, slots, d_head = stored.get_shape()
            precision = STORED[stored.get_dtype()]
            whole = replace(head, kv_heads=kv_heads, slots=slots, d_head=d_head, precision=precision)
            check_shard(path, whole, head.parts[0], file)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{folder} is not a whole bank of explicit memories ({type(error).__name__}: {error})"
        ) from None
    return whole


def find_faults(folder: Path) -> Iterator[str]:
    """One line for every fault of a bank: head, hashes, shapes, finite values, positions, ids. None: it is whole."""
    try:
        bank = open_bank(folder)
    except UserError as error:
        yield str(error)
        return
    ids = bank.ids.drop_null().to_pylist()
    if len(set(ids)) != len(ids):
        yield f"{folder / HEAD}: {len(ids) - len(set(ids))} ids stand for more than one memory"
    if bank.codebooks is not None:
        yield from find_codebook_faults(folder, bank.head, bank.codebooks)
    for part in bank.head.parts:
        yield from find_part_faults(folder, bank.head, part)


def find_codebook_faults(folder: Path, head: Head, codebooks: Codebooks) -> Iterator[str]:
    """Faults of a compressed bank's codebooks, whose shapes were checked when they were opened."""
    path = folder / CODEBOOKS
    found = hash_file(path)
    if found != head.codebooks_sha256:
        yield f"{path}: its contents are not those that were written (hash {found[:12]})"
    for name, tensor in codebooks.tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            yield f"{path}: {name} are not all finite"


def find_part_faults(folder: Path, head: Head, part: Part) -> Iterator[str]:
    """Faults of one part's two files."""
    if any(not 0 <= row < part.rows for row in part.deleted):
        yield f"{folder / HEAD}: {part.name} has deleted rows that it does not have"
    for name, wanted in ((part.shard, part.shard_sha256), (part.entries, part.entries_sha256)):
        if head.version > 1:
            try:
                found = hash_file(folder / name)
            except OSError as error:
                yield f"{folder / name}: {error.strerror}"
                return
            if found != wanted:
                yield f"{folder / name}: its contents are not those that were written (hash {found[:12]})"
    try:
        if head.version > 1:
            read_entries(folder, part)
        with safe_open(folder / part.shard, framework="pt") as file:
            check_shard(folder / part.shard, head, part, file)
            yield from find_wrong_values(folder / part.shard, file)
    except UserError as error:
        yield str(error)
    except (OSError, SafetensorError, KeyError) as error:
        yield f"{folder / part.shard}: damaged ({error})"


def find_wrong_values(path: Path, file: Any) -> Iterator[str]:
    """Values that are not finite, and positions that no reference has."""
    for name in ("keys", "values"):
        tensor = file.get_tensor(name)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            yield f"{path}: {name} are not all finite"
    if int(file.get_tensor("positions").min()) < -1:
        yield f"{path}: positions below -1"
