"""Kill -9 at random moments, then look at what is left: `python -m benchmarks.crashes --kills 100`.

Each command runs on a small random model, so that one life of it takes a second, in a forked child. Every other kill
comes after a random share of the time that the command takes undisturbed, the others just before a random one of its
changes of the disk (a file opened to be written, a sync, a rename, a removal). Then the same command starts again, as a
user would do, until it has ended by itself, and a new round begins.

After every kill: what the command's reader lists is whole and part of what an undisturbed life makes, nothing is listed
twice, and what was there before has the same bytes. After every life that ended by itself: the result is that of the
undisturbed one, and what kills left half-written has been removed (it counts as a minute old by then, as long as no
living process has it). Exit code 1 with any fault. `--into docs/reliability.md` puts the table there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.killing import KILLED, NEVER, Moment
from benchmarks.reports import declare_trials, tell_rows
from benchmarks.trials import Trial, list_cases, open_trial, prepare


def choose_moment(trial: Trial) -> Moment:
    """A random time for every other kill, a random change of the disk for the rest."""
    if trial.cut % 2:
        return Moment(seconds=trial.draw.uniform(0, trial.seconds))
    return Moment(change=trial.draw.randint(1, trial.changes))


def kill(trial: Trial, kills: int) -> None:
    """Kill so often, and let a last life end."""
    while trial.cut < kills:
        there = trial.list_leftovers()
        code = trial.live(choose_moment(trial))
        if code == KILLED:
            trial.left += bool(trial.list_leftovers() - there)
            trial.look()
        else:
            trial.end(code)
    trial.end(trial.live(NEVER))


def report(trial: Trial) -> dict[str, object]:
    """The row of the table."""
    return {
        "command": trial.case.name,
        "kills": trial.cut,
        "left something half-written": trial.left,
        "lives that ended": trial.ended,
        "lives that removed leftovers and said so": trial.said,
        "faults": len(trial.faults),
    }


def main() -> int:
    """Print one row a command; 1 when anything was lost, damaged or taken for whole."""
    parser = declare_trials(__doc__)
    parser.add_argument("--kills", type=int, default=100, help="of each command (default: %(default)s)")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary, prepare(Path(temporary)) as inputs:
        for case in list_cases(inputs):
            if not options.only or case.name in options.only:
                trial = open_trial(case, inputs, Path(temporary), options.seed)
                kill(trial, options.kills)
                trial.tell_faults()
                rows.append(report(trial))
    return tell_rows(rows, options.into, "crashes")


if __name__ == "__main__":
    sys.exit(main())
