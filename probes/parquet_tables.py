"""Parquet tables from elsewhere: one file, or a link to one.

Given a folder, Arrow takes all that lies below it for one table and crawls there, however far a link leads; a device or
pipe may have no end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def require_file(path: Path) -> None:
    """Raise UserError for a folder, device or pipe, or a link to one; what is missing is found when it is opened."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file: a Parquet table is one, or a link to one")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of a Parquet file, of all columns or of these.

    Raises UserError for what is not a file, and what Arrow raises for one that is missing or damaged.
    """
    import pyarrow.parquet

    require_file(path)
    return pyarrow.parquet.read_table(path, columns=None if columns is None else list(columns))
