"""Twenty people on one server: `python -m benchmarks.sessions --sessions 20 --minutes 10 --into docs/reliability.md`.

As many browser sessions (windows of one Chromium, each with its own cookies) ask and trace shipped facts of their own
on the shipped model, again and again, each after a reload of the page; one trace in four is a slow one that is
cancelled while it works. Two command lines trace other facts into the same workspace meanwhile. After a third of the
time one session closes its window in the middle of a trace, after half of it one traces a fact whose trace raises.

Afterwards every run of the workspace is compared, bit for bit, with the same question traced alone in this process, and
must be of the fact that its session asked for. Exit code 1 with any of what is not wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.people import Person, Tally
from benchmarks.processes import read_status
from benchmarks.watched_server import BROKEN, DEFECT, NOTES
from probes.facts import Fact
from tests.browser.server import Witness, find_chromium, serve
from workbench.documents import place_tables, render_table
from workbench.library import read_shipped_facts
from workbench.pipeline import open_engine, trace
from workbench.replaying import compare_runs
from workbench.runs import Run, load_run
from workbench.settings import read_question, restore_settings

COMMAND_LINES = 2
MEBIBYTE = 1 << 20
# Each process computes with its share of the cores: threads that wait for one another on taken cores stand still.
THREADS = max((os.cpu_count() or 1) // (1 + COMMAND_LINES), 1)
SHARE = {"OMP_NUM_THREADS": str(THREADS)}
OWN_FACTS, VIEW = 5, {"width": 1300, "height": 1000}
# What is wanted: so many seconds from Cancel to a free model, so much memory in the last quarter over the second.
FREE, GROWTH = 1.0, 1.1


@dataclass
class Load:
    """What was measured beside the sessions: runs of the command lines by name, resident memory (seconds, MiB)."""

    commanded: dict[str, str] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)


def draw_facts(sessions: int, seed: int) -> list[list[Fact]]:
    """Facts of each session, then of each command line, then the one whose trace raises; no fact twice."""
    facts = random.Random(seed).sample(read_shipped_facts(), OWN_FACTS * sessions + 200 * COMMAND_LINES + 1)
    own = [facts[OWN_FACTS * one : OWN_FACTS * (one + 1)] for one in range(sessions)]
    rest = facts[OWN_FACTS * sessions :]
    return [*own, *(rest[one:-1:COMMAND_LINES] for one in range(COMMAND_LINES)), rest[-1:]]


async def watch_memory(process: int, load: Load, ends: float) -> None:
    """Resident memory of the server, every second."""
    begun = time.monotonic()
    while time.monotonic() < ends:
        load.memory.append((time.monotonic() - begun, read_status("VmRSS", process) / MEBIBYTE))
        await asyncio.sleep(1)


async def command(place: int, facts: Sequence[Fact], runs: Path, load: Load, tally: Tally, ends: float) -> None:
    """`memory-circuits trace` of one fact after another."""
    for number, fact in enumerate(facts):
        if time.monotonic() >= ends:
            return
        name = f"command-{place}-{number}"
        words = ["-m", "workbench.cli", "trace", "--fact", fact.id, "--out", str(runs / name)]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | SHARE,
        )
        _, told = await child.communicate()
        load.commanded[name] = fact.id
        if child.returncode:
            tally.faults.append(f"{name}: exit code {child.returncode}: {told.decode(errors='replace')[-300:]}")


async def open_person(browser: Any, base: str, number: int, facts: Sequence[Fact], **rest: Any) -> Person:
    """A window of its own."""
    context = await browser.new_context(viewport=VIEW)
    page = rest.pop("witness").watch(await context.new_page())
    return Person(number, base, context, page, facts, **rest)


async def work(base: str, process: int, runs: Path, options: argparse.Namespace, tally: Tally, load: Load) -> None:
    """All sessions and command lines at once, until the time is over and what was begun has ended.

    The clock starts when the model is loaded.
    """
    from playwright.async_api import async_playwright

    own, seconds, witness = draw_facts(options.sessions, options.seed), 60 * options.minutes, Witness(base)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        rest: dict[str, Any] = {"witness": witness, "tally": tally, "ends": 0.0}
        people = [
            await open_person(browser, base, one, own[one], draw=random.Random(f"{options.seed} {one}"), **rest)
            for one in range(options.sessions)
        ]
        lines = own[options.sessions : -1]
        await people[0].ask(own[0][0])
        begun = time.monotonic()
        ends = begun + seconds
        for person in people:
            person.ends = ends
        await asyncio.gather(
            watch_memory(process, load, ends),
            *(command(place, facts, runs, load, tally, ends) for place, facts in enumerate(lines)),
            people[0].leave(begun + seconds / 3),
            people[1].meet_defect(begun + seconds / 2, own[-1][0]),
            *(person.go_on() for person in people[2:]),
        )
        await browser.close()
    tally.faults += witness.problems


def list_folders(runs: Path) -> list[Path]:
    """Folders of the saved runs, and of what should not be among them."""
    return sorted(path for path in runs.iterdir() if not path.name.startswith("."))


def find_wrong(runs: Path, tally: Tally, load: Load) -> list[str]:
    """A line for each run that is lost, of another fact than was asked for, or unlike its question traced alone."""
    known, folders = tally.asked | load.commanded, list_folders(runs)
    wrong = [f"{name}: not there" for name in sorted(set(known) - {path.name for path in folders})]
    alone: dict[str, Run] = {}
    torch.set_num_threads(THREADS)
    engine = open_engine(restore_settings(load_run(folders[0]).about["settings"]))
    for path in folders:
        run = load_run(path)
        question, settings = read_question(run.about["question"]), restore_settings(run.about["settings"])
        if question.fact not in ([known[path.name]] if path.name in known else tally.left):
            wrong.append(f"{path.name}: of {question.fact}, asked was {known.get(path.name, 'nothing')}")
        key = json.dumps([question.to_json(), settings.to_json()], sort_keys=True)
        if key not in alone:
            alone[key] = trace(engine, question, settings)
        if moved := compare_runs(run, alone[key]):
            wrong.append(f"{path.name}: {moved[0]}")
    return wrong


def find_errors(log: Path) -> list[str]:
    """What the server's log tells of errors besides the one that was put there on purpose."""
    text = log.read_text(errors="replace")
    tracebacks = ["Traceback" + part for part in text.split("Traceback")[1:]]
    return [part[:3000] for part in tracebacks if f"RuntimeError: {DEFECT}" not in part]


