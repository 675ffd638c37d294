"""Writing to disk so that nothing half-written is ever taken for whole: temporary name, fsync, rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from probes.errors import UserError


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


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


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
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
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
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
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
