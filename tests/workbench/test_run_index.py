"""Ten thousand runs as lines: the index remembers, notices what changed, and is never believed over a run."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from probes.errors import UserError
from workbench import run_index
from workbench.run_folders import delete_runs, empty_trash, list_trash, pack_run, rename_run, restore_run
from workbench.run_index import INDEX, Filters, filter_entries, list_entries
from workbench.runs import Run, save_run

Build = Callable[..., Run]


@pytest.fixture
def folder(tmp_path: Path, build_run: Build) -> Path:
    """Two runs, the second of a shipped fact and newer."""
    save_run(build_run(), tmp_path / "typed")
    run = build_run(seed=1)
    about = {**run.about, "fact": {"id": "norland-capital", "relation": "capital"}}
    save_run(replace(run, about=about), tmp_path / "asked")
    os.utime(tmp_path / "typed" / "run.json", ns=(0, 10**18))
    return tmp_path


def test_a_run_becomes_a_line_and_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest, oldest = list_entries(folder)
    assert (newest.name, newest.relation, newest.fact) == ("asked", "capital", "norland-capital")
    assert (oldest.edges, oldest.method, oldest.memories) == (30, "eap", ("bank", "explicit"))
    assert oldest.saved.year == 2001 and oldest.faithfulness == 0.869565
    read: list[str] = []
    real = run_index.read_about
    monkeypatch.setattr(run_index, "read_about", lambda path: read.append(path.name) or real(path))
    assert list_entries(folder) == [newest, oldest] and read == []
    os.utime(folder / "typed" / "run.json", ns=(0, 2 * 10**18))
    assert [entry.name for entry in list_entries(folder)] == ["typed", "asked"] and read == ["typed"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "x"}', '{"format": "memory-circuits/run-index", "version": 1}']
)
def test_a_damaged_index_costs_one_reading(folder: Path, text: str) -> None:
    before = list_entries(folder)
    (folder / INDEX).write_text(text)
    assert list_entries(folder) == before
    assert len(json.loads((folder / INDEX).read_text())["runs"]) == 2


def test_what_is_gone_or_broken_is_not_listed(folder: Path) -> None:
    list_entries(folder)
    (folder / "typed" / "run.json").write_text("{")
    assert [entry.name for entry in list_entries(folder)] == ["asked"]
    assert list_entries(folder / "nowhere") == []


def test_filters(folder: Path) -> None:
    entries = list_entries(folder)

    def names(**given: object) -> list[str]:
        return [entry.name for entry in filter_entries(entries, Filters(**given))]  # type: ignore[arg-type]

    assert names() == ["asked", "typed"]
    assert names(relations=["capital"]) == names(words="NORLAND-capital") == ["asked"]
    assert names(until=date(2001, 9, 9)) == ["typed"] and names(since=date(2001, 9, 10)) == ["asked"]
    assert names(memories=["text"]) == names(methods=["exact"]) == names(models=["other"]) == []


def test_runs_move_whole(folder: Path) -> None:
    with pytest.raises(UserError, match="no saved run"):
        rename_run(folder, "../typed", "x")
    for bad in ("", ".hidden", "a/b", "a\x00", "x" * 200, "trailing."):
        with pytest.raises(UserError, match="cannot name a run"):
            rename_run(folder, "typed", bad)
    with pytest.raises(UserError, match="already something"):
        rename_run(folder, "typed", "asked")
    assert rename_run(folder, "typed", " new.name ") == "new.name"
    assert delete_runs(folder, ["new.name"]) == ["new.name"]
    rename_run(folder, "asked", "new.name")
    assert delete_runs(folder, ["new.name"]) == ["new.name.2"]
    assert list_trash(folder) == ["new.name", "new.name.2"] and list_entries(folder) == []
    assert restore_run(folder, "new.name.2") == "new.name.2"
    assert empty_trash(folder) == 1 and empty_trash(folder) == 0
    assert [entry.relation for entry in list_entries(folder)] == ["capital"]


def test_a_packed_run_is_the_folder(folder: Path) -> None:
    data = pack_run(folder, "typed")
    assert data == pack_run(folder, "typed")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == [f"typed/{name}" for name in ("recording.npz", "run.json", "scores.npz")]
        assert archive.read("typed/run.json") == (folder / "typed" / "run.json").read_bytes()
