"""Every long command killed a few times, at random moments and before changes of the disk; `benchmarks/crashes.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probes.errors import UserError
from tests.reports import run_report
from workbench.storage import discard_folder, remove_leftovers
from workbench.training.checkpoints import open_workplace


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_half_written_after_kills(tmp_path: Path) -> None:
    rows = run_report(tmp_path, "crashes", "--kills", "3", "--seed", "5")
    assert len(rows) == 10 and all(row[1] == "3" and row[-1] == "0" for row in rows)


def test_a_training_stopped_before_its_first_word_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / ".run.json.partial-abcd1234").write_text("{")
    with open_workplace(tmp_path / "out", {"rows": 1}, True) as place:
        assert place.folder.is_dir()
    assert not list(tmp_path.iterdir())


def test_a_result_that_is_there_names_the_work_beside_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("whole")
    (tmp_path / "out.part").mkdir()
    with (
        pytest.raises(UserError, match=r"out exists already.*out\.part beside it is the work"),
        open_workplace(tmp_path / "out", {}, True),
    ):
        pass


def test_a_folder_is_gone_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "file").write_text("1")

    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("workbench.storage.shutil.rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            discard_folder(tmp_path / "runs")
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    assert remove_leftovers(tmp_path, "runs") == [left.name] and not list(tmp_path.iterdir())
