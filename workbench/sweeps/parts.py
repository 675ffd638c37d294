"""A table in a folder: a head that says what was asked, and Parquet parts that each appear whole or not at all.

Equal rows give equal bytes, and a part's name says which of the work it is, so a table that was stopped anywhere and
gone on with is the one that was never stopped, byte for byte.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from workbench.storage import PARTIAL, make_folder, read_bytes, remove_leftovers, tell_removed, write_file

if TYPE_CHECKING:
    import pyarrow as pa

LOCK = ".lock"
REFUSED = "part-refused.parquet"


def name_part(number: int) -> str:
    """File name of a part."""
    return f"part-{number:06d}.parquet"


def build_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pa.Table:
    """Rows as an Arrow table of columns, given with their Arrow types; what a row lacks is null."""
    import pyarrow as pa

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in columns.items()])
    arrays = [pa.array([row.get(field.name) for row in rows], type=field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def encode_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> bytes:
    """Rows as the bytes of a Parquet file; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet

    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(build_table(rows, columns), sink, compression="zstd")
    return bytes(sink.getvalue())


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
        held = json.loads(read_bytes(path))
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
    """All rows of a table. Raises UserError where there is none."""
    import pyarrow as pa
    import pyarrow.parquet

    return pa.concat_tables([pyarrow.parquet.read_table(part) for part in list_parts(folder)])
