"""Kill -9 at random moments, then look at what is left: `python -m benchmarks.crashes --kills 100`.

Each command runs on a small random model, so that one life of it takes a second, in a forked child. Every other kill
comes after a random share of the time that the command takes undisturbed, the others just before a random one of its
changes of the disk (a file opened to be written, a rename, a removal). Then the same command starts again, as a user
would do, until it has ended by itself, and a new round begins.

After every kill: what the command's reader lists is whole and part of what an undisturbed run makes, nothing is listed
twice, and what was there before has the same bytes. After every round: the result is that of the undisturbed run, and
what kills left half-written has been removed (it counts as a minute old by then, as long as no living process has it).
Exit code 1 with any fault. `--into docs/reliability.md` puts the table there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch

from benchmarks.killing import KILLED, NEVER, NOTES, Moment, load_modules, read_changes, read_output, run_child
from probes.bank import find_bank_faults, load_bank
from probes.descriptions import hash_file
from probes.errors import UserError
from probes.memory_bank import open_bank
from tests.encoders import encode_letters
from tests.small_world import CITIES, ship_world
from workbench.cli import main as run_command
from workbench.documents import place_tables, render_table
from workbench.runs import list_runs, load_run
from workbench.storage import PARTIAL
from workbench.sweeps.parts import load_table

DOCUMENTS, FACTS = 16, 8
NAMES = ("Fran", "Berta", "Carl", "Dora", "Emil", "Gus")
SMALL = ("--units", "2,2", "--branching", "2", "--steps", "8", "--rows", "2", "--length", "64")
READER = ("--steps", "6", "--rows", "2", "--length", "64", "--slots", "2", "--offset", "64")


@dataclass(frozen=True, slots=True)
class Case:
    """A command, what it makes below the working folder, and a reader that lists what is in it or raises UserError.

    `grows`: the result is there from the first part on, and the next command adds to it. `once`: the command refuses
    to make again what is there whole.
    """

    name: str
    arguments: tuple[str, ...]
    made: str
    read: Callable[[Path], list[str]]
    grows: bool = False
    once: bool = False


def read_files(folder: Path) -> list[str]:
    """Names and hashes of all files below a folder, or of a file."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return [f"{path.relative_to(folder.parent)} {hash_file(path)}" for path in paths]


def read_run(folder: Path) -> list[str]:
    """A saved run, opened; all runs beside it too."""
    for path, _ in list_runs(folder.parent):
        load_run(path)
    return read_files(folder)


def read_memories(folder: Path) -> list[str]:
    """A bank of explicit memories: each memory's id and hash, whichever part it lies in; none before the first."""
    if not (folder / "memory.json").is_file():
        return []
    bank, found = open_bank(folder), []
    for name in (name for name in bank.ids.to_pylist() if name is not None):
        one = bank.select((name,))
        tensors = b"".join(tensor.numpy().tobytes() for tensor in (one.keys, one.values, one.positions))
        found.append(f"{name} {hashlib.sha256(tensors).hexdigest()}")
    return sorted(found)


def read_blocks(folder: Path) -> list[str]:
    """A bank of blocks, every shard of it."""
    for fault in find_bank_faults(load_bank(folder)):
        raise UserError(fault)
    return read_files(folder)


def read_both(folder: Path) -> list[str]:
    """A bank of blocks and the model that was trained with it, each once it is in its place."""
    model = folder / "model"
    blocks = read_blocks(folder / "blocks") if (folder / "blocks").is_dir() else []
    return blocks + (read_files(model) if model.is_dir() else [])


def read_table(folder: Path) -> list[str]:
    """The rows of a table of parts, as text; none before the first part."""
    if not any(folder.glob("part-*.parquet")):
        return []
    return sorted(json.dumps(row, sort_keys=True) for row in load_table(folder).to_pylist())


