"""Writing to disk so that nothing half-written is ever taken for whole: temporary name, fsync, rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from probes.errors import UserError


def read_bytes(path: Path) -> bytes:
    """Bytes of a file. Raises UserError when it is missing or unreadable."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, so that a rename survives a power cut."""
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


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Create a folder with these files, whole or not at all.

    Raises UserError when it exists with something in it, or when the disk refuses (nothing is left behind then).
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already: choose another --out, or remove it first")
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        for name, data in files.items():
            write_synced(temporary / name, data)
        temporary.chmod(0o755)
        sync_folder(temporary)
        temporary.replace(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; nothing was left behind") from None
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


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
