"""Commands on a small random model whose work is cut short, and how to see that nothing came to harm by it.

Shared by `crashes.py` (kill -9) and `disks.py` (full and read-only disks). Each case is a command, or a function of
ours that writes, in a folder that is set out anew for it: a run from before, one to be worked on, and a bank of
explicit memories.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch

from benchmarks.killing import NEVER, Moment, load_modules, read_changes, read_output, run_child
from probes.bank import find_bank_faults, load_bank
from probes.descriptions import hash_file
from probes.errors import UserError
from probes.memory_bank import open_bank
from tests.encoders import encode_letters
from tests.small_demo import SMALL_DEMO
from tests.small_world import CITIES, ship_world
from workbench.cli import main as run_command
from workbench.demo.loading import load_demo
from workbench.runs import load_run
from workbench.storage import PARTIAL
from workbench.sweeps.parts import load_table

DOCUMENTS, FACTS = 16, 8
NAMES = ("Fran", "Berta", "Carl", "Dora", "Emil", "Gus")
BEFORE, TARGET, MEMORIES = "runs/before", "runs/target", "memories"
SMALL = ("--units", "2,2", "--branching", "2", "--steps", "8", "--rows", "2", "--length", "64")
READER = ("--steps", "6", "--rows", "2", "--length", "64", "--slots", "2", "--offset", "64")
# So short that its whole training takes a second; a checkpoint after every step.
DEMO = f"""{SMALL_DEMO}[training]
anchor_epochs = 0.1
bank_epochs = 0.1
last_epochs = 0.1
block_epochs = 0.1
rows = 4
reading_rows = 2
abstract_rows = 2
checkpoint_minutes = 0.00001
"""
WRITE = ("--batch", "2", "--layers", "0,1", "--slots", "4")


@dataclass(frozen=True, slots=True)
class Case:
    """What is cut short, what it makes below its folder, and a reader that lists what is in it or raises UserError.

    `work` gives the exit code. `grows`: the result is there from the first part on, and the next life adds to it.
    `once`: it refuses to make again what is there whole.
    """

    name: str
    work: Callable[[], int]
    made: str
    read: Callable[[Path], list[str]]
    grows: bool = False
    once: bool = False


def command(*arguments: str) -> Callable[[], int]:
    """Work that is a command."""
    return lambda: run_command(arguments)


def read_files(folder: Path) -> list[str]:
    """Names and hashes of all files below a folder, or of a file; locks and temporary files are left out."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    kept = [path for path in paths if path.name != ".lock" and not PARTIAL.fullmatch(path.name)]
    return [f"{path.relative_to(folder.parent)} {hash_file(path)}" for path in kept]


def read_run(folder: Path) -> list[str]:
    """A saved run, opened; all runs beside it too."""
    for path in sorted(folder.parent.glob("[!.]*/run.json")):
        load_run(path.parent)
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


def read_demo(folder: Path) -> list[str]:
    """A demo model, opened: names and hashes of its files, of `shipped.json` without the seconds."""
    load_demo(folder)
    record = json.loads((folder / "shipped.json").read_text())
    kept = {key: value for key, value in record.items() if key != "seconds_of_the_last_run"}
    kept["log"] = [{key: value for key, value in entry.items() if key != "seconds"} for entry in record["log"]]
    others = [line for line in read_files(folder) if "shipped.json " not in line]
    return [*others, json.dumps(kept, sort_keys=True)]


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
    """Long commands, and two that write one file; `inputs` holds what they read."""
    documents, facts = str(inputs / "documents"), str(inputs / "facts.jsonl")
    train = ("--model", "shipped", "--corpus", documents, "--checkpoint-minutes", "0.00001")
    blocks, reader = ("bank", "train", *train, *SMALL), ("memory", "train", *train, *READER)
    together = command(*blocks, "--anchor", "co-trained", "--out", "both/blocks", "--out-model", "both/model")
    demo = command("demo", "train", "--config", str(inputs / "demo.toml"), "--out", "demo")
    write = command("memory", "write", documents, "--out", "new", *WRITE)
    return [
        Case("trace", command("trace", "--fact", "capital/France", "--out", "runs/new"), "runs/new", read_run),
        Case("memory write", write, "new", read_memories, True),
        Case("memory train", command(*reader, "--out", "reader"), "reader", read_files),
        Case("bank train", command(*blocks, "--out", "blocks"), "blocks", read_blocks),
        Case("bank train with its model", together, "both", read_both, True, True),
        Case("demo train", demo, "demo", read_demo),
        Case("attribute", command("attribute", facts, "--out", "table", "--chunk", "2"), "table", read_table, True),
        Case("sweep", command("sweep", facts, "--out", "sweep", "--chunk", "2"), "sweep", read_table, True),
        Case("export", command("export", TARGET, "--to", "svg", "--out", "figure.svg"), "figure.svg", read_files),
        Case("bundle", command("bundle", TARGET, "--out", "run.zip"), "run.zip", read_files),
    ]


