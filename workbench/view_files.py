"""Saved views of a run's graph: `view.json` in the run's folder, several by an id made from their content.

A view never changes under its id, so a link to it goes on showing the same. `view.schema.json` says what the file
holds. What a person typed stays text; nodes that the circuit does not have are left out when a view is opened.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from circuits.circuit import Circuit
from probes.errors import UserError
from probes.strict_json import dump_json, parse_json
from workbench.storage import read_bytes, write_file
from workbench.views.curation import LONGEST_NAME, Curation, Group

FORMAT = "memory-circuits/views"
VERSION = 1
FILE = "view.json"
MOST_VIEWS = 200
# Bytes that a file of views may have: the largest that the schema lets through, with room.
LARGEST = 5_000_000

_writing = threading.Lock()


@dataclass(frozen=True, slots=True)
class SavedView:
    """A view of a run: edges shown, selected node or supernode (empty: none), what a reader made of the graph."""

    edges: int
    selected: str = ""
    curation: Curation = field(default_factory=Curation)
    title: str = ""


@lru_cache(maxsize=1)
def load_schema() -> dict[str, Any]:
    """The JSON Schema of view.json."""
    text = resources.files("workbench").joinpath("view.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def encode_view(view: SavedView) -> dict[str, Any]:
    """A view as a JSON object."""
    curation = view.curation
    return {
        "title": view.title[:LONGEST_NAME],
        "edges": view.edges,
        "selected": view.selected,
        "pinned": list(curation.pinned),
        "groups": [{"id": g.id, "name": g.name, "members": list(g.members)} for g in curation.groups],
        "names": dict(curation.names),
        "notes": dict(curation.notes),
        "hidden": list(curation.hidden),
        "alone": curation.alone,
    }


def decode_view(value: dict[str, Any]) -> SavedView:
    """A view from its JSON object, which obeys the schema."""
    curation = Curation(
        pinned=tuple(value["pinned"]),
        groups=tuple(Group(one["id"], one["name"], tuple(one["members"])) for one in value["groups"]),
        names=tuple(sorted(value["names"].items())),
        notes=tuple(sorted(value["notes"].items())),
        hidden=tuple(value["hidden"]),
        alone=value["alone"],
    )
    return SavedView(value["edges"], value["selected"], curation, value["title"])


def name_view(value: dict[str, Any]) -> str:
    """The id of a view: the first digits of its content's SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def find_views(place: Path) -> Path:
    """File of the views of a run, in its folder, or of a circuit file, beside it."""
    return place / FILE if place.is_dir() else place.with_name(f"{place.stem}.{FILE}")


def read_views(place: Path) -> dict[str, dict[str, Any]]:
    """Views of a run or circuit file by id, oldest first; none when there is no file.

    Raises UserError when it is damaged.
    """
    return read_file(find_views(place))


def read_file(path: Path) -> dict[str, dict[str, Any]]:
    """Views of a file by id; none when there is no file. Raises UserError when it is damaged."""
    if not path.is_file():
        return {}
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} has more than {LARGEST:,} bytes: remove it")
    try:
        document = parse_json(read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): remove it and save the view again") from None
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    if (fault := best_match(Draft202012Validator(load_schema()).iter_errors(document))) is not None:
        where = "/".join(str(step) for step in fault.absolute_path) or "the document"
        raise UserError(f"{path} does not hold views: {where[:80]}: {fault.message[:200]}; remove it")
    views: dict[str, dict[str, Any]] = document["views"]
    return views


def save_view(place: Path, view: SavedView) -> str:
    """Add a view to those of a run or circuit file and return its id; of too many the oldest goes.

    Raises UserError when the file that is there is damaged or the disk refuses.
    """
    value = encode_view(view)
    number = name_view(value)
    with _writing:
        views = read_views(place)
        views.pop(number, None)
        kept = dict(list(views.items())[-(MOST_VIEWS - 1) :]) | {number: value}
        document = {"format": FORMAT, "version": VERSION, "views": kept}
        write_file(find_views(place), dump_json(document, indent=1) + b"\n")
    return number


def load_view(place: Path, number: str, circuit: Circuit) -> tuple[SavedView, int]:
    """A saved view of a run, fitted to its circuit, and how many of its nodes the circuit does not have.

    Raises UserError when there is no such view or the file is damaged.
    """
    views = read_views(place)
    if number not in views:
        raise UserError("this run has no such saved view: choose one of its list, or begin anew")
    return fit(decode_view(views[number]), circuit)


def fit(view: SavedView, circuit: Circuit) -> tuple[SavedView, int]:
    """The view less what the circuit does not have, and how many nodes those were."""
    known, state = {node.id for node in circuit.nodes}, view.curation
    named = {*state.hidden, *dict(state.names), *(member for group in state.groups for member in group.members)}
    named |= {one for one in (*state.pinned, *dict(state.notes)) if "@" in one}
    kept = [Group(g.id, g.name, tuple(m for m in g.members if m in known)) for g in state.groups]
    groups = tuple(group for group in kept if group.members)
    places = known | {group.id for group in groups}
    curation = Curation(
        pinned=tuple(one for one in state.pinned if one in places),
        groups=groups,
        names=tuple(pair for pair in state.names if pair[0] in known),
        notes=tuple(pair for pair in state.notes if pair[0] in places),
        hidden=tuple(one for one in state.hidden if one in known),
        alone=state.alone,
    )
    edges = min(max(view.edges, 1), max(len(circuit.edges), 1))
    selected = view.selected if view.selected in places else ""
    return SavedView(edges, selected, curation, view.title), len(named - known)
