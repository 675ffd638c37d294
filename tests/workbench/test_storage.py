"""Writing whole or not at all, also when the disk refuses half-way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probes.errors import UserError
from workbench import storage
from workbench.storage import fresh_folder, read_bytes, remove_leftovers, write_file, write_folder


def refuse_sync(handle: int) -> None:
    """What a full disk answers."""
    raise OSError(28, "No space left on device")


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_file(path, b"one")
    write_file(path, b"two")
    assert read_bytes(path) == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    write_file(path, b"old")
    monkeypatch.setattr(os, "fsync", refuse_sync)
    with pytest.raises(UserError, match="No space left on device; nothing was left behind"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "run", {"a": b"1"})
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", b"1")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_written_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "run", {"a": b"1", "b": b"2"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == {"a": b"1", "b": b"2"}


def test_a_folder_fails_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail_second(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 2:
            refuse_sync(0)
        path.write_bytes(data)

    monkeypatch.setattr(storage, "write_synced", fail_second)
    with pytest.raises(UserError, match="cannot write"):
        write_folder(tmp_path / "run", {"a": b"1", "b": b"2"})
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_be_filled_and_a_full_one_not(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_folder(tmp_path / "run", {"a": b"1"})
    with pytest.raises(UserError, match="exists already"):
        write_folder(tmp_path / "run", {"a": b"2"})
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="exists already"):
        write_folder(tmp_path / "file", {"a": b"2"})
    assert (tmp_path / "run" / "a").read_bytes() == b"1"


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent"):
        read_bytes(tmp_path / "absent")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        write_file(tmp_path / "file" / "below", b"1")
    with pytest.raises(UserError, match="cannot write"):
        write_folder(tmp_path / "file" / "below", {"a": b"1"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_file(tmp_path / "folder", b"1")


def test_what_a_killed_write_left_is_removed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    abandoned, file, kept = (tmp_path / name for name in (".run.partial-abcd1234", ".t.partial-abcd1235", ".other.x"))
    abandoned.mkdir()
    (abandoned / "half").write_bytes(b"1")
    for path in (file, kept):
        path.write_bytes(b"1")
    assert remove_leftovers(tmp_path) == []  # a minute has not passed
    for path in (abandoned, file, kept):
        os.utime(path, (0, 0))
    write_folder(tmp_path / "run", {"a": b"1"})
    assert {path.name for path in tmp_path.iterdir()} == {"run", ".other.x"}
    assert ".run.partial-abcd1234, .t.partial-abcd1235" in caplog.text


def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    with fresh_folder(tmp_path / "run") as fresh:
        os.utime(fresh, (0, 0))
        assert remove_leftovers(tmp_path) == []
        (fresh / "a").write_bytes(b"1")
    assert (tmp_path / "run" / "a").read_bytes() == b"1"
