"""Disks that refuse, for everything that writes: `python -m benchmarks.disks --cuts 5` (as root, for real disks too).

Each case is what `crashes.py` kills, and every other writer of ours. Four kinds of refusal:

- full: from a random change of the disk on, nothing new can be opened to be written, made or synced (ENOSPC, raised
  inside Python; files that libraries write themselves are not reached this way);
- file size: no file may grow beyond a random size (RLIMIT_FSIZE, kept by the kernel, so libraries are reached too);
- full tmpfs: a small file system of its own that holds a random number of kilobytes more (root alone);
- read-only: that file system, read-only (root alone).

After every refusal: exit code 2 and one line, no traceback; nothing half-written is left or listed, and what was there
before has the same bytes. At last an undisturbed life ends as one that was never refused. A dash: not
possible here, or it needs no room. Exit code 1 with any fault. `--into docs/reliability.md` puts the table there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.killing import NEVER, Moment, read_output
from benchmarks.reports import declare_trials, tell_rows
from benchmarks.trials import MEMORIES, TARGET, Case, Trial, command, list_cases, open_trial, prepare, read_files
from benchmarks.trials import read_memories as read_bank
from probes.errors import UserError

DISK_MEGABYTES = 24


def call(work: Callable[[], object]) -> Callable[[], int]:
    """Work that is a function: its error is told as a page or command tells it."""

    def do() -> int:
        try:
            work()
        except UserError as error:
            print(f"memory-circuits: {error}", file=sys.stderr)
            return 2
        return 0

    return do


def save_view() -> None:
    """A view of the run that is worked on."""
    from workbench.view_files import SavedView
    from workbench.view_files import save_view as save

    save(Path(TARGET), SavedView(5, title="five"))


def save_measurement() -> None:
    """A measurement."""
    from workbench.measurements import Measurement
    from workbench.measurements import save_measurement as save

    save(
        Measurement("lens", {"layers": [1, 2]}, "memory-circuits lens", {"name": "m", "sha256": "0"}), Path("m/a.json")
    )


def save_curve() -> None:
    """Faithfulness by size of the run that is worked on."""
    from workbench.size_curves import SizeCurve
    from workbench.size_curves import save_curve as save

    save(Path(TARGET), SizeCurve((1, 2), (0.1, 0.2), (0.0, 0.0), (0.0, 0.0), (0.1, 0.1), 2, 0))


def save_checkpoint() -> None:
    """A checkpoint of the demo's training, over an earlier one."""
    from workbench.demo.checkpoint import save_checkpoint as save
    from workbench.demo.config import load_config

    torch.manual_seed(0)
    network = torch.nn.Linear(64, 64)
    save(Path("work/checkpoint"), 1, load_config(None), network, torch.optim.AdamW(network.parameters()), [])


def delete_run() -> None:
    """The run that is worked on goes to the trash."""
    from workbench.run_folders import delete_runs

    delete_runs(Path("runs"), ["target"])


def list_writers(inputs: Path) -> list[Case]:
    """All that writes and is not in `list_cases`."""
    delete = ("memory", "delete", MEMORIES, "--document", "0.txt", "--document", "7.txt", "--compact")
    compress = command("memory", "compress", MEMORIES, "--out", "small", "--code", "PQ2x2")
    kept = command("import", str(inputs / "circuit.json"), "--out", "kept/circuit.json")
    draw = command("figure", "circuit", TARGET, "--out", "paper/figure.svg")
    ledger = command("ledger", "--run", TARGET)
    quality = command("quality", TARGET, "--part", "curves", "--draws", "2")
    pages = [save_view, save_measurement, save_curve]
    mades = [TARGET, "m", TARGET]
    return [
        Case("memory delete", command(*delete), MEMORIES, read_bank, True, True),
        Case("memory compress", compress, "small", read_bank, True, True),
        Case("memory search", command("memory", "search", MEMORIES, "Fran"), f"{MEMORIES}/search", read_files, True),
        Case("figure", draw, "paper", read_files, True),
        Case("import", kept, "kept", read_files),
        Case("ledger", ledger, TARGET, read_files, True),
        Case("quality", quality, TARGET, read_files, True),
        *(
            Case(page.__name__.replace("_", " "), call(page), made, read_files, True)
            for page, made in zip(pages, mades, strict=True)
        ),
        Case("demo checkpoint", call(save_checkpoint), "work", read_files, True),
        Case("delete run", call(delete_run), "runs", read_files, True),
    ]