def list_cases(inputs: Path) -> list[Case]:
    """The commands under test; `inputs` holds what they read."""
    documents, facts, run = (str(inputs / name) for name in ("documents", "facts.jsonl", "before"))
    write = ("memory", "write", documents, "--out", "memories", "--batch", "2", "--layers", "0,1", "--slots", "4")
    train = ("--model", "shipped", "--corpus", documents, "--checkpoint-minutes", "0.00001")
    together = ("bank", "train", *train, *SMALL, "--anchor", "co-trained", "--out", "both/blocks")
    return [
        Case("trace", ("trace", "--fact", "capital/France", "--out", "runs/new"), "runs/new", read_run),
        Case("memory write", write, "memories", read_memories, True),
        Case("memory train", ("memory", "train", *train, *READER, "--out", "reader"), "reader", read_files),
        Case("bank train", ("bank", "train", *train, *SMALL, "--out", "blocks"), "blocks", read_blocks),
        Case("bank train with its model", (*together, "--out-model", "both/model"), "both", read_both, True, True),
        Case("attribute", ("attribute", facts, "--out", "table", "--chunk", "2"), "table", read_table, True),
        Case("sweep", ("sweep", facts, "--out", "sweep", "--chunk", "2"), "sweep", read_table, True),
        Case("export", ("export", run, "--to", "svg", "--out", "figure.svg"), "figure.svg", read_files),
        Case("bundle", ("bundle", run, "--out", "run.zip"), "run.zip", read_files),
    ]


