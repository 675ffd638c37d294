"""Saved runs as one line each, ten thousand of them at once: an index beside them remembers what their files say.

`.runs.json` in the runs folder holds a line for every run, with size and time of its run.json; only files that changed
since are read again. It is a cache: deleting it costs one slow listing, and nothing in it is believed over a run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.progress import Tick, quiet
from probes.strict_json import parse_json
from workbench.json_values import are_texts, is_number
from workbench.runs import read_about
from workbench.storage import write_file

INDEX = ".runs.json"
FORMAT = "memory-circuits/run-index"
VERSION = 1
MEMORIES = ("bank", "explicit", "text")


@dataclass(frozen=True, slots=True)
class Entry:
    """One saved run. `fact` and `relation` are empty for a typed prompt, `memories` those attached to the clean run.

    `faithfulness` is normalised (0 everything ablated, 1 the whole model); `stamp` is when run.json was written,
    nanoseconds since 1970, and `size` its bytes.
    """

    name: str
    prompt: str
    answer: str
    foil: str
    fact: str
    relation: str
    model: str
    memories: tuple[str, ...]
    pairs: int
    method: str
    ablation: str
    metric: str
    unit: str
    edges: int
    faithfulness: float | None
    stamp: int
    size: int

    @property
    def saved(self) -> datetime:
        """When it was written, UTC."""
        return datetime.fromtimestamp(self.stamp / 1e9, UTC)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; empty: any. `words` must all occur in a run's name, prompt, answer, foil or fact.

    `memories` must all be attached; `since` and `until` are days, both included.
    """

    words: str = ""
    models: Collection[str] = ()
    methods: Collection[str] = ()
    relations: Collection[str] = ()
    memories: Collection[str] = ()
    since: date | None = None
    until: date | None = None

    def keep(self, entry: Entry) -> bool:
        """Whether a run passes."""
        text = f"{entry.name} {entry.prompt} {entry.answer} {entry.foil} {entry.fact} {entry.relation}".lower()
        day = entry.saved.date()
        return (
            all(word in text for word in self.words.lower().split())
            and (not self.models or entry.model in self.models)
            and (not self.methods or entry.method in self.methods)
            and (not self.relations or entry.relation in self.relations)
            and set(self.memories) <= set(entry.memories)
            and (self.since is None or day >= self.since)
            and (self.until is None or day <= self.until)
        )


def pick(value: Any, name: str) -> dict[str, Any]:
    """A member that is an object; an empty one where it is not."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def spell(value: Any) -> str:
    """A text of a file, empty where there is none."""
    return "" if value is None else str(value)


def describe_entry(name: str, about: dict[str, Any], stamp: int, size: int) -> Entry:
    """The line of a run.json; what it does not say is empty."""
    circuit, memories, faithfulness = (pick(about, key) for key in ("circuit", "memories", "faithfulness"))
    pairs, edges = about.get("pairs"), circuit.get("edges")
    pair = pairs[0] if isinstance(pairs, list) and pairs and isinstance(pairs[0], dict) else {}
    fact, model = pick(about, "fact"), pick(about, "settings").get("model")
    share = faithfulness.get("normalised")
    return Entry(
        name=name,
        prompt=spell(pair.get("clean")),
        answer=spell(pair.get("answer")),
        foil=spell(pair.get("foil")),
        fact=spell(fact.get("id")),
        relation=spell(fact.get("relation")),
        model=spell(model or pick(about, "model").get("name")),
        memories=tuple(key for key in MEMORIES if memories.get(key)),
        pairs=len(pairs) if isinstance(pairs, list) else 0,
        **{key: spell(circuit.get(key)) for key in ("method", "ablation", "metric", "unit")},
        edges=len(edges) if isinstance(edges, list) else 0,
        faithfulness=float(share) if isinstance(share, int | float) and is_number(share) else None,
        stamp=stamp,
        size=size,
    )


def is_whole(entry: Entry) -> bool:
    """Whether a line of the index has a value of the right type everywhere."""
    kinds: dict[str, Any] = {"str": str, "int": int, "tuple[str, ...]": tuple, "float | None": float | None}
    return are_texts([*entry.memories]) and all(
        isinstance(getattr(entry, one.name), kinds[str(one.type)]) for one in fields(Entry)
    )


def read_index(folder: Path) -> dict[str, Entry]:
    """Lines of the index by name; none where it is missing, damaged or of another release."""
    try:
        document = parse_json((folder / INDEX).read_bytes())
        if (document["format"], document["version"]) != (FORMAT, VERSION):
            return {}
        entries = [Entry(**{**line, "memories": tuple(line["memories"])}) for line in document["runs"]]
        return {entry.name: entry for entry in entries if is_whole(entry)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_index(folder: Path, entries: list[Entry]) -> None:
    """Replace the index; a folder that cannot be written has none."""
    names = [one.name for one in fields(Entry)]
    lines = [{name: value for name, value in asdict(entry).items() if name in names} for entry in entries]
    document = {"format": FORMAT, "version": VERSION, "runs": lines}
    try:
        write_file(folder / INDEX, json.dumps(document, separators=(",", ":")).encode())
    except UserError:
        return


def list_stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Time and size of the run.json of every run directly inside a folder, by name."""
    found = {}
    with os.scandir(folder) as scan:
        for one in scan:
            if one.name.startswith("."):
                continue
            try:
                about = os.stat(f"{one.path}/run.json")
            except OSError:
                continue
            found[one.name] = (about.st_mtime_ns, about.st_size)
    return found


def list_entries(folder: Path, tick: Tick = quiet) -> list[Entry]:
    """Every readable run of a folder, the newest first; runs that are new or changed are read, and remembered.

    `tick` counts those that have to be read.
    """
    if not folder.is_dir():
        return []
    stamps, known = list_stamps(folder), read_index(folder)
    entries, fresh = [], []
    for name, (stamp, size) in stamps.items():
        entry = known.get(name)
        if entry is not None and (entry.stamp, entry.size) == (stamp, size):
            entries.append(entry)
        else:
            fresh.append(name)
    for done, name in enumerate(fresh):
        tick("reading runs", done, len(fresh))
        try:
            entries.append(describe_entry(name, read_about(folder / name), *stamps[name]))
        except UserError:
            continue
    if {entry.name: entry for entry in entries} != known:
        write_index(folder, entries)
    return sorted(entries, key=lambda entry: (-entry.stamp, entry.name))


def filter_entries(entries: list[Entry], filters: Filters) -> list[Entry]:
    """Runs that the filters leave, in their order."""
    return [entry for entry in entries if filters.keep(entry)]