@contextlib.contextmanager
def mount(folder: Path) -> Iterator[Path | None]:
    """A small file system of its own in a folder; None where this process may not mount one."""
    folder.mkdir()
    made = run_mount("-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(folder))
    try:
        yield folder if made else None
    finally:
        if made:
            subprocess.run(["umount", str(folder)], check=True)


def run_mount(*arguments: str) -> bool:
    """Whether a mount was possible."""
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except OSError:
        return False


def judge(trial: Trial, code: int) -> None:
    """Note what is wrong after a life on a disk that refuses; one that could do without must be whole."""
    said = read_output(trial.notes)
    if code == 0:
        trial.end(code)
        return
    if code != 2 or "Traceback" in said or sum("memory-circuits: " in line for line in said.splitlines()) != 1:
        trial.faults.append(f"exit code {code}: {said[-600:]}")
    if left := trial.list_leftovers():
        trial.faults.append(f"half-written {min(left).name} was left behind")
    trial.look()


def refuse(trial: Trial, cuts: int) -> None:
    """Refuse within Python, from random changes of the disk on."""
    for _ in range(cuts):
        judge(trial, trial.live(Moment(full=trial.draw.randint(1, trial.changes))))


def limit(trial: Trial, cuts: int) -> None:
    """Refuse large files."""
    for number in range(cuts):
        judge(trial, trial.live(Moment(most=trial.draw.randrange(trial.largest) if number else 0)))


def fill(trial: Trial, disk: Path, cuts: int) -> None:
    """Leave a random number of kilobytes on the disk, none the first time."""
    for number in range(cuts):
        room = 4096 * trial.draw.randrange(max(trial.largest // 1024, 1)) if number else 0
        write_filler(disk, room)
        code = trial.live(NEVER)
        (disk / "filler").unlink()
        judge(trial, code)


def write_filler(disk: Path, room: int) -> None:
    """Fill a disk but for some bytes."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 65536):
            pass
    os.truncate(disk / "filler", max((disk / "filler").stat().st_size - room, 0))


def forbid(trial: Trial, disk: Path) -> None:
    """Refuse everything."""
    if run_mount("-o", "remount,ro", str(disk)):
        code = trial.live(NEVER)
        run_mount("-o", "remount,rw", str(disk))
        judge(trial, code)


def try_case(case: Case, inputs: Path, root: Path, disk: Path | None, cuts: int, seed: int) -> dict[str, object]:
    """All kinds of refusal of one case; the row of the table."""
    place = root if disk is None else disk
    trial = open_trial(case, inputs, place, seed)
    row: dict[str, object] = {"what writes": case.name}
    ways: dict[str, Callable[[], None]] = {
        "full": lambda: refuse(trial, cuts),
        "file size": lambda: limit(trial, cuts),
        "full tmpfs": lambda: fill(trial, place, cuts),
        "read-only": lambda: forbid(trial, place),
    }
    for kind, cut in ways.items():
        before = trial.cut
        if disk is not None or kind in ("full", "file size"):
            cut()
        row[kind] = trial.cut - before or "-"
    trial.clear()
    trial.end(trial.live(NEVER))
    trial.tell_faults()
    return row | {"faults": len(trial.faults)}


def main() -> int:
    """Print one row a writer; 1 when anything was lost, damaged, taken for whole or not said well."""
    parser = declare_trials(__doc__)
    parser.add_argument("--cuts", type=int, default=5, help="refusals of a kind (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, prepare(Path(temporary)) as inputs:
        root = Path(temporary)
        cases = [*list_cases(inputs), *list_writers(inputs)]
        with mount(root / "disk") as disk:
            rows = [
                try_case(case, inputs, root, disk, options.cuts, options.seed)
                for case in cases
                if not options.only or case.name in options.only
            ]
    return tell_rows(rows, options.into, "disks")


if __name__ == "__main__":
    sys.exit(main())
