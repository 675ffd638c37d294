"""How long the page of sweeps takes over many rows: `python benchmarks/query.py`.

Writes parts of random rows of the shape that a sweep of EAP and ledgers has (so many facts, nodes, edges, formats and
parts of each), opens them as the page does, and times what the page asks: opening, the lists to filter by with the
counts of outcomes (once for a folder), and everything that is drawn after a filter was changed. Wanted: at most 2 s for
what is drawn from 10 million rows. Nothing here depends on a model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from shapes import print_table

from workbench.sweeps.parts import name_part
from workbench.sweeps.plans import COLUMNS, HEAD
from workbench.sweeps.queries import (
    Filter,
    average_formats,
    count_outcomes,
    count_values,
    list_values,
    open_sweeps,
    rank_components,
    summarise,
)

# Rows of one fact: 20 nodes and 20 edges by EAP, 5 formats with 20 parts each and their rests by its ledger.
FACT = 20 + 20 + 5 * (1 + 20 + 2)


def draw_part(generator: np.random.Generator, first: int, facts: int) -> pa.Table:
    """Rows of some facts, in the order in which a sweep writes them."""
    kinds = np.array(
        (["node"] * 20 + ["edge"] * 20) + (["format"] + ["component"] * 20 + ["other parts", "residual"]) * 5
    )
    rows, count = facts * len(kinds), len(kinds)
    numbers = np.repeat(np.arange(first, first + facts), count)
    kind, ledger = np.tile(kinds, facts), np.tile(np.arange(count) >= 40, facts)
    heads = np.array([f"a{layer}.h{head}" for layer in range(12) for head in range(12)], dtype=object)
    named = np.isin(kind, ("node", "edge", "component"))
    nothing = np.full(rows, None, dtype=object)
    columns: dict[str, object] = {
        "fact": np.char.add("relation/fact-", numbers.astype(str)).astype(object),
        "relation": np.char.add("relation ", (numbers % 40).astype(str)).astype(object),
        "condition": np.full(rows, "given", dtype=object),
        "method": np.where(ledger, "ledger", "eap").astype(object),
        "row": kind.astype(object),
        "component": np.where(named, heads[generator.integers(0, len(heads), rows)], nothing),
        "reader": np.where(kind == "edge", heads[generator.integers(0, len(heads), rows)], nothing),
        "format": np.where(ledger, np.array([f"format {i}" for i in range(5)], dtype=object)[numbers % 5], nothing),
        "value": generator.normal(size=rows) * generator.random(rows) ** 4,
        "metric": np.full(rows, "logit-diff", dtype=object),
        "unit": np.full(rows, "logits", dtype=object),
    }
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    arrays = [pa.array(columns.get(field.name, nothing), type=field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_sweep(folder: Path, rows: int, chunk: int) -> int:
    """Parts of about so many rows, `chunk` facts each; gives how many rows there are."""
    folder.mkdir(parents=True)
    (folder / HEAD).write_text(json.dumps({}))
    generator, facts = np.random.default_rng(0), -(-rows // FACT)
    for number, first in enumerate(range(0, facts, chunk)):
        table = draw_part(generator, first, min(chunk, facts - first))
        pyarrow.parquet.write_table(table, folder / name_part(number), compression="zstd")
    return facts * FACT


def draw_page(connection: duckdb.DuckDBPyConnection, chosen: Filter) -> None:
    """Everything that the page asks after a filter was changed."""
    for ask in (summarise, rank_components, count_values, average_formats):
        ask(connection, chosen)


def measure(work: Callable[[], object], repeats: int) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main() -> None:
    """Print one row a filter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--chunk", type=int, default=128, help="facts of a part")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    filters = {
        "all nodes": Filter((("method", ("eap",)), ("row", ("node",)))),
        "all parts of ledgers": Filter((("method", ("ledger",)), ("row", ("component",)))),
        "everything": Filter(),
        "one relation's edges of a layer": Filter((("row", ("edge",)), ("relation", ("relation 7",))), "a3."),
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = write_sweep(folder / "many", options.rows, options.chunk)
        parts = len(list((folder / "many").glob("part-*")))
        opening = measure(lambda: open_sweeps(folder, options.threads).close(), options.repeats)
        connection = open_sweeps(folder, options.threads)
        once = measure(lambda: (list_values(connection), count_outcomes(connection)), options.repeats)
        print(f"{rows:,} rows in {parts:,} parts, {options.threads} threads, medians of {options.repeats}, "
              f"duckdb {duckdb.__version__}\n")  # fmt: skip
        found: list[dict[str, object]] = [
            {"what": "opening", "seconds": opening},
            {"what": "lists and counts, once", "seconds": once},
        ]
        for name, chosen in filters.items():
            seconds = measure(lambda chosen=chosen: draw_page(connection, chosen), options.repeats)  # type: ignore[misc]
            found.append({"what": f"drawing {name}", "seconds": seconds})
        print_table(found)


if __name__ == "__main__":
    main()
