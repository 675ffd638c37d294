"""Format of a bank of explicit memories on disk: a head that names parts, each a shard of tensors and its entries.

`memory.json` is the head and the only file that is ever replaced; a file that it does not name is not in the bank.
Each part is `part-NNNNNN.safetensors` (keys and values [memory layer kv_head slot d_head], positions [memory layer
kv_head slot], -1 where a slot is empty) and `part-NNNNNN.parquet` (one entry a memory, in the order of the rows). Part
numbers are never used twice. In a compressed bank (`code` in the head) keys and values are bytes [memory layer kv_head
slot byte] that `codebooks.safetensors` turns back into numbers (`probes/codebooks.py`). Version 1, one
`memories.safetensors` with the ids in the head, is read, not written.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from probes.codes import Code, read_code
from probes.descriptions import open_seal, read_description, seal_description
from probes.errors import UserError
from probes.explicit import Positions
from probes.parquet_tables import read_table

FORMAT = "memory-circuits/explicit-memory"
VERSION = 2
HEAD = "memory.json"
# Numbers that the keys of one memory may have: more than any model's.
MOST_NUMBERS = 1 << 32
# Characters of an id in a head: more is no name, and would be told in every line about its memory.
LONGEST_ID = 10_000
PRECISIONS = ("float32", "bfloat16", "float16")
# Columns of a part's entries: `start` and `end` are characters of the document, `token_starts` characters of the text.
ENTRIES = pa.schema(
    [
        ("id", pa.string()),
        ("document", pa.string()),
        ("chunk", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.string()),
        ("sha256", pa.string()),
        ("token_starts", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bank: how many memories, the SHA-256 of its two files, and rows that were deleted."""

    name: str
    rows: int
    shard_sha256: str = ""
    entries_sha256: str = ""
    deleted: tuple[int, ...] = ()

    @property
    def shard(self) -> str:
        """File of the tensors."""
        return f"{self.name}.safetensors"

    @property
    def entries(self) -> str:
        """File of the entries."""
        return f"{self.name}.parquet"


@dataclass(frozen=True, slots=True)
class Head:
    """What a bank says of itself: how its memories were written, by which model, and its parts in order.

    `first_token` is the index of a reference's first token of text, behind the prefix. `code` names the vector
    quantisation of a compressed bank ("" where there is none); `precision` is what it was compressed from.
    """

    version: int
    model_sha256: str
    layers: tuple[int, ...]
    kv_heads: int
    slots: int
    d_head: int
    offset: int
    prefix: str
    scoring: str
    pooling: str
    precision: str
    first_token: int
    next_part: int
    positions: Positions = "parallel"
    parts: tuple[Part, ...] = ()
    ids: tuple[str, ...] = ()
    code: str = ""
    codebooks_sha256: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one memory's keys: layer, kv_head, slot, d_head."""
        return len(self.layers), self.kv_heads, self.slots, self.d_head

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one memory's keys as they lie in a shard: a compressed vector is bytes."""
        return (*self.shape[:-1], self.read_code().bytes) if self.code else self.shape

    def read_code(self) -> Code:
        """The code of a compressed bank. Raises UserError when this release does not know it."""
        return read_code(self.code, self.d_head)

    def to_bytes(self) -> bytes:
        """The head as it lies in its file."""
        about = asdict(self)
        del about["ids"]
        about["format"] = FORMAT
        return seal_description(about)


def read_head(folder: Path) -> Head:
    """Head of a bank. Raises UserError when it is missing, damaged, or of a version that this release cannot read."""
    path = folder / HEAD
    about = read_description(path, FORMAT, (1, VERSION))
    try:
        return parse_first_version(about) if about["version"] == 1 else parse_head(about)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is not a whole head of a bank ({type(error).__name__}: {line})") from None


