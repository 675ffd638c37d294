"""Memory that this process can still take: the system's, and what its control groups leave (Linux, both versions)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Files of limit and use of a control group, the rows of its statistics that are page cache, and its mount.
VERSION_2 = ("memory.max", "memory.current", ("active_file", "inactive_file"), "")
VERSION_1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
    "memory",
)  # fmt: skip


def read_text(path: Path) -> str:
    """Text of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_rows(path: Path) -> dict[str, int]:
    """Rows `name number` of a file, a colon after the name or not."""
    pairs = (line.split()[:2] for line in read_text(path).splitlines())
    return {pair[0].rstrip(":"): int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def list_groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, tuple[str, ...], str]]]:
    """Folders of this process's control groups up to their mounts, with the files of their version.

    In a container the path that the kernel tells may be that of the host: the mount itself is looked at in any case.
    """
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        version = VERSION_2 if number == "0" else VERSION_1 if "memory" in controllers.split(",") else None
        if version is not None:
            group = PurePosixPath(path.lstrip("/"))
            for below in (group, *group.parents):
                yield root / "sys/fs/cgroup" / version[3] / below, version


def find_available(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still take before something is killed; None where the system does not tell.

    Page cache counts as free, in the system and in each control group: the kernel takes it back before it kills.
    """
    left = []
    if (kilobytes := read_rows(root / "proc/meminfo").get("MemAvailable")) is not None:
        left.append(kilobytes << 10)
    for folder, (limit, used, cached, _) in list_groups(root):
        most, now = read_text(folder / limit).strip(), read_text(folder / used).strip()
        if most.isdigit() and now.isdigit():
            rows = read_rows(folder / "memory.stat")
            left.append(int(most) - int(now) + sum(rows.get(name, 0) for name in cached))
    return max(min(left), 0) if left else None
