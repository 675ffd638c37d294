"""What a case may not do: write outside its workspace, run longer than a limit, or take memory without end.

Writes are seen by Python's audit events (files opened for writing, made, renamed, removed); what native code writes
shows in the folders around the workspace, which are looked through after a target's last case.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

PATIENCE = 10.0
# Address space beyond what is taken at the start, GiB.
ROOM = 4
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events that change paths: the places of these among the arguments, each with that of the folder it is relative to.
CHANGES: dict[str, dict[int, int]] = {
    "os.mkdir": {0: 2}, "os.rename": {0: 2, 1: 3}, "os.remove": {0: 1}, "os.rmdir": {0: 1}, "os.link": {1: 3},
    "os.symlink": {1: 2}, "os.chmod": {0: 2}, "os.chown": {0: 3},
}  # fmt: skip


class HangError(BaseException):
    """A case that ran longer than the limit; no `except Exception` holds it up."""


class Watch:
    """Where writing is allowed while a case runs, and what was written elsewhere."""

    def __init__(self) -> None:
        self.roots: tuple[str, ...] = ()
        self.active = False
        self.outside: list[str] = []
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook, which stays for the life of the process and sleeps between cases."""
        if not self.active:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | bytes) and (flags & WRITING or set(mode or "") & set("wax+")):
                self.note(event, path)
        elif event in CHANGES:
            for place, folder in CHANGES[event].items():
                path = arguments[place]
                if isinstance(path, str | bytes | os.PathLike):
                    self.note(event, os.path.join(find_folder(arguments[folder]), os.fsdecode(path)))

    def note(self, event: str, path: str | bytes) -> None:
        """Remember, and forbid, a write unless it is inside, or to a device that forgets."""
        self.active = False
        try:
            real = os.path.realpath(os.fsdecode(path))
        except (OSError, ValueError):
            return
        finally:
            self.active = True
        if real != os.devnull and not any(real == root or real.startswith(root + os.sep) for root in self.roots):
            self.outside.append(f"{event} {real}")
            raise PermissionError(errno.EPERM, "outside of the workspace", real)


def find_folder(handle: int) -> str:
    """Folder of an open handle, the working one for none."""
    return os.readlink(f"/proc/self/fd/{handle}") if handle >= 0 else ""


_watches: list[Watch] = []


def get_watch() -> Watch:
    """The one watch of this process: an audit hook cannot be taken out again."""
    if not _watches:
        _watches.append(Watch())
    return _watches[0]


@contextmanager
def watch_writes(*roots: Path) -> Iterator[list[str]]:
    """The writes outside of these folders, in a list that fills up while the block runs."""
    watch = get_watch()
    watch.roots, watch.outside = tuple(os.path.realpath(root) for root in roots), []
    watch.active = True
    try:
        yield watch.outside
    finally:
        watch.active = False


@contextmanager
def limit_time(seconds: float = PATIENCE) -> Iterator[None]:
    """Raise HangError in the block after some time; on systems and in threads without alarms nothing is limited."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def limit_memory(room: int = ROOM) -> Iterator[None]:
    """Let the process take so many GiB more than now: what wants more gets a MemoryError, not the machine's memory."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + (room << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
