"""Writing to disk so that nothing half-written is ever taken for whole: temporary name, fsync, rename."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from probes.errors import UserError

# Names of what is being written: `.NAME.partial-` and eight letters, beside the place that it will take.
PARTIAL = re.compile(r"\..+\.partial-[a-z0-9_]{8}")
# Between the making of a temporary name and its lock another process must not take it for left behind.
GRACE_SECONDS = 60.0
_log = logging.getLogger(__name__)


def read_bytes(path: Path) -> bytes:
    """Bytes of a file. Raises UserError when it is missing or unreadable."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def sync_folder(folder: Path) -> None:
    """Make a folder's entries (or a file's contents) durable, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, durably. Raises UserError when the disk refuses."""
    try:
        make_folders(folder)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror or error}") from None


def make_folders(folder: Path) -> None:
    """Make a folder and those above it that are missing, each synced into the one that holds it. Raises OSError."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def lock(handle: int) -> None:
    """Lock an open file or folder until it is closed, where the file system can."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Lock what is being written for as long as this process lives: what is locked was not left behind."""
    handle = os.open(path, os.O_RDONLY)
    try:
        lock(handle)
        yield
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, name: str = "") -> list[str]:
    """Remove what killed processes left half-written directly inside a folder; the names, which are logged too.

    Left behind is what bears a temporary name of ours (for the file or folder `name`, where one is given), is older
    than a minute and is locked by no living process.
    """
    begin = f".{name}.partial-" if name else "."
    found = [one for one in os.listdir(folder) if one.startswith(begin)] if folder.is_dir() else []
    removed = [one for one in sorted(found) if PARTIAL.fullmatch(one) and remove_abandoned(folder / one)]
    tell_removed(folder, removed)
    return removed


def tell_removed(folder: Path, names: Sequence[str]) -> None:
    """Say in the log what was removed of stopped writes."""
    if names:
        _log.warning("removed what a stopped write left in %s: %s", folder, ", ".join(names))


def remove_abandoned(path: Path) -> bool:
    """Remove a temporary file or folder that no living process holds; whether it was removed."""
    try:
        if path.is_symlink() or time.time() - path.stat().st_mtime < GRACE_SECONDS:
            return False
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def discard_folder(folder: Path) -> None:
    """Remove a folder: at once by a new name, so that a stop leaves no half of it, then from the disk.

    What a stop leaves under that name `remove_leftovers` takes away. Raises OSError when the disk refuses.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    folder.replace(temporary)
    shutil.rmtree(temporary)


def name_work(out: Path) -> Path:
    """Folder of the work in progress, `OUT.part` beside what is to be made.

    Raises UserError for a place without a name of its own, such as `.`, beside which there is none.
    """
    if out.name in ("", ".."):
        raise UserError(
            f"{out} has no name of its own, beside which work could lie: give --out the name of a new folder"
        )
    return out.with_name(out.name + ".part")


def require_free(folder: Path) -> None:
    """Raise UserError when a folder that is to be made exists with something in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already: choose another --out, or remove it first")


@contextmanager
def fresh_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of `folder` when the block ends well, and else is removed.

    With `replace` an older one stays until the new one is whole, under the name `FOLDER.old` for a moment between two
    renames (`recover_folder`). Raises UserError when the disk refuses, or when there is one and it may not be replaced.
    """
    if not replace:
        require_free(folder)
    temporary: Path | None = None
    try:
        make_folders(folder.parent)
        remove_leftovers(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
        with hold(temporary):
            yield temporary
        for path in sorted(temporary.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
            sync_folder(path)
        temporary.chmod(0o755)
        sync_folder(temporary)
        old = name_old(folder)
        if replace and folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        temporary.replace(folder)
        sync_folder(folder.parent)
        if replace:
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {folder}: {reason}; nothing was left behind") from None
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def name_old(folder: Path) -> Path:
    """Where the older folder waits while it is replaced."""
    return folder.with_name(folder.name + ".old")


def recover_folder(folder: Path) -> None:
    """Put back the older folder where a process was killed between the two renames of `fresh_folder`."""
    old = name_old(folder)
    if not folder.exists() and old.is_dir():
        old.rename(folder)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Create a folder with these files, whole or not at all.

    Raises UserError when it exists with something in it, or when the disk refuses (nothing is left behind then).
    """
    with fresh_folder(folder) as temporary:
        for name, data in files.items():
            write_synced(temporary / name, data)


def write_file(path: Path, data: bytes) -> None:
    """Write or replace one file, whole or not at all. Raises UserError when the disk refuses."""
    temporary: Path | None = None
    try:
        make_folders(path.parent)
        remove_leftovers(path.parent, path.name)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            lock(file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from None
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()
