"""Commands run in forked children that end by kill -9: after a time, or before a certain change of the disk.

Libraries are loaded once, in the parent; a child has its own memory and the parent's imports, so one kill costs what
the command itself takes.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILLED = -signal.SIGKILL
# No command here takes so long: one that does hangs.
PATIENCE = 300.0
# Python's own audit events of what changes a disk, and fsync; with `open` the mode decides.
CHANGES = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.fsync",
)
# Of these, what a full disk refuses.
TAKES_ROOM = ("open", "os.mkdir", "os.link", "os.symlink", "os.fsync")


@dataclass(frozen=True, slots=True)
class Moment:
    """When a life is cut: killed after so many seconds, or just before the n-th change of the disk, counted from 1.

    `full`: not killed, but from the n-th change on nothing new can be written, as on a full disk. `most`: no file may
    have more bytes.
    """

    seconds: float | None = None
    change: int | None = None
    full: int | None = None
    most: int | None = None


NEVER = Moment()


def load_modules(notes: Path) -> None:
    """Import what the last child that ended by itself had imported, so that the next ones need not."""
    for name in (notes / "modules.txt").read_text().split():
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


def count_changes(moment: Moment, counted: Path) -> Callable[[], None]:
    """Count changes from now on in this process, and act at the moment; gives what writes the count down."""
    count, counting, sync = 0, True, os.fsync

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not counting or not is_change(event, arguments):
            return
        count += 1
        if count == moment.change:
            os.kill(os.getpid(), signal.SIGKILL)
        if moment.full is not None and count >= moment.full and event in TAKES_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    def sync_or_refuse(handle: int) -> None:
        look("os.fsync", (handle,))
        sync(handle)

    def write_count() -> None:
        nonlocal counting
        counting = False
        counted.write_text(str(count))

    os.fsync = sync_or_refuse
    sys.addaudithook(look)
    return write_count


def run_child(work: Callable[[], int], folder: Path, notes: Path, moment: Moment = NEVER) -> int:
    """Do work in a forked child in a folder, cut at a moment; its exit code, `KILLED` when it was killed.

    In the folder `notes` it leaves what it printed (`output.txt`), how many changes it made, and what it imported.
    Raises RuntimeError when it hangs.
    """
    source, sink = os.pipe()
    os.set_blocking(source, False)
    with warnings.catch_warnings():
        # The child only ever goes on in this one thread.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 71
        try:
            code = work_in(folder, notes, work, moment, sink)
        finally:
            # Never back into the parent's code, whatever happens.
            os._exit(code)
    os.close(sink)
    drain = Drain(source)
    try:
        code = wait_for(child, moment, drain)
    finally:
        (notes / "output.txt").write_bytes(drain.read())
        os.close(source)
    if moment.seconds is None and code == KILLED and moment.change is None:
        raise RuntimeError(f"killed by somebody else, or after {PATIENCE} s: {read_output(notes)[-400:]}")
    return code


class Drain:
    """What a child says, read from a pipe as it comes: a limit on its files is none on that."""

    def __init__(self, source: int) -> None:
        self._source = source
        self._pieces: list[bytes] = []

    def read(self) -> bytes:
        """All that was said so far."""
        with contextlib.suppress(OSError):
            while piece := os.read(self._source, 65536):
                self._pieces.append(piece)
        return b"".join(self._pieces)


def wait_for(child: int, moment: Moment, drain: Drain) -> int:
    """Exit code of a child, which is killed at its moment, or when it hangs."""
    until = time.monotonic() + (PATIENCE if moment.seconds is None else moment.seconds)
    while time.monotonic() < until:
        drain.read()
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def work_in(folder: Path, notes: Path, work: Callable[[], int], moment: Moment, sink: int) -> int:
    """The child's life; its exit code, 70 for an error that no command may raise."""
    os.chdir(folder)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    write_count = count_changes(moment, notes / "changes.txt")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    if moment.most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (moment.most, unlimited[1]))
    code = 70
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    write_count()
    (notes / "modules.txt").write_text("\n".join(sys.modules))
    sys.stdout.flush()
    return code


def read_output(notes: Path) -> str:
    """What the last child printed."""
    return (notes / "output.txt").read_text(errors="replace")


def read_changes(notes: Path) -> int:
    """How many changes of the disk the last child made that ended by itself."""
    return int((notes / "changes.txt").read_text())
