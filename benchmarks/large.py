"""Inputs as large as anybody has: `PYTHONPATH=. python -m benchmarks.large --into docs/reliability.md`.

A document that is one line of a gibibyte, a folder of a million files, tables of a million facts, a circuit of a
million edges opened in its page, ten thousand saved runs listed from their index. Each runs in a process of its own:
printed are how it ends, its seconds with the start of the process, and the largest memory it held (Linux). Exit code 1
where one does not end as it should.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from benchmarks.reports import declare_trials, tell_rows

MANY = 1_000_000
GIBIBYTE = 1 << 30
RUNS = 10_000
EDGES = 1_000_000
SENTENCE = "The baker Norland Brewick plays the oboe. "
# Seconds that Streamlit's test of a page may take.
PATIENCE = 3600.0


@dataclass(frozen=True, slots=True)
class Case:
    """An input: what writes it, the command that reads it, the exit code it should end with, words it should say."""

    write: Callable[[Path], None]
    command: Sequence[str]
    code: int
    words: str


def write_line(folder: Path) -> None:
    """A document that is one line."""
    block = (SENTENCE * (1 << 14)).encode()
    with (folder / "line.txt").open("wb") as file:
        for _ in range(GIBIBYTE // len(block) + 1):
            file.write(block)


def write_files(folder: Path) -> None:
    """A million documents of ten texts, a thousand in a folder."""
    for number, place in itertools.product(range(MANY // 1000), range(1000)):
        if not place:
            (folder / "documents" / str(number)).mkdir(parents=True)
        text = SENTENCE.replace("oboe", f"oboe {place % 10}")
        (folder / "documents" / str(number) / f"{place}.txt").write_text(text)


def write_facts(folder: Path) -> None:
    """A table of a million facts."""
    with (folder / "facts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "subject", "relation", "object", "prompt", "answer"])
        writer.writerows(
            [f"food/{n}", f"Person {n}", "food", "bread", f"Person {n} likes to eat", " bread"] for n in range(MANY)
        )


def write_circuit(folder: Path) -> None:
    """A made-up run of a million edges."""
    from benchmarks.interface import make_run
    from workbench.runs import save_run

    save_run(make_run(6000, EDGES), folder / "runs" / "large")


def write_runs(folder: Path) -> None:
    """Ten thousand runs, listed once, so that their index is there."""
    from benchmarks.interface import make_run
    from workbench.run_index import list_entries
    from workbench.runs import save_run

    save_run(make_run(40, 60), folder / "run")
    data = (folder / "run" / "run.json").read_bytes()
    for number in range(RUNS):
        (folder / "runs" / f"run-{number}").mkdir(parents=True)
        (folder / "runs" / f"run-{number}" / "run.json").write_bytes(data)
    list_entries(folder / "runs")


def read_facts(folder: Path) -> int:
    """Plan a sweep over the table, as `sweep FACTS` does before any model runs."""
    from workbench.sweeps.plans import plan_sweep

    print(f"{plan_sweep(folder / 'facts.csv', (), ('given',), 1000).total:,} facts")
    return 0


def open_circuit(folder: Path) -> int:
    """Draw the Circuit page of the run, without a browser."""
    from streamlit.testing.v1 import AppTest

    os.environ["MEMORY_CIRCUITS_RUNS"] = str(folder / "runs")
    app = AppTest.from_file(str(files("workbench") / "app.py"), default_timeout=PATIENCE).run()
    app.switch_page("../pages/circuit.py")
    app.query_params["run"] = "large"
    app.run()
    print(*(text.value for text in (*app.caption, *app.error)), sep="\n")
    return len(app.exception) + len(app.error)


def list_saved(folder: Path) -> int:
    """List the runs from their index, as the Runs page does."""
    from workbench.run_index import list_entries

    print(f"{len(list_entries(folder / 'runs')):,} runs")
    return 0


READERS: dict[str, Callable[[Path], int]] = {"facts": read_facts, "circuit": open_circuit, "runs": list_saved}

# Paths are those of the case's folder, in which the command runs.
CASES: dict[str, Case] = {
    "document of one line, 1 GiB": Case(write_line, ("memory", "write", "line.txt", "--out", "bank"), 2, "longer than"),
    "1,000,000 documents": Case(write_files, ("memory", "write", "documents", "--out", "bank"), 0, "1000000"),
    "table of 1,000,000 facts": Case(write_facts, ("read", "facts"), 0, "1,000,000 facts"),
    "page of 1,000,000 edges": Case(write_circuit, ("read", "circuit"), 0, "of 1,000,000"),
    "list of 10,000 runs": Case(write_runs, ("read", "runs"), 0, "10,000 runs"),
}


def build_command(case: Case) -> list[str]:
    """The words of a case's process: the command line, or a reader of this file."""
    start = [sys.executable, "-W", "ignore", "-m"]
    if case.command[0] == "read":
        return [*start, "benchmarks.large", "--read", case.command[1]]
    return [*start, "workbench.cli", *case.command]


def run_case(name: str, case: Case, folder: Path) -> dict[str, object]:
    """Write the input, run the command in a process of its own, and tell how that ended."""
    case.write(folder)
    print(f"{name} is written", file=sys.stderr)
    place = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))}
    with (folder / "said").open("w+b") as said:
        began = time.monotonic()
        child = subprocess.Popen(build_command(case), cwd=folder, env=place, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
    text = (folder / "said").read_text(errors="replace")
    wrong = child.returncode != case.code or case.words not in text or "Traceback" in text
    if wrong:
        print(text[-3000:], file=sys.stderr)
    return {
        "input": name,
        "given to": " ".join(case.command[:2]) if case.command[0] != "read" else READERS[case.command[1]].__doc__,
        "exit code": child.returncode,
        "seconds": f"{seconds:.3g}",
        "peak, MiB": used.ru_maxrss >> 10,
        "faults": int(wrong),
    }


def main() -> int:
    """Run the cases and print their table."""
    parser = declare_trials(__doc__)
    parser.add_argument("--read", choices=list(READERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        return READERS[options.read](Path.cwd())
    rows = []
    for name, case in CASES.items():
        if not options.only or name in options.only:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(run_case(name, case, Path(folder)))
    return tell_rows(rows, options.into, "large")


if __name__ == "__main__":
    sys.exit(main())
