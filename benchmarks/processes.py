"""What Linux tells of a process, from `/proc`."""

from __future__ import annotations

from pathlib import Path


def read_status(name: str, process: int | str = "self") -> int:
    """A row of a process's memory, in bytes: `VmRSS` is what it has, `VmHWM` the most so far, `RssAnon` its own.

    Raises StopIteration for a row that is not there, OSError for a process that is not.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
