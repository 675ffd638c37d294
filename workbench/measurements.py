"""Measurements of components at rest: one JSON file each beside the saved runs; opening one imports no torch.

A file is what a page kept (`"format": "memory-circuits/measurement"`, with the command that measures it again and the
model), or exactly what one of the commands printed with `--json`, by whose keys it is recognised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.strict_json import dump_json
from workbench.library import find_runs
from workbench.storage import read_bytes, write_file

FORMAT = "memory-circuits/measurement"
VERSION = 1
LARGEST = 50 * 2**20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

# Of the lens at every position: rows by depth, cells by token.
GRIDS = ("best", "probability", "answer_probability", "answer_rank")


@dataclass(frozen=True, slots=True)
class Subject:
    """One kind of measurement: its label, one sentence of explanation, and a key that no other kind's result has."""

    label: str
    explanation: str
    mark: str


SUBJECTS: dict[str, Subject] = {
    "specificity": Subject(
        "Components over facts",
        "For heads, FFN units, bank blocks and explicit memories: to how many facts each matters, how much, and "
        "whether to one fact, to a relation or to everything.",
        "components",
    ),
    "heads": Subject(
        "Head tags", "Scores of every head by finders from the literature, with intervals over texts.", "comparisons"
    ),
    "units": Subject(
        "Knowledge neurons",
        "FFN units of each fact by integrated gradients, and how much each layer's FFN changes the prediction (PKS).",
        "neurons",
    ),
    "classes": Subject(
        "Classes of circuits",
        "Subgraphs that return across texts (Memory^3, definitions 1 to 5), how often, specific or abstract.",
        "classes",
    ),
    "lens": Subject("Lens", "What the stream already predicts at every layer.", "lens"),
    "probe": Subject("Linear probe", "From which layer on an attribute can be read off linearly.", "folds"),
    "restore": Subject(
        "Causal tracing", "Which states, put back by layer and position, bring the answer back.", "restored"
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was found (the command's JSON document), of which kind, by which command on which model.

    `command` is empty and `model` may be where the file does not say.
    """

    kind: str
    found: dict[str, Any]
    command: str = ""
    model: Mapping[str, str] = field(default_factory=dict)


def find_measurements() -> Path:
    """Folder of saved measurements, inside that of the runs."""
    return find_runs() / "measurements"


def list_measurements(folder: Path) -> list[str]:
    """Names of the measurements in a folder, the newest first."""
    paths = folder.glob("*.json") if folder.is_dir() else ()
    found = [(path.stat().st_mtime_ns, path.stem) for path in paths if NAME.fullmatch(path.stem)]
    return [name for _, name in sorted(found, key=lambda one: (-one[0], one[1]))]


def check_measurement_name(name: str, names: list[str]) -> str:
    """The name when a measurement has it. Raises UserError: what a link names is never taken for a path."""
    if name in names:
        return name
    raise UserError(f"there is no saved measurement {name[:80]!r}: choose one of the list, or measure anew")


def name_measurement(kind: str, folder: Path) -> str:
    """A name that no measurement of the folder has yet."""
    taken, count = set(list_measurements(folder)), 1
    while f"{kind}-{count}" in taken:
        count += 1
    return f"{kind}-{count}"


def recognise(document: Mapping[str, Any]) -> str:
    """Kind of a command's document, by its keys. Raises UserError when it is none of these."""
    for kind, subject in SUBJECTS.items():
        if subject.mark in document:
            return kind
    commands = ", ".join(SUBJECTS)
    raise UserError(f"this is not the --json output of a command that can be opened here ({commands})")


@lru_cache(maxsize=1)
def load_schema() -> dict[str, Any]:
    """JSON Schema of every kind's result, under `$defs`."""
    text = (files("workbench") / "measurement.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def find_departure(kind: str, found: object) -> str:
    """Where a result departs from its kind's schema and how; empty when it obeys it."""
    from workbench.exports_json import find_fault

    return find_fault(found, {**load_schema(), "$ref": f"#/$defs/{kind}"}) or find_uneven(kind, found)


def find_uneven(kind: str, found: Any) -> str:
    """What a table of the lens, which obeys its schema, lacks of a row for each depth and a cell for each token."""
    table: dict[str, Any] = (found.get("everywhere") if kind == "lens" else None) or {}
    for name in GRIDS if table else ():
        widths = [len(row) for row in table[name]]
        if widths != [len(table["tokens"])] * len(table["best"]):
            return f"$.everywhere.{name}: not a row for each of the depths with a cell for each of the tokens"
    return ""


def refuse_constant(name: str) -> float:
    """JSON text can spell numbers that no measurement has."""
    raise ValueError(f"{name} is no number of a measurement")


def read_measurement(data: bytes) -> Measurement:
    """Measurement of a file's bytes. Raises UserError that says what of it is wrong."""
    if len(data) > LARGEST:
        raise UserError(f"the file has {len(data) / 2**20:.0f} MB: at most {LARGEST // 2**20} are read")
    try:
        document = json.loads(data, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not a measurement: it is not JSON ({str(error)[:120]})") from None
    if not isinstance(document, dict):
        raise UserError("not a measurement: it is JSON, but no object")
    command, model = "", document.get("model")
    if document.get("format") == FORMAT:
        if document.get("version") != VERSION:
            raise UserError(f"the measurement has version {document.get('version')!r}; this release reads {VERSION}")
        command = str(document.get("command", ""))
        kind, found = str(document.get("kind", "")), document.get("found")
        if kind not in SUBJECTS or not isinstance(found, dict):
            raise UserError(f"not a measurement: its kind {kind[:40]!r} is none of {', '.join(SUBJECTS)}")
    else:
        kind, found = recognise(document), document
    if fault := find_departure(kind, found):
        raise UserError(f"not a result of `{kind}`: {fault}")
    named = {key: str(value) for key, value in model.items()} if isinstance(model, dict) else {}
    if isinstance(model, str):
        named = {"name": model}
    return Measurement(kind, found, command, named)


def open_measurement(path: Path) -> Measurement:
    """Measurement of a file. Raises UserError when it is missing or not one."""
    try:
        return read_measurement(read_bytes(path))
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None


def save_measurement(measured: Measurement, path: Path) -> None:
    """Write one file whole or not at all; the same measurement gives the same bytes."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "kind": measured.kind,
        "command": measured.command,
        "model": dict(measured.model),
        "found": measured.found,
    }
    write_file(path, dump_json(document, indent=1, sort_keys=True) + b"\n")


def import_measurement(data: bytes, folder: Path) -> str:
    """Keep an uploaded file under a new name, which is returned. Raises UserError when it is no measurement."""
    measured = read_measurement(data)
    name = name_measurement(measured.kind, folder)
    save_measurement(measured, folder / f"{name}.json")
    return name
