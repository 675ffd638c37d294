"""Kill -9 at random moments, then look at what is left: `python benchmarks/crashes.py --kills 100`.

Each command runs in a forked child (libraries are loaded once) and is killed after a random share of the time that it
takes when nobody disturbs it; then the same command starts again, as a user would, until it has ended by itself, and a
new round begins. After every kill: what the command's reader lists must open whole, an artefact made before must have
the same bytes, and nothing with a temporary name may be listed. After every round the result must equal that of the
undisturbed run. Printed are kills, how many of them left something behind, rounds, and faults; exit code 1 with any.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from shapes import print_table

from probes.bank import find_bank_faults, load_bank
from probes.descriptions import hash_file
from probes.errors import UserError
from probes.memory_bank import open_bank
from workbench.cli import main as run_command
from workbench.library import read_shipped_facts
from workbench.runs import list_runs, load_run
from workbench.storage import PARTIAL
from workbench.sweeps.parts import load_table

DOCUMENTS, FACTS = 60, 16


@dataclass(frozen=True, slots=True)
class Case:
    """A command, what it makes below the working folder, and a reader that gives the result's hash or raises.

    `grows`: the result is there from the first part on, and the next command adds to it.
    """

    name: str
    arguments: tuple[str, ...]
    made: str
    read: Callable[[Path], str]
    grows: bool = False


def hash_files(folder: Path) -> str:
    """Hash of the names and bytes of all files below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def read_run(folder: Path) -> str:
    """A saved run, opened; all runs beside it too."""
    for path, _ in list_runs(folder.parent):
        load_run(path)
    return hash_files(folder)


def read_memories(folder: Path) -> str:
    """A bank of explicit memories: what it holds, whichever parts it lies in."""
    bank = open_bank(folder)
    found = hashlib.sha256()
    for name in sorted(name for name in bank.ids.to_pylist() if name is not None):
        one = bank.select((name,))
        found.update(name.encode())
        for tensor in (one.keys, one.values, one.positions):
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def read_blocks(folder: Path) -> str:
    """A bank of blocks, every shard of it."""
    for fault in find_bank_faults(load_bank(folder)):
        raise UserError(fault)
    return hash_files(folder)


def read_table(folder: Path) -> str:
    """The rows of a table of parts; none may stand there twice."""
    rows = [json.dumps(row, sort_keys=True) for row in load_table(folder).to_pylist()]
    if len(set(rows)) != len(rows):
        raise UserError(f"{len(rows) - len(set(rows))} rows stand there twice")
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def list_cases(inputs: Path) -> list[Case]:
    """The commands under test; `inputs` holds what they read."""
    fact = read_shipped_facts()[0].id
    documents, facts, run = (str(inputs / name) for name in ("documents", "facts.csv", "before"))
    small = ("--units", "2,2", "--branching", "2", "--steps", "12", "--rows", "2", "--length", "64")
    train = ("bank", "train", "--model", "shipped", "--corpus", documents, "--out", "blocks", *small)
    return [
        Case("trace", ("trace", "--fact", fact, "--out", "runs/new"), "runs/new", read_run),
        Case(
            "memory write", ("memory", "write", documents, "--out", "bank", "--batch", "4"), "bank", read_memories, True
        ),
        Case("bank train", (*train, "--checkpoint-minutes", "0.001"), "blocks", read_blocks),
        Case("attribute", ("attribute", facts, "--out", "table", "--chunk", "2"), "table", read_table, True),
        Case("sweep", ("sweep", facts, "--out", "sweep", "--chunk", "2"), "sweep", read_table, True),
        Case("export", ("export", run, "--to", "svg", "--out", "figure.svg"), "figure.svg", hash_file),
    ]


def prepare(inputs: Path) -> None:
    """Documents, a table of facts, and a run that was there before."""
    facts = read_shipped_facts()
    (inputs / "documents").mkdir(parents=True)
    for number in range(DOCUMENTS):
        words = " ".join(f"{fact.subject} {fact.object}." for fact in facts[number * 5 : number * 5 + 5])
        (inputs / "documents" / f"{number}.txt").write_text(words)
    rows = [facts[place * len(facts) // FACTS].id for place in range(FACTS)]
    (inputs / "facts.csv").write_text("\n".join(["id", *rows]))
    if run_child(("trace", "--fact", facts[1].id, "--out", str(inputs / "before")), inputs, None) != 0:
        raise SystemExit("the run that is to be exported could not be made")


def run_child(arguments: tuple[str, ...], folder: Path, seconds: float | None) -> int:
    """Run a command in a forked child in a folder; kill it after so many seconds. Its exit code, -9 when killed."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        with (folder / "output.txt").open("w") as output, contextlib.redirect_stdout(output):
            os.dup2(output.fileno(), 2)
            code = 70
            with contextlib.suppress(BaseException):
                code = run_command(arguments)
            os._exit(code)
    until = None if seconds is None else time.monotonic() + seconds
    while until is None or time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def find_faults(case: Case, folder: Path, wanted: str, before: str) -> Iterator[str]:
    """What is wrong after a kill: something listed as whole that is not, or something earlier that changed.

    What stands there whole, killed after it was done, is removed: the command would refuse to make it again.
    """
    if read_run(folder / "runs" / "before") != before:
        yield "the run made before has changed"
    made = folder / case.made
    if case.grows or not made.exists():
        return
    try:
        found = case.read(made)
    except UserError as error:
        yield f"{case.made} stands there and is not whole: {error}"
    else:
        if found != wanted:
            yield f"{case.made} stands there and is not what it should be"
    remove(made)


def torture(case: Case, inputs: Path, root: Path, kills: int, draw: random.Random) -> dict[str, object]:
    """Kill a command so often; the row of the table."""
    folder = root / case.name.replace(" ", "-")
    folder.mkdir()
    shutil.copytree(inputs / "before", folder / "runs" / "before")
    before = read_run(folder / "runs" / "before")
    began = time.monotonic()
    code = run_child(case.arguments, folder, None)
    whole = time.monotonic() - began
    if code != 0:
        raise SystemExit(f"{case.name} ends with {code} when nobody kills it: {(folder / 'output.txt').read_text()}")
    wanted, faults, killed, rounds, left = case.read(folder / case.made), list[str](), 0, 0, 0
    remove(folder / case.made)
    while killed < kills:
        code = run_child(case.arguments, folder, draw.uniform(0, 1.2 * whole))
        if code == -signal.SIGKILL:
            killed += 1
            left += any(PARTIAL.fullmatch(path.name) for path in folder.rglob("*"))
            faults += find_faults(case, folder, wanted, before)
            continue
        rounds += 1
        if code != 0:
            faults.append(f"exit code {code}: {(folder / 'output.txt').read_text()[-300:]}")
        elif case.read(folder / case.made) != wanted:
            faults.append(f"after {killed} kills {case.made} is not what an undisturbed run makes")
        remove(folder / case.made)
    for fault in faults:
        print(f"{case.name}: {fault}", file=sys.stderr)
    return {"command": case.name, "kills": killed, "leftovers": left, "rounds": rounds, "faults": len(faults)}


def remove(path: Path) -> None:
    """Remove what a command made."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main() -> int:
    """Print one row a command; 1 when anything was lost, damaged or taken for whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a command's name; may be repeated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        inputs = root / "inputs"
        prepare(inputs)
        cases = [case for case in list_cases(inputs) if not options.only or case.name in options.only]
        rows = [torture(case, inputs, root, options.kills, random.Random(options.seed)) for case in cases]
    print_table(rows)
    return 1 if any(row["faults"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
