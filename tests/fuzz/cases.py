"""Targets and their cases: each is accepted, refused with one clear line, or a fault.

A target makes valid artefacts once and gives an `attempt`: a function that makes something of them wrong by a drawn
`Random` and gives what is judged, which reads it as the project would and uses what was read. A case is its number and
the seed, nothing else.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from probes.errors import UserError
from tests.fuzz.guard import PATIENCE, HangError, limit_time, watch_writes

# A message that goes on longer is no longer clear.
LONGEST = 1500
Read = Callable[[], None]
Attempt = Callable[[Random], Read]


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed: `prepare(workspace)` makes what is needed in an empty folder and gives the attempt."""

    name: str
    prepare: Callable[[Path], Attempt]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one case ended: `fault` is empty unless it was neither accepted nor refused clearly; `refusal` the line."""

    seconds: float
    refusal: str = ""
    fault: str = ""
    outside: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """Outcomes of a target's cases, counted; `faults` name the number of their case."""

    target: str
    cases: int = 0
    refused: int = 0
    accepted: int = 0
    slowest: float = 0.0
    outside: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, outcome: Outcome) -> None:
        """Count one case."""
        self.cases += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.outside += len(outcome.outside)
        if outcome.fault or outcome.outside:
            self.faults.append((number, outcome.fault or f"wrote outside: {outcome.outside[0]}"))
        elif outcome.refusal:
            self.refused += 1
        else:
            self.accepted += 1


def find_unclear(message: str) -> str:
    """Why a refusal is not one clear line; nothing when it is."""
    if not message.strip():
        return "an error without a message"
    if len(message) > LONGEST:
        return f"an error of {len(message)} characters: {message[:200]}"
    return ""


def describe_fault(error: BaseException) -> str:
    """Type, message and the last place of ours that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "/tests/fuzz/" not in frame.filename]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(own[-4:]))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]} [{places}]"


def judge(attempt: Attempt, draw: Random, workspace: Path, patience: float = PATIENCE) -> Outcome:
    """Run one case under watch."""
    refusal = fault = ""
    read = attempt(draw)
    start = time.perf_counter()
    with watch_writes(workspace) as outside:
        try:
            with limit_time(patience):
                read()
        except UserError as error:
            refusal = str(error) or " "
            fault = find_unclear(refusal)
        except (Exception, HangError) as error:
            fault = describe_fault(error)
    return Outcome(time.perf_counter() - start, refusal, fault, tuple(outside))


def draw_case(target: str, seed: int, number: int) -> Random:
    """The source of one case's choices."""
    return Random(f"{target}/{seed}/{number}")


def run_cases(target: Target, workspace: Path, numbers: range, seed: int = 0, seconds: float = math.inf) -> Tally:
    """Cases of a target in an empty folder: all, or as many as are begun in that time."""
    attempt, tally = target.prepare(workspace), Tally(target.name)
    end = time.monotonic() + seconds
    for number in numbers:
        if time.monotonic() > end:
            break
        tally.add(number, judge(attempt, draw_case(target.name, seed, number), workspace))
    return tally
