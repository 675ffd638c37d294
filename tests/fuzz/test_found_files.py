"""What fuzzing has found in files and folders from elsewhere: tables, tensors, banks, graphs of other tools."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.errors import UserError
from probes.facts import read_rows
from probes.memory_bank import open_bank
from probes.memory_format import read_entries
from probes.parquet_tables import read_table
from tests.checkpoints import load_shape
from tests.fuzz.banks import write_explicit, write_tree
from tests.fuzz.tables import FACT, encode_parquet
from tests.sweep_tables import write_table
from workbench.banks.corpus import load_tree
from workbench.figures.kinds import Wish, figure_specificity
from workbench.memory.documents import count_characters
from workbench.stored import list_ids
from workbench.sweeps import queries
from workbench.sweeps.parts import load_table


def link_folder(path: Path) -> None:
    """A link to a folder of whole tables in a table's place."""
    whole = path.parent / "elsewhere"
    whole.mkdir()
    for name in ("a.parquet", "b.parquet"):
        (whole / name).write_bytes(encode_parquet([FACT]))
    path.unlink(missing_ok=True)
    path.symlink_to(whole)


def draw_nothing(name: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


READERS: dict[str, Callable[[Path], object]] = {
    "facts": read_rows,
    "a specificity table": lambda path: figure_specificity([(path, None)], Wish(), draw_nothing),
    "documents": lambda path: count_characters([(path, path.name)]),
    "a sweep as one table": lambda path: load_table(path.parent),
    "ids of a bank": lambda path: list_ids(path.parent, [{"name": path.stem, "deleted": []}]),
    "any": read_table,
}


@pytest.mark.parametrize("name", READERS)
def test_a_table_that_is_a_link_to_a_folder(tmp_path: Path, name: str) -> None:
    """Arrow reads all files below a folder as one table."""
    path = tmp_path / "part-000000.parquet"
    link_folder(path)
    with pytest.raises(UserError, match=r"part-000000\.parquet is not a file"):
        READERS[name](path)


def test_tables_of_banks_and_sweeps_that_are_links_to_folders(tmp_path: Path) -> None:
    write_explicit(tmp_path / "memory", load_shape("llama"))
    write_tree(tmp_path / "tree", load_shape("llama"))
    part = open_bank(tmp_path / "memory").head.parts[0]
    for path in (tmp_path / "memory" / part.entries, tmp_path / "tree" / "windows.parquet"):
        link_folder(path)
    with pytest.raises(UserError, match="not a file"):
        read_entries(tmp_path / "memory", part)
    with pytest.raises(UserError, match="not a file"):
        load_tree(tmp_path / "tree")
    link_folder(write_table(tmp_path / "sweeps" / "first") / "part-000000.parquet")
    with pytest.raises(UserError, match="not a file"):
        queries.open_sweeps(tmp_path / "sweeps", threads=1)


def test_a_table_that_is_a_link_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(encode_parquet([FACT]))
    (tmp_path / "link.parquet").symlink_to(tmp_path / "table.parquet")
    assert read_rows(tmp_path / "link.parquet") == read_rows(tmp_path / "table.parquet")
    shutil.copytree(write_table(tmp_path / "sweeps" / "first"), tmp_path / "kept")
    (tmp_path / "sweeps" / "first" / "part-000000.parquet").unlink()
    (tmp_path / "sweeps" / "first" / "part-000000.parquet").symlink_to(tmp_path / "kept" / "part-000000.parquet")
    assert load_table(tmp_path / "sweeps" / "first").num_rows == load_table(tmp_path / "kept").num_rows
    queries.open_sweeps(tmp_path / "sweeps", threads=1).close()