def time_cancels(notes: Path, tally: Tally) -> tuple[list[float], list[float]]:
    """Seconds from the press of Cancel, and from the server's hearing of it, until the worker was free."""
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    moments = {(line["job"], line["event"]): line["seconds"] for line in lines}
    ended = {line["job"] for line in lines if line["event"] == "end" and line["state"] == "cancelled"}
    jobs = sorted(ended & set(tally.cancelled))
    pressed = [moments[job, "end"] - tally.cancelled[job] for job in jobs]
    return pressed, [moments[job, "end"] - moments[job, "cancel"] for job in jobs]


def measure_memory(load: Load, minutes: float) -> tuple[float, float]:
    """Median resident memory of the second and of the last quarter of the time, MiB."""
    quarter = 15 * minutes
    second = [size for moment, size in load.memory if quarter <= moment < 2 * quarter]
    last = [size for moment, size in load.memory if moment >= 3 * quarter]
    return statistics.median(second), statistics.median(last)


def judge(name: str, found: str, wanted: str = "", holds: bool = True) -> tuple[list[str], bool]:
    """A row of the table, and whether what is wanted holds."""
    return [name, found, wanted], holds


def report(
    options: argparse.Namespace, tally: Tally, load: Load, wrong: Sequence[str], times: Sequence[Sequence[float]]
) -> list[tuple[list[str], bool]]:
    """The rows of the table."""
    second, last = measure_memory(load, options.minutes)
    (middle, longest), (_, heard) = ((statistics.median(found), max(found)) if found else (0, 0) for found in times)
    crashes = f"{tally.closed} window closed in a trace, {tally.defects} trace that raised"
    return [
        judge("browser sessions; command lines; minutes", f"{options.sessions}; {COMMAND_LINES}; {options.minutes:g}"),
        judge("runs finished by the browsers; by the command lines", f"{len(tally.asked)}; {len(load.commanded)}"),
        judge("mixed up, lost, or unlike a single run", str(len(wrong)), "0", not wrong),
        judge("faults in other sessions and command lines", str(len(tally.faults)), "0", not tally.faults),
        judge("crashed meanwhile", crashes, "1 and 1", (tally.closed, tally.defects) == (1, 1)),
        judge("largest place in the queue that a page showed", str(tally.place), "above 1", tally.place > 1),
        judge("lists of methods that closed before a choice was made", str(tally.closings)),
        judge("traces cancelled while they worked", str(len(times[0])), "above 0", bool(times[0])),
        judge("from the press of Cancel to a free model, median, s", f"{middle:.2f}"),
        judge("the same, longest, s", f"{longest:.2f}"),
        judge("from the server's hearing of it, longest, s", f"{heard:.2f}", f"at most {FREE:g}", heard <= FREE),
        judge(
            "resident memory of the server, median of the second and last quarter, MiB", f"{second:,.0f}; {last:,.0f}"
        ),
        judge("their ratio", f"{last / second:.3f}", f"at most {GROWTH:g}", last <= GROWTH * second),
    ]


def main() -> int:
    """Print the table; 1 where something is not as it is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20, help="at least 3 (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--into", metavar="FILE", help="also put the table between the markers of this document")
    options = parser.parse_args()
    tally, load = Tally(), Load()
    with tempfile.TemporaryDirectory() as name:
        folder, runs = Path(name), Path(name) / "runs"
        notes, broken = folder / "notes.jsonl", draw_facts(options.sessions, options.seed)[-1][0].id
        variables = {NOTES: str(notes), BROKEN: broken, **SHARE}
        with serve(folder, runs, variables, "benchmarks.watched_server") as (base, process):
            asyncio.run(work(base, process, runs, options, tally, load))
        times, wrong = time_cancels(notes, tally), find_wrong(runs, tally, load)
        tally.faults += find_errors(folder / "server.log")
    for line in [*tally.faults, *wrong]:
        print(line, file=sys.stderr)
    rows = report(options, tally, load, wrong, times)
    table = render_table(["", "found", "wanted"], [row for row, _ in rows])
    print(table)
    if options.into:
        place_tables(Path(options.into), table, "sessions")
    return 0 if all(holds for _, holds in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
