"""Adding to and taking from a bank on disk, so that it is whole at any moment, whatever stops the work.

A part's two files are written first, each under a temporary name, synced and renamed; then the head that names them
replaces the old one in one step. Whatever a stopped write leaves is not in the bank, and the next write removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save
from torch import Tensor

from probes.codebooks import CODEBOOKS
from probes.errors import UserError
from probes.memory_bank import PRECISIONS, MemoryBank, open_bank, read_rows
from probes.memory_format import ENTRIES, HEAD, Head, Part, drop_rows, read_entries
from workbench.storage import make_folder, write_file

# Largest size of a part's tensors, in bytes: what is held in memory while writing is a few times this.
SHARD_BYTES = 64 * 2**20
# Names that only a bank's own writing makes: parts, codebooks, and temporary files of these and the head.
FILES = r"part-\d{6,}\.(safetensors|parquet)|codebooks\.safetensors"
OWN = re.compile(rf"({FILES}|\.({FILES}|memory\.json)\..+)")

Memory = tuple[dict[str, Any], Tensor, Tensor, Tensor]


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a bank for writing. Raises UserError when another process writes to it, or the folder is read-only."""
    try:
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another process writes to {folder}: wait for it to end") from None
    finally:
        os.close(handle)


def prepare_folder(folder: Path) -> None:
    """Make the folder of a new bank. Raises UserError when it holds anything but a bank or what one left behind."""
    make_folder(folder)
    names = [path.name for path in folder.iterdir()]
    if HEAD not in names and any(name != ".lock" and not OWN.fullmatch(name) for name in names):
        raise UserError(f"{folder} holds other files and no bank: choose another folder for the bank")


def remove_leftovers(folder: Path, head: Head) -> list[str]:
    """Remove files of writes that never ended, and of parts that are in the bank no more; their names."""
    named = {name for part in head.parts for name in (part.shard, part.entries)} | ({CODEBOOKS} if head.code else set())
    found = sorted(path.name for path in folder.iterdir() if OWN.fullmatch(path.name) and path.name not in named)
    for name in found:
        (folder / name).unlink()
    return found


class BankWriter:
    """Adds memories to a bank, part by part; each part is in the bank, durably, once `commit` has returned.

    Open it with `lock_folder` held. `count` memories are in the bank by now, `leftovers` were removed at the start.
    """

    def __init__(self, folder: Path, head: Head, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = folder
        self.head = head
        self.leftovers = remove_leftovers(folder, head)
        size = 2 * torch.Size(head.stored_shape).numel() * choose_type(head).itemsize
        self.rows_a_part = max(1, shard_bytes // size)
        self.waiting: list[Memory] = []

    def add(self, memory: Memory) -> None:
        """Take one memory: its entry, keys, values and positions. A full part is committed."""
        self.waiting.append(memory)
        if len(self.waiting) >= self.rows_a_part:
            self.commit()

    def commit(self) -> None:
        """Write what waits as one part and put it into the bank. Raises UserError when the disk refuses."""
        if not self.waiting and (self.folder / HEAD).is_file():
            return
        parts = self.head.parts
        if self.waiting:
            part = write_part(self.folder, self.head, self.waiting)
            parts = (*parts, part)
        head = replace(self.head, parts=parts, next_part=self.head.next_part + 1)
        write_file(self.folder / HEAD, head.to_bytes())
        self.head, self.waiting = head, []


def choose_type(head: Head) -> torch.dtype:
    """Type of the keys and values in a bank's shards."""
    return torch.uint8 if head.code else PRECISIONS[head.precision]


def write_part(folder: Path, head: Head, memories: Sequence[Memory]) -> Part:
    """Write the two files of the next part. Raises UserError when the disk refuses."""
    entries, *tensors = zip(*memories, strict=True)
    keys, values, positions = map(torch.stack, tensors)
    return write_tables(folder, head, pa.Table.from_pylist(list(entries), schema=ENTRIES), keys, values, positions)


def write_tables(folder: Path, head: Head, entries: pa.Table, keys: Tensor, values: Tensor, positions: Tensor) -> Part:
    """Write the two files of the next part, a row a memory. Raises UserError when the disk refuses."""
    kind = choose_type(head)
    shard = save(
        {
            "keys": keys.to("cpu", kind).contiguous(),
            "values": values.to("cpu", kind).contiguous(),
            "positions": positions.to("cpu", torch.int32).contiguous(),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(entries, sink, compression="zstd")
    table = sink.getvalue().to_pybytes()
    hashes = hashlib.sha256(shard).hexdigest(), hashlib.sha256(table).hexdigest()
    part = Part(f"part-{head.next_part:06d}", entries.num_rows, *hashes)
    write_file(folder / part.shard, shard)
    write_file(folder / part.entries, table)
    return part


def require_writable(bank: MemoryBank) -> None:
    """Raise UserError for a bank of version 1."""
    if bank.head.version == 1:
        raise UserError(f"{bank.folder} is a bank of version 1, which is read but not changed: write a new one")


def delete_memories(folder: Path, ids: Sequence[str], documents: Sequence[str] = (), compact: bool = False) -> int:
    """Delete memories by id and by document, and return how many; with `compact` their bytes leave the disk too.

    Raises UserError, before anything is deleted, for an id or document that is not there.
    """
    require_writable(open_bank(folder))
    with lock_folder(folder):
        bank = open_bank(folder)
        rows: dict[str, set[int]] = {part.name: set() for part in bank.head.parts}
        for name in ids:
            part, row = bank.locate(name)
            rows[part.name].add(row)
        for document in documents:
            find_document(bank, document, rows)
        head = replace(bank.head, parts=tuple(drop_rows(part, sorted(rows[part.name])) for part in bank.head.parts))
        write_file(folder / HEAD, head.to_bytes())
        if compact:
            head = compact_parts(folder, head)
            remove_leftovers(folder, head)
    return sum(map(len, rows.values()))


def find_document(bank: MemoryBank, document: str, rows: dict[str, set[int]]) -> None:
    """Add the rows of a document to `rows`. Raises UserError when the bank has none."""
    before = sum(map(len, rows.values()))
    for part in bank.head.parts:
        names = read_entries(bank.folder, part, ["document"]).column("document").to_pylist()
        rows[part.name] |= {row for row, name in enumerate(names) if name == document} - set(part.deleted)
    if sum(map(len, rows.values())) == before:
        raise UserError(f"no memory of a document {document[:80]!r} in this bank: `memory list` shows what it holds")


def compact_parts(folder: Path, head: Head) -> Head:
    """Write parts with deleted rows anew without these, and replace the head once."""
    parts: list[Part] = []
    number = head.next_part
    for part in head.parts:
        kept = [row for row in range(part.rows) if row not in set(part.deleted)]
        if len(kept) == part.rows:
            parts.append(part)
        elif kept:
            entries = read_entries(folder, part).to_pylist()
            memories = [(entries[row], *read_rows(folder, head, part, row)) for row in kept]
            parts.append(write_part(folder, replace(head, next_part=number), memories))
            number += 1
    head = replace(head, parts=tuple(parts), next_part=number)
    write_file(folder / HEAD, head.to_bytes())
    return head
