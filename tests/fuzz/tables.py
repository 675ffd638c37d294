"""Targets that are tables and what is measured: facts, prompt pairs, usage, sweeps, ledgers, studies, measurements."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from probes.facts import Fact, load_facts, read_rows
from tests.fuzz.cases import Attempt, Read, Target
from tests.fuzz.mutations import draw_value, mutate_bytes, mutate_json, spell_json
from tests.pages.measured import FOUND
from tests.studies import make_study
from tests.sweep_tables import list_rows
from tests.sweep_tables import write_table as write_sweep
from workbench.ledgers.placing import read_usage
from workbench.lens_tables import restore_table
from workbench.measurements import read_measurement, save_measurement
from workbench.pair_tables import list_questions
from workbench.placement import Measured, read_places
from workbench.quality import load_quality
from workbench.settings import Question, Settings
from workbench.size_curves import SizeCurve, load_curve, save_curve
from workbench.studies import find_study, load_study, save_study
from workbench.sweeps import queries
from workbench.sweeps.parts import encode_rows, load_table, open_folder
from workbench.sweeps.plans import COLUMNS, HEAD, plan_sweep
from workbench.views.component_figures import map_finder, scatter_components
from workbench.views.components import count_classes, map_heads, tabulate_components
from workbench.views.ledgers import (
    draw_waterfall,
    list_steps,
    map_readers,
    mark_kept,
    tabulate_answers,
    tabulate_combinations,
    tabulate_interactions,
    tabulate_ledger,
    tabulate_path,
    tabulate_readers,
)  # fmt: skip
from workbench.views.readout_figures import (
    draw_lens,
    draw_restored,
    scatter_classes,
    tabulate_classes,
    tabulate_restored,
)  # fmt: skip

Row = dict[str, Any]
FACT: Row = {
    "id": "capital/France", "subject": "France", "relation": "capital", "object": "Paris", "kind": "country",
    "split": "trained", "bucket": 4, "occurrences": 20, "cluster_path": [0, 1], "leaf_hit": True,
    "document_id": "d-1", "prompt": "The capital of France is", "answer": " Paris", "paraphrases": ["France's is"],
}  # fmt: skip
PAIR: Row = {
    "prompt": "The capital of France is", "answer": " Paris", "counterfactual": "The capital of Italy is",
    "foil": " Rome",
}  # fmt: skip
MANY = 20_000


def repeat(row: Row, count: int) -> list[Row]:
    """Rows that differ in a number."""
    return [
        {key: f"{cell} {number}" if isinstance(cell, str) else cell for key, cell in row.items()}
        for number in range(count)
    ]


def encode_csv(rows: Sequence[Row]) -> bytes:
    """Rows as CSV, lists as JSON."""
    text = io.StringIO()
    columns = list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row))
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(name, "") if isinstance(row, dict) else row for name in columns]
        writer.writerow([json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in cells])
    return text.getvalue().encode("utf-8", "surrogatepass")


def encode_jsonl(rows: Sequence[Row]) -> bytes:
    """A JSON value a line."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def encode_parquet(rows: Sequence[Row]) -> bytes:
    """Rows as Parquet; cells of a column that fit no common type as text, and what is no table as an empty one."""
    columns: dict[str, pa.Array] = {}
    rows = [row for row in rows if isinstance(row, dict)]
    for name in dict.fromkeys(key for row in rows for key in row):
        cells = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(cells)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            columns[name] = pa.array([json.dumps(cell) for cell in cells])
    sink = io.BytesIO()
    names = {name.encode("utf-8", "replace").decode(): column for name, column in columns.items()}
    try:
        pq.write_table(pa.table(names), sink)
    except pa.ArrowException:
        # Types that Arrow has and Parquet has not.
        return encode_parquet([{name: json.dumps(cell) for name, cell in row.items()} for row in rows])
    return sink.getvalue()


ENCODERS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    ".csv": encode_csv,
    ".jsonl": encode_jsonl,
    ".parquet": encode_parquet,
}


