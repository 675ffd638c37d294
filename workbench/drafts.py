"""Drafts of a run's graph: what a reader made of it and has not saved, one file a session in the run's `drafts`.

A draft is a file of views (`view_files`) with one view in it, under the draft's own id. Only the session that began a
draft writes it; whoever opens its link goes on in a draft of their own. Copies of a run leave drafts behind.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path

from circuits.circuit import Circuit
from probes.errors import UserError
from probes.strict_json import dump_json
from workbench.storage import write_file
from workbench.view_files import FORMAT, VERSION, SavedView, decode_view, encode_view, fit, read_file

FOLDER = "drafts"
# Of more the one that was changed longest ago goes.
MOST_DRAFTS = 100


def begin_draft() -> str:
    """The id of a new draft."""
    return secrets.token_hex(6)


def find_draft(run: Path, number: str) -> Path:
    """Where a draft of a run is kept. Raises UserError for what is no id: a link names no path."""
    if not re.fullmatch(r"[0-9a-f]{12}", number):
        raise UserError("the link's draft is not the id of one: what was not saved begins anew")
    return run / FOLDER / f"{number}.json"


def save_draft(run: Path, number: str, view: SavedView) -> None:
    """Write or replace a draft, whole or not at all. Raises UserError when the disk refuses."""
    path = find_draft(run, number)
    document = {"format": FORMAT, "version": VERSION, "views": {number: encode_view(view)}}
    try:
        path.parent.mkdir(exist_ok=True)
        others = sorted(path.parent.glob("*.json"), key=lambda one: one.stat().st_mtime_ns)
        for old in [one for one in others if one != path][: -(MOST_DRAFTS - 1)]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot keep a draft: {error.strerror or error}") from None
    write_file(path, dump_json(document) + b"\n")


def load_draft(run: Path, number: str, circuit: Circuit) -> tuple[SavedView, int]:
    """A draft fitted to the run's circuit, and how many of its nodes the circuit does not have.

    Raises UserError when it is gone or damaged.
    """
    views = read_file(find_draft(run, number))
    if number not in views:
        raise UserError("the draft that the link names is gone: it was saved as a view, or others took its place")
    return fit(decode_view(views[number]), circuit)


def drop_draft(run: Path, number: str) -> None:
    """Remove a draft; one that cannot be removed stays, and is the first to go."""
    with suppress(OSError):
        find_draft(run, number).unlink(missing_ok=True)
