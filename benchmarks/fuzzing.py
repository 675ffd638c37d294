"""Many cases of every fuzzing target: `python -m benchmarks.fuzzing --cases 10000 --minutes-each 2`.

Each case makes a whole artefact wrong (bytes, nodes of JSON, cells, options, links), reads it as the project would and
uses what was read. It is accepted, refused with one clear line, or a fault: any other exception, longer than 10 s, a
message that is not one clear line, a write outside the workspace. Faults are printed with the number of their case,
which `--first NUMBER --cases 1` runs again. `--cases` is the most of each target, `--minutes-each` the longest;
`--cases-of 'command line=500'` says it for one target, `--cases-of 'link to *=400'` for several; `--share 1/2` takes
every second target, for two processes at a time, whose `--rows` are put together with `--join`. How many cases were run
stands in the table. Exit code 1 with any fault.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.shapes import format_table
from tests.fuzz import banks, checkpoints, commands, documents, files, links, tables
from tests.fuzz.cases import Tally, Target, run_cases
from tests.fuzz.guard import limit_memory
from workbench.documents import place_tables

TARGETS = (
    *files.TARGETS, *banks.TARGETS, *tables.TARGETS, *documents.TARGETS, *links.TARGETS, *commands.TARGETS,
    *checkpoints.TARGETS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried of a target: the first case, so many, for at most so many seconds."""

    first: int
    cases: int
    seconds: float
    seed: int


def run_target(target: Target, effort: Effort) -> dict[str, object]:
    """One row of the table: outcomes of a target, and what lies beside its workspace afterwards, where nothing may."""
    numbers, start = range(effort.first, effort.first + effort.cases), time.perf_counter()
    with tempfile.TemporaryDirectory() as name, limit_memory():
        workspace = Path(name) / "work"
        workspace.mkdir()
        tally = run_cases(target, workspace, numbers, effort.seed, effort.seconds)
        beside = [path.name for path in Path(name).iterdir() if path != workspace]
    print_faults(tally)
    return describe(tally, beside, time.perf_counter() - start)


def describe(tally: Tally, beside: list[str], seconds: float) -> dict[str, object]:
    """One row of the table."""
    return {
        "target": tally.target,
        "cases": tally.cases,
        "refused clearly": tally.refused,
        "accepted": tally.accepted,
        "faults": len(tally.faults),
        "writes outside": tally.outside + len(beside),
        "ms a case": 1000 * seconds / max(tally.cases, 1),
        "slowest case, s": tally.slowest,
        "peak of the process, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def print_faults(tally: Tally, most: int = 20) -> None:
    """Different faults with how often each was met and the first case of it."""
    kinds = Counter(fault for _, fault in tally.faults)
    first = dict(reversed([(fault, number) for number, fault in tally.faults]))
    for fault, count in kinds.most_common(most):
        print(f"{tally.target}, {count} times, first in case {first[fault]}: {fault}", file=sys.stderr)


def match_targets(pattern: str) -> list[str]:
    """Names of the targets of a pattern. Raises SystemExit where there are none."""
    names = [target.name for target in TARGETS]
    found = fnmatch.filter(names, pattern.strip())
    if not found:
        raise SystemExit(f"{pattern.strip()!r} is none of the targets: {', '.join(sorted(names))}")
    return found


def read_counts(words: Sequence[str]) -> dict[str, int]:
    """Cases of single targets, from `name=count`; `*` stands for any part of a name, and of two words the later holds.

    Raises SystemExit where no target has such a name.
    """
    counts = dict[str, int]()
    for word in words:
        pattern, _, count = word.rpartition("=")
        if not re.fullmatch("[0-9]{1,9}", count.strip()):
            raise SystemExit(f"{word!r} is not TARGET=COUNT")
        counts |= dict.fromkeys(match_targets(pattern), int(count))
    return counts


def choose_targets(only: Sequence[str], share: str) -> list[Target]:
    """The targets asked for. Raises SystemExit for a name or pattern of none."""
    place, _, parts = share.partition("/")
    names = {name for pattern in only or ["*"] for name in match_targets(pattern)}
    chosen = [target for target in TARGETS if target.name in names]
    return chosen[int(place) - 1 :: int(parts)]


def run_targets(
    targets: Sequence[Target], counts: Mapping[str, int], options: argparse.Namespace
) -> list[dict[str, object]]:
    """Rows of the table; each is told when it is done."""
    rows = []
    for target in targets:
        cases = counts.get(target.name, options.cases)
        rows.append(run_target(target, Effort(options.first, cases, options.minutes_each * 60, options.seed)))
        row = rows[-1]
        print(f"{target.name}: {row['cases']} cases, {row['ms a case']:.3g} ms each", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Print one row a target, or place the table in a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="most cases of each target")
    parser.add_argument(
        "--cases-of",
        action="append",
        default=[],
        metavar="TARGET=COUNT",
        help="for one, or as `link to *=9` for several; may be given again",
    )
    parser.add_argument("--minutes-each", type=float, default=math.inf, help="longest time of each target")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], help="a target's name or pattern; may be given again")
    parser.add_argument("--share", default="1/1", help="every n-th target: 1/2 and 2/2 are all of them")
    parser.add_argument("--rows", metavar="FILE", help="write the rows there, as JSON lines")
    parser.add_argument("--join", nargs="+", metavar="FILE", help="run nothing: put rows of these files together")
    parser.add_argument("--into", metavar="DOCUMENT", help="place the table there instead of printing it")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    rows = (
        join_rows(options.join)
        if options.join
        else run_targets(choose_targets(options.only, options.share), read_counts(options.cases_of), options)
    )
    if options.rows:
        Path(options.rows).write_text("".join(json.dumps(row) + "\n" for row in rows))
    if options.into:
        place_tables(Path(options.into), format_table(rows))
    else:
        print(format_table(rows))
    return 1 if any(row["faults"] or row["writes outside"] for row in rows) else 0


def join_rows(paths: Sequence[str]) -> list[dict[str, object]]:
    """Rows of several runs in the order of the targets; of a target's rows the last file's."""
    found = {row["target"]: row for path in paths for row in map(json.loads, Path(path).read_text().splitlines())}
    return [found[target.name] for target in TARGETS if target.name in found]


if __name__ == "__main__":
    sys.exit(main())