def draw_rows(draw: Random, row: Row) -> list[Any]:
    """A table's rows: none, many, doubled, mutated cells, other columns."""
    rows: list[Any] = repeat(row, draw.choice((0, 1, 2, 3, 5)) if draw.randrange(200) else MANY)
    for _ in range(draw.randrange(3)):
        match draw.randrange(5):
            case 0 if rows:
                rows.append(rows[0])
            case 1 if all(isinstance(one, dict) for one in rows):
                name = draw.choice(list(row))
                for one in rows:
                    one.pop(name, None)
            case 2 if rows and all(isinstance(one, dict) for one in rows):
                draw.choice(rows)[draw.choice(list(row))] = draw_value(draw)
            case 3 if len(rows) < MANY:
                changed = mutate_json(draw, rows)
                rows = changed if isinstance(changed, list) else [changed]
            case _:
                rows.append({})
    return rows


def write_rows(draw: Random, folder: Path, row: Row) -> Path:
    """A table of one kind, often with some of its bytes changed."""
    suffix = draw.choice(list(ENCODERS))
    path = folder / f"table{suffix}"
    data = ENCODERS[suffix](draw_rows(draw, row))
    path.write_bytes(data if draw.randrange(3) else mutate_bytes(draw, data))
    return path


def prepare_tables(row: Row, use: Callable[[Path], object]) -> Callable[[Path], Attempt]:
    """Tables of one kind of row."""

    def prepare(workspace: Path) -> Attempt:
        def attempt(draw: Random) -> Read:
            path = write_rows(draw, workspace, row)

            def read() -> None:
                use(path)

            return read

        return attempt

    return prepare


def use_facts(path: Path) -> None:
    """Plan a sweep over a table of facts: every row is a fact that can be measured, or refused with its reason."""
    known = (Fact("d/1", "a", "b", "c", "a b", " c", document_id="d-1", document="text"),)
    plan = plan_sweep(path, known, ("given",), 100)
    assert plan.total >= len(plan.own)
    for fact in plan.own:
        texts = fact.id, fact.subject, fact.relation, fact.object, fact.prompt, fact.answer, fact.document_id
        assert all(isinstance(text, str) for text in (*texts, *fact.paraphrases, fact.kind, fact.split, fact.document))
        assert all(isinstance(cluster, int) for cluster in fact.cluster_path)


def use_pairs(path: Path) -> None:
    """Read a data set of prompt pairs."""
    for question in list_questions(Question(pairs=str(path)), Settings()):
        assert question.prompt.strip() and question.answer.strip()


def prepare_facts(workspace: Path) -> Attempt:
    """A folder with facts.parquet and documents.parquet, as a model that is shipped has them."""

    def attempt(draw: Random) -> Read:
        for name, row in (("facts", FACT), ("documents", {"id": "d-1", "text": "Paris."})):
            data = encode_parquet(draw_rows(draw, row) if draw.randrange(2) else repeat(row, 2))
            (workspace / f"{name}.parquet").write_bytes(data if draw.randrange(4) else mutate_bytes(draw, data))
        return lambda: use_folder(workspace)

    return attempt


def use_folder(folder: Path) -> None:
    """Read the facts of a folder."""
    for fact in load_facts(folder):
        json.dumps(fact.to_json())


def prepare_sweep(workspace: Path) -> Attempt:
    """A folder of sweeps whose parts or head are wrong, by SQL and as one table."""
    folder = write_sweep(workspace / "sweeps" / "first")
    rows = list_rows("a", "capital", 1.0, "ledger")

    def attempt(draw: Random) -> Read:
        part = folder / "part-000001.parquet"
        data = encode_rows(rows, COLUMNS) if draw.randrange(2) else encode_parquet(draw_rows(draw, rows[0]))
        part.write_bytes(data if draw.randrange(3) else mutate_bytes(draw, data))
        if draw.randrange(8) == 0:
            (folder / HEAD).write_bytes(spell_json(draw, {"question": {}}))
        else:
            (folder / HEAD).write_text('{"question": {}}')
        return lambda: use_sweep(folder)

    return attempt


def use_sweep(folder: Path) -> None:
    """Every query of the page, and what the commands do."""
    connection = queries.open_sweeps(folder.parent, threads=1)
    try:
        chosen = queries.Filter((("condition", ("given",)),), "a")
        for query in (queries.list_values, queries.count_outcomes):
            query(connection)
        for ask in (queries.rank_components, queries.count_values, queries.average_formats, queries.summarise):
            ask(connection, chosen)
        queries.ask(connection, "SELECT * FROM sweeps").to_json()
    finally:
        connection.close()
    load_table(folder)
    open_folder(folder, HEAD, {"question": {}}, "sweep")


