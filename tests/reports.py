"""A script of `benchmarks/` run in a process of its own, and the table that it puts into a document."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from workbench.documents import name_marks, read_tables

ROOT = Path(__file__).parents[1]


def run_report(folder: Path, name: str, *arguments: str) -> list[list[str]]:
    """Cells of the rows that `benchmarks.NAME` writes under its name; it must find no fault.

    A process of its own, for a fork of one with threads may wait for ever.
    """
    first, last = name_marks(name)
    document = folder / "document.md"
    document.write_text(f"before\n\n{first}\n{last}\n")
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--into", str(document)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = read_tables(document, name).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
