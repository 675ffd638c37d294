"""Drafts: kept and replaced by their own session, fitted to the circuit, refused where a link lies, never too many."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from probes.errors import UserError
from workbench import drafts
from workbench.drafts import FOLDER, begin_draft, drop_draft, find_draft, load_draft, save_draft
from workbench.run_folders import pack_run
from workbench.runs import Run, save_run
from workbench.view_files import SavedView
from workbench.views.curation import Curation


def test_a_draft_comes_back_as_it_was_and_is_replaced(tmp_path: Path, run: Run) -> None:
    one, two = (node.id for node in run.circuit.nodes[:2])
    number = begin_draft()
    save_draft(tmp_path, number, SavedView(7, one, Curation(pinned=(one,))))
    view = SavedView(8, two, Curation(pinned=(one, two), notes=((one, "</script>"),)))
    save_draft(tmp_path, number, view)
    assert load_draft(tmp_path, number, run.circuit) == (view, 0)
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    drop_draft(tmp_path, number)
    drop_draft(tmp_path, number)
    with pytest.raises(UserError, match="is gone"):
        load_draft(tmp_path, number, run.circuit)


@pytest.mark.parametrize("number", ["", "../view", "0123456789ab.json", "0123456789AB", "\n0123456789ab", "0" * 13])
def test_what_is_no_id_names_no_file(tmp_path: Path, number: str, run: Run) -> None:
    with pytest.raises(UserError, match="not the id"):
        load_draft(tmp_path, number, run.circuit)
    with pytest.raises(UserError, match="not the id"):
        save_draft(tmp_path, number, SavedView(1))


def test_a_damaged_draft_is_told(tmp_path: Path, run: Run) -> None:
    number = begin_draft()
    save_draft(tmp_path, number, SavedView(1))
    path = find_draft(tmp_path, number)
    document = json.loads(path.read_text())
    document["views"][number]["edges"] = 0
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="does not hold views"):
        load_draft(tmp_path, number, run.circuit)


def test_the_oldest_of_too_many_goes(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "MOST_DRAFTS", 3)
    numbers = [begin_draft() for _ in range(5)]
    for age, number in enumerate(numbers):
        save_draft(tmp_path, number, SavedView(1))
        os.utime(find_draft(tmp_path, number), (age, age))
    assert {path.stem for path in (tmp_path / FOLDER).iterdir()} == set(numbers[-3:])
    save_draft(tmp_path, numbers[-1], SavedView(2))
    assert {path.stem for path in (tmp_path / FOLDER).iterdir()} == set(numbers[-3:])


def test_a_run_is_packed_without_its_drafts(tmp_path: Path, run: Run) -> None:
    save_run(run, tmp_path / "norland")
    before = pack_run(tmp_path, "norland")
    save_draft(tmp_path / "norland", begin_draft(), SavedView(1))
    assert pack_run(tmp_path, "norland") == before