def prepare_places(workspace: Path) -> Attempt:
    """A table of attributions, as Placement reads it."""
    row = {
        "fact": "a",
        "row": "format",
        "format": "memory 1",
        "share": 1.5,
        "margin": 2.0,
        "unit": "logits",
        "reason": "",
    }

    def attempt(draw: Random) -> Read:
        data = encode_parquet(draw_rows(draw, row))
        (workspace / "part-000000.parquet").write_bytes(data if draw.randrange(3) else mutate_bytes(draw, data))
        return lambda: check_places(read_places(workspace))

    return attempt


def check_places(places: Mapping[str, Measured]) -> None:
    """Every fact's place is one that can be counted and shown."""
    for fact, one in places.items():
        assert isinstance(fact, str) and isinstance(one.lives, str)


def prepare_study(workspace: Path) -> Attempt:
    """A study's file: ledgers, references, path, answers."""
    save_study(make_study("first"), workspace)
    path = find_study("first", workspace)
    document = json.loads(path.read_bytes())

    def attempt(draw: Random) -> Read:
        path.write_bytes(spell_json(draw, document))
        return read

    def read() -> None:
        study = load_study("first", workspace)
        assert study.title is not None
        for ledger in study.ledgers:
            draw_waterfall(list_steps(ledger, 3), ledger.unit)
            for tabulate in (tabulate_ledger, tabulate_interactions, tabulate_combinations):
                tabulate(ledger)
        for reference in study.references:
            mark_kept(reference)
            map_readers(reference)
            tabulate_readers(reference, study.ledgers[0] if study.ledgers else None)
        tabulate_path(study.path)
        tabulate_answers(study.answers)

    return attempt


def prepare_measurement(workspace: Path) -> Attempt:
    """What a command printed with --json, opened by the page Knowledge."""

    def attempt(draw: Random) -> Read:
        data = spell_json(draw, FOUND[draw.choice(list(FOUND))])
        return lambda: use_measurement(data, workspace)

    return attempt


def use_measurement(data: bytes, workspace: Path) -> None:
    """Keep a measurement, and draw what the page would."""
    measured = read_measurement(data)
    save_measurement(measured, workspace / "measured.json")
    found: Mapping[str, Any] = measured.found
    if measured.kind == "specificity":
        rows = found["components"]
        tabulate_components(rows)
        count_classes(rows)
        map_heads(rows, "largest")
        scatter_components(rows, str(found["unit"]), "a0.h1")
    elif measured.kind == "classes":
        tabulate_classes(measured.found)
        scatter_classes(measured.found)
    elif measured.kind == "restore":
        draw_restored(measured.found)
        tabulate_restored(measured.found)
    elif measured.kind == "heads":
        map_finder(found["rows"])
    elif measured.kind == "lens" and found.get("everywhere"):
        draw_lens(restore_table(found["everywhere"]))


def prepare_beside(workspace: Path) -> Attempt:
    """What lies beside a run: its curve of sizes and its quality."""
    save_curve(workspace, SizeCurve((1, 2), (0.1, 0.9), (0.0, 0.1), (0.0, 0.0), (0.1, 0.2), 5, 0))
    curve = json.loads((workspace / "curve.json").read_bytes())
    quality = {"format": "memory-circuits/quality", "version": 1, "curves": {"x": [0.1]}}

    def attempt(draw: Random) -> Read:
        (workspace / "curve.json").write_bytes(spell_json(draw, curve))
        (workspace / "quality.json").write_bytes(spell_json(draw, quality))
        return read

    def read() -> None:
        load_curve(workspace)
        load_quality(workspace)

    return attempt


TARGETS = (
    Target("fact table", prepare_tables(FACT, use_facts)),
    Target("facts.parquet", prepare_facts),
    Target("prompt-pair table", prepare_tables(PAIR, use_pairs)),
    Target("usage table", prepare_tables({"id": "capital/France", "usage": 3}, lambda path: read_usage(path, None))),
    Target("any table", prepare_tables({"a": 1}, read_rows)),
    Target("sweep", prepare_sweep),
    Target("attribution table", prepare_places),
    Target("study", prepare_study),
    Target("measurement", prepare_measurement),
    Target("curve and quality", prepare_beside),
)