def parse_head(about: dict[str, Any]) -> Head:
    """Head from its JSON object. Raises KeyError, TypeError or ValueError when it is none."""
    open_seal(about)
    parts = []
    for part in about["parts"]:
        name = str(part["name"])
        if not name.startswith("part-") or not name.removeprefix("part-").isdigit():
            raise ValueError(f"no part is called {name[:40]!r}")
        rows, deleted = int(part["rows"]), tuple(int(row) for row in part["deleted"])
        if any(not 0 <= row < rows for row in deleted):
            raise ValueError(f"{name} has deleted rows that it does not have")
        parts.append(Part(name, rows, str(part["shard_sha256"]), str(part["entries_sha256"]), deleted))
    head = Head(
        version=VERSION,
        model_sha256=str(about["model_sha256"]),
        layers=tuple(int(layer) for layer in about["layers"]),
        kv_heads=int(about["kv_heads"]),
        slots=int(about["slots"]),
        d_head=int(about["d_head"]),
        offset=int(about["offset"]),
        prefix=str(about["prefix"]),
        scoring=str(about["scoring"]),
        pooling=str(about["pooling"]),
        precision=str(about["precision"]),
        first_token=int(about["first_token"]),
        next_part=int(about["next_part"]),
        positions=read_positions(about.get("positions", "parallel")),
        parts=tuple(parts),
        code=str(about.get("code", "")),
        codebooks_sha256=str(about.get("codebooks_sha256", "")),
    )
    if head.precision not in PRECISIONS:
        raise ValueError(f"no numbers are called {head.precision[:40]!r}")
    if not 0 <= math.prod(head.shape) <= MOST_NUMBERS or min(head.shape) < 0:
        raise ValueError(f"no memory has keys of shape {head.shape}")
    if head.code:
        head.read_code()
    return head


def read_positions(name: object) -> Positions:
    """Positions of a head. Raises ValueError for others than there are."""
    if name == "parallel":
        return "parallel"
    if name == "written":
        return "written"
    raise ValueError(f"no positions are called {str(name)[:40]!r}")


def parse_first_version(about: dict[str, Any]) -> Head:
    """Head of a version 1 bank; its shape may be known from its shard alone (0 here)."""
    ids = tuple(str(name) for name in about["ids"])
    for name in ids:
        if len(name) > LONGEST_ID:
            raise ValueError(f"an id has {len(name):,} characters, more than {LONGEST_ID:,}")
        # Half a character, which no table can hold.
        name.encode()
    return Head(
        version=1,
        model_sha256=str(about["model_sha256"]),
        layers=tuple(int(layer) for layer in about["layers"]),
        kv_heads=int(about.get("kv_heads", 0)),
        slots=int(about.get("slots", 0)),
        d_head=int(about.get("d_head", 0)),
        offset=int(about["offset"]),
        prefix=str(about["prefix"]),
        scoring=str(about.get("scoring", "softmax")),
        pooling=str(about.get("pooling", "sum")),
        precision="",
        first_token=0,
        next_part=0,
        parts=(Part("memories", len(ids)),),
        ids=ids,
    )


def drop_rows(part: Part, rows: list[int]) -> Part:
    """Part with these rows deleted too."""
    return replace(part, deleted=tuple(sorted({*part.deleted, *rows})))


def read_ids(folder: Path, head: Head) -> pa.ChunkedArray:
    """Ids of all rows in order; null where a row was deleted. Raises UserError for entries that cannot be read."""
    chunks = [pa.array(head.ids, pa.string())] if head.version == 1 else []
    for part in head.parts if head.version > 1 else ():
        ids = read_entries(folder, part, ["id"]).column("id").combine_chunks()
        gone = set(part.deleted)
        chunks.append(
            pa.array([None if row in gone else name for row, name in enumerate(ids.to_pylist())], pa.string())
            if gone
            else ids
        )
    return pa.chunked_array(chunks, pa.string())


def read_entries(folder: Path, part: Part, columns: list[str] | None = None) -> pa.Table:
    """Entries of a part, all rows. Raises UserError when the file is damaged or has another number of rows."""
    path = folder / part.entries
    try:
        table = read_table(path, columns)
        table.validate(full=True)
        for name in {*table.column_names, *(columns or ())} & {*ENTRIES.names}:
            if table.schema.field(name).type not in (ENTRIES.field(name).type, pa.null()):
                raise KeyError(f"{name} is {table.schema.field(name).type}")
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is damaged or missing ({line}): write the bank again") from None
    if table.num_rows != part.rows:
        raise UserError(f"{path} has {table.num_rows} entries and the head promises {part.rows}")
    return table