@contextlib.contextmanager
def prepare(root: Path) -> Iterator[Path]:
    """Documents, facts, and the folder `given` that every case begins with, all of the small world; their folder.

    Doing one trace here also loads, once for all children, most of what they need.
    """
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    inputs = root / "inputs"
    write_inputs(inputs)
    places = ("workbench.commands.training.find_shipped", "workbench.commands.memory.find_shipped")
    with (
        ship_world(root / "shipped", *places),
        # Every batch is a part of its own, and no sentence encoder is read for each child.
        mock.patch("workbench.memory.writing.COMMIT_SECONDS", 0.0),
        mock.patch("workbench.training.routing.encode_texts", lambda texts, *_: encode_letters(texts)),
        mock.patch("workbench.training.reading_material.encode_texts", lambda texts, *_: encode_letters(texts)),
        mock.patch("workbench.demo.clusters._encode", encode_letters),
    ):
        given = inputs / "given"
        make("trace", "--fact", "capital/Italy", "--out", str(given / BEFORE))
        make("memory", "write", str(inputs / "documents"), "--out", str(given / MEMORIES), *WRITE)
        make("export", str(given / BEFORE), "--to", "json", "--out", str(inputs / "circuit.json"))
        shutil.copytree(given / BEFORE, given / TARGET)
        yield inputs


def make(*arguments: str) -> None:
    """Do a command that others build upon. Raises RuntimeError when it fails."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = run_command(arguments)
    if code != 0:
        raise RuntimeError(f"{' '.join(arguments)} ends with {code}: {said.getvalue()}")


def write_inputs(inputs: Path) -> None:
    """Documents and a table of facts."""
    (inputs / "documents").mkdir(parents=True)
    (inputs / "demo.toml").write_text(DEMO)
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


@dataclass(slots=True)
class Trial:
    """One case whose lives are cut short, in a folder of its own; `faults` says what was wrong.

    `notes` is where its lives say what they did. `seconds`, `changes` and `largest` (bytes of a file) are those of an
    undisturbed life, `wanted` its result, `first` what was there before it.
    """

    case: Case
    inputs: Path
    folder: Path
    notes: Path
    draw: random.Random
    wanted: list[str] = field(default_factory=list)
    first: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    seconds: float = 0.0
    changes: int = 1
    largest: int = 1
    cut: int = 0
    left: int = 0
    said: int = 0
    ended: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def made(self) -> Path:
        """What the case makes."""
        return self.folder / self.case.made

    def start(self) -> None:
        """Set the folder out and live undisturbed, twice: only the second life finds everything imported."""
        self.notes.mkdir(parents=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            self.clear()
            self.before, self.first = read_run(self.folder / BEFORE), self.read_made()
            began = time.monotonic()
            if (code := self.live(NEVER)) != 0:
                raise RuntimeError(f"{self.case.name} ends with {code} undisturbed: {read_output(self.notes)}")
            self.seconds, self.changes = time.monotonic() - began, read_changes(self.notes)
            load_modules(self.notes)
        self.wanted = self.read_made()
        self.largest = max(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        self.clear()

    def live(self, moment: Moment) -> int:
        """One life; its exit code, and whether it said that it removed what an earlier one left is counted."""
        code = run_child(self.case.work, self.folder, self.notes, moment)
        self.said += "a stopped write" in read_output(self.notes)
        return code

    def read_made(self) -> list[str]:
        """What is in the thing made; nothing where it is not there."""
        return self.case.read(self.made) if self.made.exists() else []

    def clear(self) -> None:
        """Set the folder out as it was in the beginning."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        shutil.copytree(self.inputs / "given", self.folder, dirs_exist_ok=True)

    def list_leftovers(self) -> set[Path]:
        """Half-written files and folders, which are made to look a minute old."""
        found = {path for path in self.folder.rglob("*") if PARTIAL.fullmatch(path.name)}
        for path in found:
            os.utime(path, (0, 0))
        return found

    def look(self) -> None:
        """Note what is wrong after a life was cut: something listed that is not whole, or something earlier changed.

        A case that does not grow begins anew then, as does one that refuses to make again what is whole.
        """
        self.cut += 1
        self.compare_before()
        try:
            found = self.read_made()
        except (UserError, OSError, ValueError) as error:
            self.faults.append(f"{self.case.made} stands there and is not whole: {error}")
            self.clear()
            return
        if found not in (self.first, self.wanted) and not (self.case.grows and not Counter(found) - self.allowed):
            self.faults.append(f"{self.case.made} holds what an undisturbed life does not make, or holds it twice")
        if found != self.first and (not self.case.grows or (self.case.once and found == self.wanted)):
            self.clear()

    @property
    def allowed(self) -> Counter[str]:
        """What may be in a thing that grows, and how often."""
        return Counter(self.wanted) | Counter(self.first)

    def compare_before(self) -> None:
        """Note an earlier run that has changed."""
        if read_run(self.folder / BEFORE) != self.before:
            self.faults.append("the run made before has changed")

    def end(self, code: int) -> None:
        """Note what is wrong after a life that ended by itself, and begin anew."""
        self.ended += 1
        self.compare_before()
        if code != 0:
            self.faults.append(f"exit code {code}: {read_output(self.notes)[-400:]}")
        elif self.read_made() != self.wanted:
            self.faults.append(f"{self.case.made} is not what an undisturbed life makes")
        if left := self.list_leftovers():
            self.faults.append(f"half-written {min(left).name} was not removed by the life that went on")
        self.clear()

    def tell_faults(self) -> None:
        """Print every fault on standard error."""
        for fault in self.faults:
            print(f"{self.case.name}: {fault}", file=sys.stderr)


def open_trial(case: Case, inputs: Path, root: Path, seed: int) -> Trial:
    """A trial that has been started; its folders are in `root`."""
    folder = root / case.name.replace(" ", "-")
    notes = inputs.parent / "notes" / f"{folder.name}-{time.monotonic_ns()}"
    found = Trial(case, inputs, folder, notes, random.Random(f"{seed} {case.name}"))
    found.start()
    return found
