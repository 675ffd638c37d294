"""What a link may ask for, checked: a run by its name, a node, how many edges; and who wins when both change.

/circuit?run=NAME&node=a3.h1@7&edges=60&view=0123456789ab&with=OTHER
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from circuits.circuit import Circuit
from probes.errors import UserError
from workbench.settings import Question, Settings
from workbench.views.curation import Curation
from workbench.views.text import shorten, show_line

EDGES_AT_FIRST = 60
# Most edges that the page draws: a browser stays usable with so many (`benchmarks/interface.py`).
EDGES_AT_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """A view of a run: edges shown, selected node (empty: none); `problems` say what of a link was wrong."""

    edges: int
    node: str = ""
    problems: tuple[str, ...] = ()


def list_run_names(folder: Path) -> list[str]:
    """Names of the runs directly inside a folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path.name for path in folder.iterdir() if not path.name.startswith(".") and (path / "run.json").is_file()
    )


def check_run_name(name: str, names: list[str]) -> str:
    """The name when a run has it. Raises UserError: what a link names is never taken for a path."""
    if name in names:
        return name
    raise UserError(f"there is no saved run {shorten(show_line(name), 80)!r}: choose one of the list")


def count_drawable(circuit: Circuit) -> int:
    """How many edges of a circuit the page draws at most, at least one."""
    return min(max(len(circuit.edges), 1), EDGES_AT_MOST)


def read_place(parameters: Mapping[str, str], circuit: Circuit, curation: Curation | None = None) -> Place:
    """View that a link asks for; numbers are clamped, what cannot be used is left out and named.

    `curation` knows the supernodes that a link may name.
    """
    problems = []
    most = count_drawable(circuit)
    edges = min(EDGES_AT_FIRST, most)
    if wanted := parameters.get("edges", ""):
        if re.fullmatch(r"[0-9]{1,9}", wanted):
            edges = min(max(int(wanted), 1), most)
        else:
            problems.append(f"edges={shorten(show_line(wanted), 40)} is not a whole number: {edges} are shown")
    node = parameters.get("node", "")
    grouped = curation is not None and curation.find_group(node) is not None
    if node and not grouped and circuit.find_node(node) is None:
        problems.append(f"this circuit has no node {shorten(show_line(node), 40)}: none is selected")
        node = ""
    return Place(edges, node, tuple(problems))


def pick_latest(current: str, sources: Mapping[str, str], seen: MutableMapping[str, str]) -> str:
    """The value of the source that changed since last time, else the current one; remembers what it saw.

    Sources are asked in order; a later one that changed too wins.
    """
    for name, value in sources.items():
        if value != seen.get(name):
            seen[name] = value
            current = value
    return current


def name_run(question: Question, settings: Settings, taken: list[str]) -> str:
    """A new run's name from what is asked, safe as a folder and in a link, unlike those taken."""
    slug = "-".join(re.findall(r"[a-z0-9]+", question.words.lower()))[:48].strip("-") or "run"
    stem = f"{slug}.{settings.method}.{settings.ablation}"
    name, count = stem, 2
    while name in taken:
        name, count = f"{stem}.{count}", count + 1
    return name
