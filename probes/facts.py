"""Facts at rest: one row a fact, read from a Parquet, JSON-lines or CSV table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.parquet_tables import read_table
from probes.strict_json import parse_json

REQUIRED = ("id", "subject", "relation", "object", "prompt", "answer")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact and how to ask for it.

    `prompt` ends right before `answer`, which starts with its space. `bucket` runs from 1 (rarest in training) to 5,
    0 for a fact that never occurs there; `occurrences` is the exact count. `cluster_path` holds one cluster id a
    level of the bank, found by routing the prompt; `leaf_hit` says whether its document lies in the same leaf.
    `document_id` names the document that states the fact, `document` is its text (empty when there is none).
    """

    id: str
    subject: str
    relation: str
    object: str
    prompt: str
    answer: str
    kind: str = ""
    split: str = ""
    bucket: int = -1
    occurrences: int = -1
    cluster_path: tuple[int, ...] = ()
    leaf_hit: bool = False
    document_id: str = ""
    document: str = ""
    paraphrases: tuple[str, ...] = ()
    heldout_paraphrases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, one key a field."""
        return asdict(self)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Rows of a table, all of them records of named columns. Raises UserError when it cannot be read as that."""
    rows = read_rows(path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {number} is no record of named columns: {str(row)[:80]!r}")
    return rows


def read_rows(path: Path) -> list[Any]:
    """Rows of a table by the ending of its name; of .jsonl any values. Raises UserError when it cannot be read so."""
    try:
        if path.suffix == ".parquet":
            return list(read_table(path).to_pylist())
        if path.suffix == ".jsonl":
            return [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                # Cells beyond the headings have no name.
                return [{name: row[name] for name in row if name is not None} for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, OverflowError, NotImplementedError, csv.Error) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read the table {path}: {line}") from None
    raise UserError(f"{path} is none of .parquet, .jsonl, .csv")


def read_field(name: str, value: Any) -> Any:
    """Value of a column as a fact has it. Raises UserError for one of another kind."""
    if name in ("cluster_path", "paraphrases", "heldout_paraphrases"):
        kind: type = int if name == "cluster_path" else str
        if isinstance(value, list | tuple) and all(isinstance(one, kind) for one in value):
            return tuple(value)
    elif name in ("bucket", "occurrences"):
        if isinstance(value, str | int | float) and re.fullmatch(r"-?[0-9]{1,18}(\.0)?", str(value)):
            return int(float(value))
    elif name == "leaf_hit":
        return value if isinstance(value, bool) else str(value).lower() in ("true", "1")
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"a fact has the {name} {str(value)[:80]!r}, of another kind than a fact's")


def build_fact(row: Mapping[str, Any], documents: Mapping[str, str]) -> Fact:
    """Fact of one row; unknown columns are ignored. Raises UserError when a required column is missing or empty."""
    missing = [name for name in REQUIRED if not row.get(name)]
    if missing:
        raise UserError(f"a fact lacks {', '.join(missing)}: {str(dict(row))[:200]}")
    fields = {name: read_field(name, row[name]) for name in Fact.__dataclass_fields__ if row.get(name) is not None}
    fields.setdefault("document", documents.get(fields.get("document_id", ""), ""))
    return Fact(**fields)


def load_facts(folder: Path) -> tuple[Fact, ...]:
    """Facts of a folder with `facts.parquet` and `documents.parquet`; the latter may be absent.

    Raises UserError when the table is missing, lacks a column, or holds an id twice.
    """
    path = folder / "facts.parquet"
    if not path.is_file():
        raise UserError(f"no facts in {folder}: facts.parquet is missing")
    documents_path = folder / "documents.parquet"
    rows = read_rows(documents_path) if documents_path.is_file() else []
    documents = {str(row.get("id")): str(row.get("text") or "") for row in rows}
    facts = tuple(build_fact(row, documents) for row in read_rows(path))
    refuse_duplicates(facts)
    return facts


def refuse_duplicates(facts: Iterable[Fact]) -> None:
    """Raise UserError when two facts share an id."""
    seen: set[str] = set()
    for fact in facts:
        if fact.id in seen:
            raise UserError(f"two facts have the id {fact.id!r}: ids must be unique")
        seen.add(fact.id)


def find_fact(facts: Iterable[Fact], fact_id: str) -> Fact:
    """The fact of an id. Raises UserError, with ids that resemble it, when there is none."""
    by_id = {fact.id: fact for fact in facts}
    if fact_id in by_id:
        return by_id[fact_id]
    import difflib

    near = difflib.get_close_matches(fact_id, by_id, n=3, cutoff=0.4)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise UserError(f"no fact {fact_id[:80]!r}{hint} `memory-circuits facts` lists them")
