"""Many cases of every fuzzing target: `python -m benchmarks.fuzzing --cases 10000`.

Each case makes a whole artefact wrong (bytes, nodes of JSON, cells, options), reads it as the project would and uses
what was read. It is accepted, refused with one clear line, or a fault: any other exception, longer than 10 s, a message
that is not one clear line, a write outside the workspace. Faults are printed with the number of their case, which
`--first NUMBER --cases 1` runs again. Exit code 1 with any.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.shapes import format_table
from tests.fuzz import banks, checkpoints, commands, documents, files, tables
from tests.fuzz.cases import Tally, Target, run_cases
from tests.fuzz.guard import limit_memory
from workbench.documents import place_tables

TARGETS = (
    *files.TARGETS, *banks.TARGETS, *tables.TARGETS, *documents.TARGETS, *commands.TARGETS, *checkpoints.TARGETS
)  # fmt: skip


def run_target(target: Target, numbers: range, seed: int) -> tuple[Tally, list[str]]:
    """Outcomes of a target, and what lies beside its workspace afterwards, where nothing may."""
    with tempfile.TemporaryDirectory() as name, limit_memory():
        workspace = Path(name) / "work"
        workspace.mkdir()
        tally = run_cases(target, workspace, numbers, seed)
        beside = [path.name for path in Path(name).iterdir() if path != workspace]
    return tally, beside


def describe(tally: Tally, beside: list[str]) -> dict[str, object]:
    """One row of the table."""
    return {
        "target": tally.target,
        "cases": tally.cases,
        "refused clearly": tally.refused,
        "accepted": tally.accepted,
        "faults": len(tally.faults),
        "writes outside": tally.outside + len(beside),
        "slowest case, s": tally.slowest,
        "peak of the process, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def print_faults(tally: Tally, most: int = 20) -> None:
    """Different faults with how often each was met and the first case of it."""
    kinds = Counter(fault for _, fault in tally.faults)
    first = dict(reversed([(fault, number) for number, fault in tally.faults]))
    for fault, count in kinds.most_common(most):
        print(f"{tally.target}, {count} times, first in case {first[fault]}: {fault}", file=sys.stderr)


def main() -> int:
    """Print one row a target, or place the table in a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a target's name; may be given again")
    parser.add_argument("--into", metavar="DOCUMENT", help="place the table there instead of printing it")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    numbers, rows = range(options.first, options.first + options.cases), []
    for target in TARGETS:
        if not options.only or target.name in options.only:
            tally, beside = run_target(target, numbers, options.seed)
            print_faults(tally)
            rows.append(describe(tally, beside))
    if options.into:
        place_tables(Path(options.into), format_table(rows))
    else:
        print(format_table(rows))
    return 1 if any(row["faults"] or row["writes outside"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
