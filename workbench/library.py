"""Where things are: the shipped model with its memories and facts, and the folder of saved runs."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.facts import Fact, load_facts

DEFAULT_TEMPLATE = "{document} {prompt}"


def find_shipped() -> Path:
    """Folder with model/, bank/, memory/, facts.parquet, documents.parquet. Raises UserError when it is not there."""
    folder = Path(__file__).parent / "shipped"
    if not (folder / "model" / "config.json").is_file():
        raise UserError(
            f"the shipped model is missing from {folder}: install the package again, or `memory-circuits demo train`"
        )
    return folder


def find_runs() -> Path:
    """Folder of saved runs: $MEMORY_CIRCUITS_RUNS, or `runs` below the working directory."""
    return Path(os.environ.get("MEMORY_CIRCUITS_RUNS", "runs")).expanduser()


def find_sweeps() -> Path:
    """Folder of sweeps: $MEMORY_CIRCUITS_SWEEPS, or `sweeps` below the working directory."""
    return Path(os.environ.get("MEMORY_CIRCUITS_SWEEPS", "sweeps")).expanduser()


def list_banks(kind: str) -> list[str]:
    """Folders of banks in and below the working directory that have a file `kind`.json, two levels deep at most."""
    found = {path.parent for depth in ("", "*/", "*/*/") for path in Path().glob(f"{depth}{kind}.json")}
    return sorted(str(folder) for folder in found if not any(part.startswith(".") for part in folder.parts))


@lru_cache(maxsize=4)
def read_facts(folder: Path) -> tuple[Fact, ...]:
    """Facts of a folder, read once."""
    return load_facts(folder)


def read_shipped_facts() -> tuple[Fact, ...]:
    """The shipped facts, read once."""
    return read_facts(find_shipped())


def read_template(folder: Path) -> str:
    """How a document stands before a prompt, as the shipped model was trained: a format with document and prompt."""
    path = folder / "shipped.json"
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return str(about.get("text_template", DEFAULT_TEMPLATE))
