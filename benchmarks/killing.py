"""Commands run in forked children that end by kill -9: after a time, or before a certain change of the disk.

Libraries are loaded once, in the parent; a child has its own memory and the parent's imports, so one kill costs what
the command itself takes.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILLED = -signal.SIGKILL
# No command here takes so long: one that does hangs.
PATIENCE = 300.0
# Files that a child leaves about itself.
NOTES = ("output.txt", "changes.txt", "modules.txt")
# Python's own audit events of what changes a disk; with `open` the mode decides.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill: after so many seconds, or just before the n-th change of the disk, counted from 1."""

    seconds: float | None = None
    change: int | None = None


NEVER = Moment()


def load_modules(folder: Path) -> None:
    """Import what the last child of a folder that ended by itself had imported, so that the next ones need not."""
    for name in (folder / "modules.txt").read_text().split():
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)


def is_change(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an audit event changes the disk: a file opened to be written, a rename, a removal, a new folder."""
    if event == "open":
        path, flags = arguments[0], arguments[2]
        writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return writes and not str(path).startswith(("/dev/", "/proc/"))
    return event in CHANGES


def count_changes(last: int | None, counted: Path) -> Callable[[], None]:
    """Count changes from now on in this process, and kill it before the `last`; gives what writes the count down."""
    count, counting = 0, True

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not counting or not is_change(event, arguments):
            return
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def write_count() -> None:
        nonlocal counting
        counting = False
        counted.write_text(str(count))

    sys.addaudithook(look)
    return write_count


def run_child(work: Callable[[], int], folder: Path, moment: Moment = NEVER) -> int:
    """Do work in a forked child in a folder, killed at a moment; its exit code, `KILLED` when it was killed.

    What it prints goes to `output.txt` in the folder, how many changes it made to `changes.txt`, what it imported to
    `modules.txt`. Raises RuntimeError when it hangs.
    """
    with warnings.catch_warnings():
        # The child only ever goes on in this one thread.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(work_in(folder, work, moment))
    until = time.monotonic() + (PATIENCE if moment.seconds is None else moment.seconds)
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if moment.seconds is None:
        raise RuntimeError(f"the command hangs: {read_output(folder)[-400:]}")
    return code


def work_in(folder: Path, work: Callable[[], int], moment: Moment) -> int:
    """The child's life; its exit code, 70 for an error that no command may raise."""
    os.chdir(folder)
    with Path("output.txt").open("w") as output, contextlib.redirect_stdout(output):
        os.dup2(output.fileno(), 2)
        write_count = count_changes(moment.change, folder / "changes.txt")
        code = 70
        with contextlib.suppress(BaseException):
            code = work()
        write_count()
        Path("modules.txt").write_text("\n".join(sys.modules))
    return code


def read_output(folder: Path) -> str:
    """What the last child in a folder printed."""
    return (folder / "output.txt").read_text(errors="replace")


def read_changes(folder: Path) -> int:
    """How many changes of the disk the last child made that ended by itself."""
    return int((folder / "changes.txt").read_text())
