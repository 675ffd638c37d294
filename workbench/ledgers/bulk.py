"""Ledgers of many facts as one table: a row a fact and component, in chunks that can be stopped and resumed.

1. Every fact of the table is laid out, or set aside with the reason (it cannot be read, is a duplicate, has no foil as
   long in tokens, its subject stands inside another's).
2. Facts of one condition stand together, in chunks of a fixed number; a chunk is one batch.
3. Each chunk is one Parquet part with a name of its own, renamed into place when whole. What is there is not measured
   again, so a table that was stopped and resumed is the same, byte for byte. A fact that the model does not answer has
   a row with that reason instead of components.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.facts import Fact, build_fact, read_rows
from probes.progress import Tick, quiet
from probes.strict_json import parse_json
from workbench.engine import Engine
from workbench.ledgers.measuring import describe_source, measure_batch
from workbench.ledgers.prompts import Laid, lay_fact
from workbench.ledgers.table import METHOD, Ledger, list_rows
from workbench.settings import Settings
from workbench.storage import read_bytes, write_file
from workbench.sweeps.parts import REFUSED, encode_rows, load_table, name_part, open_folder

if TYPE_CHECKING:
    from circuits.parts import Removal

HEAD = "attribute.json"
FORMAT, VERSION = "memory-circuits/attribution-table", 1

# Columns of the table, in order, with their Arrow types; shares are in the metric's unit.
COLUMNS = {
    "fact": "string",
    "row": "string",
    "format": "string",
    "label": "string",
    "component": "string",
    "token": "string",
    "share": "float64",
    "alone": "float64",
    "last": "float64",
    "effect": "float64",
    "count": "int64",
    "answer": "string",
    "foil": "string",
    "margin": "float64",
    "metric": "string",
    "unit": "string",
    "removal": "string",
    "method": "string",
    "reason": "string",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A row of the table that is not measured, and why."""

    fact: str
    reason: str


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done: chunks of laid facts of one condition each, and what is set aside."""

    chunks: tuple[tuple[Laid, ...], ...]
    refused: tuple[Refused, ...]
    total: int


def find_nested(facts: Sequence[Fact]) -> dict[str, str]:
    """Subjects that stand inside a longer subject, each with the first such: the longest, then by alphabet.

    The cost grows with the number of subjects times their length times the number of different lengths, so that a
    hundred thousand subjects take seconds, where comparing all pairs would take minutes.
    """
    subjects = {fact.subject for fact in facts}
    lengths = sorted({len(subject) for subject in subjects})
    found = dict[str, str]()
    for longer in sorted(subjects, key=lambda subject: (-len(subject), subject)):
        for length in lengths[: bisect_left(lengths, len(longer))]:
            for start in range(len(longer) - length + 1):
                if (part := longer[start : start + length]) in subjects:
                    found.setdefault(part, longer)
    return found


def read_table(path: Path, known: Sequence[Fact]) -> tuple[list[Fact], list[Refused], int]:
    """Facts of a table, those that cannot be read, and the number of rows.

    A row with nothing but the `id` of a `known` (shipped) fact stands for that fact. Raises UserError for a table that
    cannot be read or has no rows.
    """
    rows = read_rows(path)
    if not rows:
        raise UserError(
            f"{path} has no rows: give a fact a row, with its id or with id, subject, relation, object, "
            "prompt and answer"
        )
    shipped = {fact.id: fact for fact in known}
    documents = {fact.document_id: fact.document for fact in known}
    facts, refused = list[Fact](), list[Refused]()
    for number, row in enumerate(rows, start=1):
        try:
            if not isinstance(row, dict):
                raise UserError("the row is no record of named columns")
            name = str(row.get("id") or "")
            given = any(row.get(column) for column in ("prompt", "answer", "subject"))
            if name and name not in shipped and not given:
                raise UserError(f"no shipped fact has the id {name[:80]!r}, and the row says nothing else of it")
            facts.append(shipped[name] if name in shipped and not given else build_fact(read_lists(row), documents))
        except (UserError, TypeError, ValueError) as error:
            name = str(row.get("id") or "") if isinstance(row, dict) else ""
            refused.append(Refused(name or f"row {number}", f"cannot be read: {error}"))
    return facts, refused, len(rows)


def read_lists(row: dict[str, Any]) -> dict[str, Any]:
    """The row with lists that a text table holds as JSON read, and empty ones left out. Raises ValueError."""
    lists = ("cluster_path", "paraphrases", "heldout_paraphrases")
    texts = {name: row[name] for name in lists if isinstance(row.get(name), str)}
    kept = {name: value for name, value in row.items() if value not in (None, "")}
    return kept | {name: parse_json(text) for name, text in texts.items() if text}


def refuse_facts(facts: Sequence[Fact]) -> tuple[list[Fact], list[Refused]]:
    """Facts to be measured, and those that are duplicates or whose subject stands inside another's."""
    nested = find_nested(facts)
    kept, refused, ids, questions = list[Fact](), list[Refused](), set[str](), set[tuple[str, str]]()
    for fact in facts:
        question = fact.prompt.strip(), fact.answer.strip()
        if fact.id in ids or question in questions:
            refused.append(Refused(fact.id, "duplicate: an earlier row has the same id, or the same prompt and answer"))
        elif fact.subject in nested:
            refused.append(
                Refused(
                    fact.id,
                    f"subject {fact.subject!r} stands inside {nested[fact.subject]!r}: which is meant is not certain",
                )
            )
        else:
            kept.append(fact)
        ids.add(fact.id)
        questions.add(question)
    return kept, refused


