"""Everything that writes, on disks that refuse: one line, nothing damaged, nothing half-written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.errors import UserError
from probes.models import share_weights
from tests.checkpoints import load_shape
from tests.reports import run_report
from workbench import cli
from workbench.commands.command import Answer
from workbench.memory.indexes import write_sorted
from workbench.storage import fresh_folder, make_folder, write_file, write_folder


@pytest.mark.timeout(600)
def test_every_writer_says_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """Full disks, files that may not grow, and, where a file system may be mounted, a full and a read-only one."""
    rows = run_report(tmp_path, "disks", "--cuts", "1", "--seed", "3")
    assert len(rows) == 22 and all(row[-1] == "0" for row in rows)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is synced, renamed and removed from now on: the deed and the name, in order."""
    found: list[tuple[str, str]] = []
    sync, replace, rename = os.fsync, os.replace, os.rename

    def note(deed: str, given: str) -> None:
        found.append((deed, Path(given).name.split(".partial-")[0].lstrip(".")))

    def note_sync(handle: int) -> None:
        note("sync", os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    def note_move(move: Callable[..., None]) -> Callable[..., None]:
        def do(source: str | Path, target: str | Path) -> None:
            note("rename", str(target))
            move(source, target)

        return do

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_move(replace))
    monkeypatch.setattr(os, "rename", note_move(rename))
    return found


named = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are in /proc")


@named
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, order: list[tuple[str, str]]) -> None:
    write_file(tmp_path / "file", b"1")
    assert order == [("sync", "file"), ("rename", "file"), ("sync", tmp_path.name)]


@named
def test_new_folders_are_on_the_disk_before_what_is_in_them(tmp_path: Path, order: list[tuple[str, str]]) -> None:
    write_file(tmp_path / "a" / "b" / "file", b"1")
    assert order[:2] == [("sync", tmp_path.name), ("sync", "a")]
    assert order[-1] == ("sync", "b")


@named
def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, order: list[tuple[str, str]]) -> None:
    write_folder(tmp_path / "run", {"a": b"1"})
    assert order == [("sync", "a"), ("sync", "a"), ("sync", "run"), ("rename", "run"), ("sync", tmp_path.name)]


@named
def test_an_older_folder_is_kept_until_the_new_one_is_on_the_disk(tmp_path: Path, order: list[tuple[str, str]]) -> None:
    for word in (b"1", b"2"):
        order.clear()
        with fresh_folder(tmp_path / "point", replace=True) as fresh:
            (fresh / "state").write_bytes(word)
    moves = [("sync", "state"), ("sync", "point"), ("rename", "point.old"), ("rename", "point")]
    assert order == [*moves, ("sync", tmp_path.name)]
    assert (tmp_path / "point" / "state").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["point"]


@named
def test_sorted_vectors_take_their_room_first(
    tmp_path: Path, order: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up under a mapped file would end the process."""
    vectors = np.eye(3, dtype=np.float32)
    write_sorted(tmp_path / "v.npy", lambda: iter([vectors]), np.array([2, 0, 1], np.int32), 3)
    assert order == [("sync", "v.npy"), ("rename", "v.npy"), ("sync", tmp_path.name)]
    assert np.array_equal(np.load(tmp_path / "v.npy"), vectors[[1, 2, 0]])

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(UserError, match="No space left on device; nothing was left behind"):
        write_sorted(tmp_path / "w.npy", lambda: iter([vectors]), np.array([2, 0, 1], np.int32), 3)
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make .*below"):
        make_folder(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "cannot use /data/x: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "cannot use /data/x: Permission denied"),
    ],
)
def test_what_a_disk_refuses_anywhere_is_one_line(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> Answer:
        raise error

    monkeypatch.setattr(cli, "print_answer", refuse)
    assert cli.main(["runs"]) == 2
    assert said in capsys.readouterr().err


def test_another_defect_still_surfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Answer:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(cli, "print_answer", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main(["runs"])


def test_weights_that_cannot_be_shared_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(UserError, match="give one process, or more shared memory"):
        share_weights(load_shape("llama"))
