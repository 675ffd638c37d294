"""Listing ten thousand saved runs: `python benchmarks/listing.py RUN`.

A traced run's run.json is copied into as many folders as asked for. Printed are milliseconds of the first listing,
which reads every file and writes the index, of listing again from the index (median), of filtering by a word, and of
building the table of the page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from workbench.run_index import Filters, filter_entries, list_entries
from workbench.views.run_tables import tabulate_entries


def measure(work: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of some work."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a saved run")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    options = parser.parse_args()
    data = (Path(options.run) / "run.json").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(options.runs):
            (folder / f"run-{number}").mkdir()
            (folder / f"run-{number}" / "run.json").write_bytes(data)
        first = measure(lambda: list_entries(folder), 1)
        again = measure(lambda: list_entries(folder), options.repeats)
        entries = list_entries(folder)
        row = {
            "runs": len(entries),
            "run.json kB": len(data) / 1000,
            "first ms": first,
            "again ms": again,
            "filter ms": measure(lambda: filter_entries(entries, Filters("no such word")), options.repeats),
            "table ms": measure(lambda: tabulate_entries(entries), options.repeats),
        }
    print(json.dumps(row) if options.json else "\n".join(f"{key}: {value:,.1f}" for key, value in row.items()))


if __name__ == "__main__":
    main()