def plan(engine: Engine, path: Path, settings: Settings, chunk: int) -> Planned:
    """Lay out every fact of a table, and put those of one condition into chunks of `chunk`."""
    read, refused, total = read_table(path, engine.facts)
    facts, more = refuse_facts(read)
    refused += more
    groups = dict[tuple[bool, int, int], list[Laid]]()
    others = (
        engine.facts if {fact.id for fact in facts} <= {fact.id for fact in engine.facts} else (*facts, *engine.facts)
    )
    related = dict[str, list[Fact]]()
    for other in others:
        related.setdefault(other.relation, []).append(other)
    for fact in facts:
        try:
            laid = lay_fact(engine, fact, related.get(fact.relation, []), settings)
        except UserError as error:
            refused.append(Refused(fact.id, str(error)))
            continue
        groups.setdefault(laid.condition, []).append(laid)
    chunks = [
        # Prompts of like length stand together: less is filled up.
        tuple(sorted(group, key=lambda laid: (len(laid.behind), len(laid.plain)))[start : start + chunk])
        for _, group in sorted(groups.items())
        for start in range(0, len(group), chunk)
    ]
    return Planned(tuple(chunks), tuple(refused), total)


def list_facts(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """Rows of one measured fact: its ledger, or the reason where the model does not know the answer."""
    shared = {
        "fact": ledger.fact,
        "answer": ledger.answer,
        "foil": ledger.foil,
        "margin": ledger.margin,
        "metric": ledger.metric,
        "unit": ledger.unit,
        "removal": ledger.removal,
        "method": METHOD,
    }
    if not ledger.known:
        yield {**shared, "row": "reason", "reason": explain_unknown(ledger)}
        return
    for row in list_rows(ledger):
        yield {**shared, **row}


def explain_unknown(ledger: Ledger) -> str:
    """Why a fact that the model does not answer has no components."""
    return f"answer not known: the model says {ledger.said!r}"


def describe(engine: Engine, path: Path, settings: Settings, numbers: dict[str, Any]) -> dict[str, Any]:
    """Head of a table: format, and the question that a resumed run must share."""
    source = describe_source(engine, settings)
    versions = source.pop("versions")
    question = {"facts_sha256": hashlib.sha256(read_bytes(path)).hexdigest(), **source, **numbers}
    about = {"format": FORMAT, "version": VERSION, "versions": versions, "question": question}
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def attribute(
    engine: Engine,
    path: Path,
    folder: Path,
    settings: Settings,
    removal: Removal = "renormalised",
    top: int = 1000,
    threshold: float = 0.01,
    chunk: int = 32,
    tick: Tick = quiet,
) -> dict[str, Any]:
    """Write (or go on writing) the table of all facts of a file into a folder; gives the counts.

    Raises UserError for a table that cannot be read, and a folder that holds another table.
    """
    planned = plan(engine, path, settings, chunk)
    numbers = {"removal": removal, "top": top, "threshold": threshold, "chunk": chunk}
    open_folder(folder, HEAD, describe(engine, path, settings, numbers), "attribution table")
    resumed = 0
    for done, batch in enumerate(planned.chunks):
        tick("facts", done * chunk, planned.total)
        part = folder / name_part(done)
        if part.is_file():
            resumed += 1
            continue
        rows = [row for ledger in measure_chunk(engine, batch, removal, settings, top, threshold) for row in ledger]
        write_file(part, encode_rows(rows, COLUMNS))
    refused = [{"fact": one.fact, "row": "reason", "reason": one.reason} for one in planned.refused]
    write_file(folder / REFUSED, encode_rows(refused, COLUMNS))
    return count_table(folder, planned.total) | {"chunks": len(planned.chunks), "resumed": resumed}


def measure_chunk(
    engine: Engine, batch: Sequence[Laid], removal: Removal, settings: Settings, top: int, threshold: float
) -> Iterator[list[dict[str, Any]]]:
    """Rows of each fact of a chunk."""
    for ledger in measure_batch(engine, batch, removal, settings.metric, top, threshold, describe=False):
        yield list(list_facts(ledger))


def count_table(folder: Path, total: int) -> dict[str, Any]:
    """Facts measured and not, the latter by the first words of their reason. All together they are the input's rows."""
    table = load_table(folder)
    rows = zip(*(table.column(name).to_pylist() for name in ("fact", "row", "reason")), strict=True)
    measured, reasons = set[str](), Counter[str]()
    for fact, kind, reason in rows:
        if kind == "reason":
            reasons[str(reason).split(":")[0][:60]] += 1
        else:
            measured.add(fact)
    return {
        "facts": total,
        "measured": len(measured),
        "not_measured": dict(sorted(reasons.items())),
        "rows": table.num_rows,
    }
