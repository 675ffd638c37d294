"""A table in a folder: a head that says what was asked, and Parquet parts that each appear whole or not at all.

Equal rows give equal bytes, and a part's name says which of the work it is, so a table that was stopped anywhere and
gone on with is the one that was never stopped, byte for byte.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.parquet_tables import read_table
from probes.strict_json import parse_json
from workbench.storage import PARTIAL, make_folder, read_bytes, remove_leftovers, tell_removed, write_file

if TYPE_CHECKING:
    import pyarrow as pa

LOCK = ".lock"
REFUSED = "part-refused.parquet"


def name_part(number: int) -> str:
    """File name of a part."""
    return f"part-{number:06d}.parquet"


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of a table that lie together: what is `shared` stands in every one, each of `columns` has a value a row."""

    shared: Mapping[str, Any]
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def list_rows(self) -> list[dict[str, Any]]:
        """The rows, one by one."""
        names = list(self.columns)
        return [
            {**self.shared, **dict(zip(names, values, strict=True))}
            for values in zip(*self.columns.values(), strict=True)
        ]


def stack_rows(rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any] | None = None) -> Block:
    """Rows as one block; what a row lacks is null."""
    names = dict.fromkeys(name for row in rows for name in row)
    return Block(shared or {}, {name: [row.get(name) for row in rows] for name in names})


def build_table(blocks: Sequence[Block], columns: Mapping[str, str]) -> pa.Table:
    """Blocks as an Arrow table of columns, given with their Arrow types; what a row lacks is null."""
    import numpy as np
    import pyarrow as pa

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in columns.items()])
    counts = [len(block) for block in blocks]
    places = pa.array(np.repeat(np.arange(len(blocks)), counts))

    def fill(name: str, kind: pa.DataType) -> pa.Array:
        shared = [block.shared.get(name) for block in blocks]
        if not any(name in block.columns for block in blocks):
            return pa.array(shared, type=kind).take(places)
        parts = zip(blocks, shared, counts, strict=True)
        rows = [block.columns.get(name) or [value] * count for block, value, count in parts]
        return pa.array([value for some in rows for value in some], type=kind)

    return pa.Table.from_arrays([fill(field.name, field.type) for field in schema], schema=schema)


def encode_blocks(blocks: Sequence[Block], columns: Mapping[str, str]) -> bytes:
    """Blocks as the bytes of a Parquet file; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet

    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(build_table(blocks, columns), sink, compression="zstd")
    return bytes(sink.getvalue())


def encode_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> bytes:
    """Rows as the bytes of a Parquet file; equal rows give equal bytes."""
    return encode_blocks([stack_rows(rows)], columns)


def open_folder(folder: Path, head: str, about: Mapping[str, Any], kind: str) -> None:
    """Start a table's folder with its head, or make sure that the one there answers the same question.

    `kind` is what the table is called in messages. Raises UserError for a folder that holds something else, or a table
    of other facts, settings or another model.
    """
    path = folder / head
    remove_leftovers(folder)
    if not path.is_file():
        names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
        left = [name for name in names if name != LOCK and not PARTIAL.fullmatch(name)]
        if left or (folder.exists() and not folder.is_dir()):
            raise UserError(f"{folder} exists and is no {kind}: choose another --out")
        write_file(path, json.dumps(about, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n")
        return
    if read_head(path).get("question") != about["question"]:
        raise UserError(
            f"{folder} holds a {kind} of other facts, settings, memories or another model: choose another --out, or "
            "remove it first"
        )


def read_head(path: Path) -> dict[str, Any]:
    """A table's head. Raises UserError when it is damaged."""
    try:
        held = parse_json(read_bytes(path))
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise UserError(f"{path} is damaged: choose another --out, or remove the folder")
    return held


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a table's folder; the system lets go of it when this process ends.

    Also removes what a killed process left behind of a part that was not whole. Raises UserError when another process
    holds it, or the disk refuses.
    """
    make_folder(folder)
    try:
        file = (folder / LOCK).open("ab")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is writing {folder}: wait for it, or choose another --out") from None
        left = sorted(folder.glob(".part-*"))
        for path in left:
            path.unlink(missing_ok=True)
        tell_removed(folder, [path.name for path in left])
        yield


def list_parts(folder: Path) -> list[Path]:
    """Parts of a table, in order. Raises UserError where there are none."""
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{folder} holds no parts of a table")
    return parts


def load_table(folder: Path) -> pa.Table:
    """All rows of a table. Raises UserError where there is none, or a part is damaged or of other columns."""
    import pyarrow as pa

    try:
        return pa.concat_tables([read_table(part) for part in list_parts(folder)])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} has a part that cannot be read ({line}): remove it and measure again") from None
