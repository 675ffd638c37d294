"""What the browser may make the server read: the workspace, and folders that were named when the app was started.

The workspace is the working directory of the server and the folder of saved runs. Commands are not held to it: who
types a command can read those files anyway.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.errors import UserError
from workbench.settings import Question, Settings
from workbench.views.text import shorten, show_line

ALLOWED = "MEMORY_CIRCUITS_ALLOW"
REMOTE_CODE = "MEMORY_CIRCUITS_TRUST_REMOTE_CODE"

# Settings that are words of their own or a path.
WORDS = {"bank": ("auto", "own", "none"), "memory": ("auto", "own", "none"), "text": ("auto", "none")}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Places:
    """Folders below which the browser may have files read, and whether a checkpoint's own code may run."""

    roots: tuple[Path, ...]
    remote_code: bool = False

    def confine(self, path: str | Path) -> Path:
        """The path with `~`, `..` and symbolic links resolved. Raises UserError when it leads out of the folders."""
        try:
            found = Path(path).expanduser().resolve()
        except (OSError, RuntimeError, ValueError):
            raise UserError(f"{shorten(show_line(str(path)), 80)!r} is not a path: give a file or folder") from None
        if not any(found.is_relative_to(root) for root in self.roots):
            raise UserError(
                f"{shorten(show_line(str(path)), 80)!r} is outside the workspace: put it there, or start the app with "
                "--allow FOLDER"
            )
        return found

    def check_model(self, name: str) -> None:
        """Raise UserError for a model folder outside, and for what is neither a folder nor a name on the hub."""
        if name == "shipped":
            return
        if HUB_NAME.fullmatch(name) and not os.path.lexists(name):
            return
        self.confine(name)

    def check_settings(self, settings: Settings) -> None:
        """Raise UserError when the settings name a file outside, or want code run that the app was not started for."""
        self.check_model(settings.model)
        for name, words in WORDS.items():
            if (choice := getattr(settings, name)) not in words:
                self.confine(choice)
        if settings.trust_remote_code and not self.remote_code:
            raise UserError(
                "this model runs code of its own, which the app does not let it: start the app with "
                "--trust-remote-code if you trust it"
            )

    def check_question(self, question: Question) -> None:
        """Raise UserError when the question names a table outside."""
        if question.pairs:
            self.confine(question.pairs)


def find_places(environment: dict[str, str] | None = None) -> Places:
    """Places of this process, from its working directory and the variables that `name_places` gave it."""
    from workbench.library import find_runs

    values = os.environ if environment is None else environment
    named = [folder for folder in values.get(ALLOWED, "").split(os.pathsep) if folder]
    return Places(resolve_roots([".", find_runs(), *named]), values.get(REMOTE_CODE) == "1")


def resolve_roots(folders: Iterable[str | Path]) -> tuple[Path, ...]:
    """Folders with `~`, `..` and symbolic links resolved, each once."""
    return tuple(dict.fromkeys(Path(folder).expanduser().resolve() for folder in folders))


def name_places(folders: Sequence[str], remote_code: bool) -> dict[str, str]:
    """Environment variables that tell a server of these folders. Raises UserError for one that is not there."""
    for folder in folders:
        if not Path(folder).expanduser().is_dir():
            raise UserError(f"--allow: there is no folder {folder}")
        if os.pathsep in str(Path(folder).expanduser().resolve()):
            raise UserError(f"--allow: {folder} has a {os.pathsep!r} in its name: rename it")
    joined = os.pathsep.join(str(folder) for folder in resolve_roots(folders))
    return {ALLOWED: joined, REMOTE_CODE: "1" if remote_code else "0"}