@contextlib.contextmanager
def prepare(root: Path) -> Iterator[Path]:
    """Documents, a table of facts, and a run that was there before, all of the small world; their folder.

    Doing one trace here also loads, once for all children, most of what they need.
    """
    inputs = root / "inputs"
    (inputs / "documents").mkdir(parents=True)
    cities = tuple(CITIES.values())
    for number in range(DOCUMENTS):
        words = f"{NAMES[number % 6]} number {number} lives in {cities[number % 3]}. Plums are eaten there."
        (inputs / "documents" / f"{number}.txt").write_text(words * (1 + number % 3))
    rows = [
        {
            "id": f"own/{number}", "subject": f"<{number}>", "relation": "capital", "object": cities[number % 3],
            "prompt": f"The capital of {NAMES[number % 6]} is", "answer": f" {cities[number % 3]}",
        }
        for number in range(FACTS)
    ]  # fmt: skip
    (inputs / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    places = ("workbench.commands.training.find_shipped", "workbench.commands.memory.find_shipped")
    with (
        ship_world(root / "shipped", *places),
        # Every batch is a part of its own, and no sentence encoder is read for each child.
        mock.patch("workbench.memory.writing.COMMIT_SECONDS", 0.0),
        mock.patch("workbench.training.routing.encode_texts", lambda texts, *_: encode_letters(texts)),
        mock.patch("workbench.training.reading_material.encode_texts", lambda texts, *_: encode_letters(texts)),
    ):
        with contextlib.redirect_stdout(io.StringIO()):
            code = run_command(("trace", "--fact", "capital/Italy", "--out", str(inputs / "before")))
        if code != 0:
            raise SystemExit("the run that is to be exported could not be made")
        yield inputs


@dataclass(slots=True)
class Torture:
    """One command, killed again and again in a folder of its own; `faults` says what was wrong."""

    case: Case
    folder: Path
    draw: random.Random
    wanted: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    whole: float = 0.0
    changes: int = 1
    killed: int = 0
    writing: int = 0
    said: int = 0
    rounds: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def made(self) -> Path:
        """What the command makes."""
        return self.folder / self.case.made

    def run(self, moment: Moment = NEVER) -> int:
        """One life of the command."""
        return run_child(lambda: run_command(self.case.arguments), self.folder, moment)

    def start(self, inputs: Path) -> None:
        """Make the folder and run undisturbed, twice: only the second life finds everything imported."""
        (self.folder / "runs").mkdir(parents=True)
        shutil.copytree(inputs / "before", self.folder / "runs" / "before")
        self.before = read_run(self.folder / "runs" / "before")
        for _ in range(2):
            remove(self.made)
            began = time.monotonic()
            if (code := self.run()) != 0:
                raise SystemExit(f"{self.case.name} ends with {code} when nobody kills it: {read_output(self.folder)}")
            self.whole, self.changes = time.monotonic() - began, read_changes(self.folder)
            load_modules(self.folder)
        self.wanted = self.case.read(self.made)
        self.clear()

    def kill(self, kills: int) -> None:
        """Kill so often, and let the last round end."""
        while self.killed < kills:
            there = set(self.age_leftovers())
            code = self.live(self.choose_moment())
            if code == KILLED:
                self.killed += 1
                self.writing += bool(set(self.age_leftovers()) - there)
                self.look()
            else:
                self.end_round(code)
        self.end_round(self.live(NEVER))

    def live(self, moment: Moment) -> int:
        """One life of the command, and whether it said that it removed what an earlier one left."""
        code = self.run(moment)
        self.said += "a stopped write" in read_output(self.folder)
        return code

    def choose_moment(self) -> Moment:
        """A random time for every other kill, a random change of the disk for the rest."""
        if self.killed % 2:
            return Moment(seconds=self.draw.uniform(0, self.whole))
        return Moment(change=self.draw.randint(1, self.changes))

    def age_leftovers(self) -> list[Path]:
        """Half-written files and folders, which are made to look a minute old."""
        found = [path for path in self.folder.rglob("*") if PARTIAL.fullmatch(path.name)]
        for path in found:
            os.utime(path, (0, 0))
        return found

    def look(self) -> None:
        """Note what is wrong after a kill: something listed that is not whole, or something earlier that changed.

        What stands there whole, killed after it was done, is removed: the command would refuse to make it again.
        """
        self.compare_before()
        if not self.made.exists():
            return
        try:
            found = self.case.read(self.made)
        except (UserError, OSError, ValueError) as error:
            self.faults.append(f"{self.case.made} stands there and is not whole: {error}")
            remove(self.made)
            return
        if self.case.grows and Counter(found) - Counter(self.wanted):
            self.faults.append(f"{self.case.made} holds what an undisturbed run does not make, or holds it twice")
        if not self.case.grows and found != self.wanted:
            self.faults.append(f"{self.case.made} stands there and is not what it should be")
        if not self.case.grows or (self.case.once and found == self.wanted):
            remove(self.made)

    def compare_before(self) -> None:
        """Note an earlier run that has changed."""
        if read_run(self.folder / "runs" / "before") != self.before:
            self.faults.append("the run made before has changed")

    def end_round(self, code: int) -> None:
        """Note what is wrong after a life that ended by itself, and clear the table."""
        self.rounds += 1
        self.compare_before()
        if code != 0:
            self.faults.append(f"exit code {code}: {read_output(self.folder)[-400:]}")
        elif self.case.read(self.made) != self.wanted:
            self.faults.append(f"after {self.killed} kills {self.case.made} is not what an undisturbed run makes")
        if left := self.age_leftovers():
            self.faults.append(f"half-written {left[0].name} was not removed by the command that went on")
        self.clear()

    def clear(self) -> None:
        """Remove all but the run that was there before."""
        kept = {self.folder / name for name in (*NOTES, "runs")} | {self.folder / "runs" / "before"}
        for path in {*self.folder.iterdir(), *(self.folder / "runs").iterdir()} - kept:
            remove(path)

    def report(self) -> dict[str, object]:
        """The row of the table."""
        return {
            "command": self.case.name,
            "kills": self.killed,
            "left something half-written": self.writing,
            "lives that ended": self.rounds,
            "lives that removed leftovers and said so": self.said,
            "faults": len(self.faults),
        }


def remove(path: Path) -> None:
    """Remove what a command made."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def torture(case: Case, inputs: Path, root: Path, kills: int, seed: int) -> Torture:
    """Kill a command so often."""
    found = Torture(case, root / case.name.replace(" ", "-"), random.Random(f"{seed} {case.name}"))
    found.start(inputs)
    found.kill(kills)
    for fault in found.faults:
        print(f"{case.name}: {fault}", file=sys.stderr)
    return found


def main() -> int:
    """Print one row a command; 1 when anything was lost, damaged or taken for whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of each command (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a command's name; may be repeated")
    parser.add_argument("--into", metavar="FILE", help="also put the table between the markers of this document")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary, prepare(Path(temporary)) as inputs:
        cases = [case for case in list_cases(inputs) if not options.only or case.name in options.only]
        rows = [torture(case, inputs, Path(temporary), options.kills, options.seed).report() for case in cases]
    table = render_table(list(rows[0]), [list(map(str, row.values())) for row in rows])
    print(table)
    if options.into:
        place_tables(Path(options.into), table, "crashes")
    return 1 if any(row["faults"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
