"""Renaming, deleting and restoring saved runs: each is one rename on the disk, so it happens whole or not at all.

Deleted runs wait in `.trash` inside the runs folder until the trash is emptied.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from probes.errors import UserError
from workbench.storage import discard_folder, read_bytes, sync_folder
from workbench.views.links import check_run_name, list_run_names

TRASH = ".trash"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


def move(source: Path, target: Path) -> None:
    """Rename a folder. Raises UserError when the disk refuses or something has the name already."""
    try:
        target.parent.mkdir(exist_ok=True)
        # A folder that is not empty is never replaced by a rename; an empty one would be.
        if target.exists():
            raise UserError(f"there is already something called {target.name!r}: choose another name")
        source.rename(target)
        sync_folder(target.parent)
        sync_folder(source.parent)
    except OSError as error:
        raise UserError(f"cannot move {source.name}: {error.strerror or error}") from None


def rename_run(folder: Path, name: str, new: str) -> str:
    """Give a run another name, which is returned. Raises UserError for one that is taken or no file name everywhere."""
    check_run_name(name, list_run_names(folder))
    new = new.strip()
    if not NAME.fullmatch(new) or new.endswith("."):
        raise UserError(
            f"{new[:60]!r} cannot name a run: use letters, digits, dots, dashes and underlines, a letter or digit "
            "first, "
            "120 at most"
        )
    if new != name:
        move(folder / name, folder / new)
    return new


def delete_runs(folder: Path, names: list[str]) -> list[str]:
    """Move runs to the trash; the names that they have there. Raises UserError for the first that cannot be moved."""
    moved, known = [], list_run_names(folder)
    for name in names:
        check_run_name(name, known)
        place, count = name, 2
        while (folder / TRASH / place).exists():
            place, count = f"{name}.{count}", count + 1
        move(folder / name, folder / TRASH / place)
        moved.append(place)
    return moved


def list_trash(folder: Path) -> list[str]:
    """Names of the runs in the trash."""
    return list_run_names(folder / TRASH)


def restore_run(folder: Path, name: str) -> str:
    """Take a run out of the trash; its name, a new one where the old is taken. Raises UserError when there is none."""
    check_run_name(name, list_trash(folder))
    place, count = name, 2
    while (folder / place).exists():
        place, count = f"{name}.{count}", count + 1
    move(folder / TRASH / name, folder / place)
    return place


def empty_trash(folder: Path) -> int:
    """Delete for good what is in the trash; how many runs that were. Raises UserError when the disk refuses."""
    trash, count = folder / TRASH, len(list_trash(folder))
    if not trash.is_dir():
        return 0
    try:
        discard_folder(trash)
    except OSError as error:
        raise UserError(f"cannot empty the trash: {error.strerror or error}") from None
    return count


def pack_run(folder: Path, name: str) -> bytes:
    """A run's folder as a zip file, to unpack into another runs folder; the same run gives the same bytes."""
    check_run_name(name, list_run_names(folder))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / name).iterdir()):
            if path.is_file() and not path.is_symlink():
                info = zipfile.ZipInfo(f"{name}/{path.name}", date_time=(1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, read_bytes(path))
    return buffer.getvalue()
