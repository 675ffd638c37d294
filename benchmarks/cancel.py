"""Seconds from Cancel to a free model: `PYTHONPATH=. python benchmarks/cancel.py`.

Work runs as the pages run it, in the one worker, on the shipped model, and is cancelled at random moments: while it
traces by gradients, while it patches every edge exactly, while the model is loaded, and in a new process while torch
and TransformerLens are imported. Free is when the next job's work begins. Wanted: at most 1 s, whatever it does.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pages import session
from workbench import pipeline
from workbench.jobs import Jobs
from workbench.library import read_shipped_facts
from workbench.settings import Question, Settings

SETTINGS = Settings(device="cpu")
LATEST = 2.0


def cancel_once(work: Callable[[Any], Any], seconds: float) -> float | None:
    """Seconds from the cancel, `seconds` after the start, until the next job begins; None when it had ended before."""
    jobs, begun, free = Jobs(), threading.Event(), threading.Event()

    def start(tick: Any) -> None:
        begun.set()
        work(tick)

    first = jobs.submit("one", "Work", start)
    jobs.submit("two", "Next", lambda tick: free.set())
    begun.wait()
    time.sleep(seconds)
    ended, asked = not first.active, time.perf_counter()
    first.cancel()
    free.wait()
    jobs.close()
    return None if ended else time.perf_counter() - asked


def trace(method: str) -> Callable[[Any], Any]:
    """Work that traces the first fact again and again."""
    settings, question = replace(SETTINGS, method=method), Question(fact=read_shipped_facts()[0].id)

    def go_on(engine: Any, tick: Any) -> None:
        while True:
            pipeline.trace(engine, question, settings, tick)

    return lambda tick: session.use_engine(settings, go_on, tick)


def load(tick: Any) -> None:
    """Work that loads the model again and again."""
    while True:
        session.load_engine(SETTINGS, tick)


def main() -> None:
    """Print the median and the longest time of every kind of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--importing", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.importing is not None:
        print(cancel_once(load, options.importing))
        return
    moments = random.Random(0)
    command = [sys.executable, __file__, "--importing"]
    importing = [
        float(subprocess.run([*command, str(moments.uniform(0, LATEST))], capture_output=True, check=True).stdout)
        for _ in range(max(options.repeats // 4, 1))
    ]
    session.use_engine(SETTINGS, lambda engine, tick: None, lambda *_: None)
    report("importing", importing)
    for name, work in {"loading": load, "tracing (eap)": trace("eap"), "tracing (exact)": trace("exact")}.items():
        times = [cancel_once(work, moments.uniform(0, LATEST)) for _ in range(options.repeats)]
        report(name, [seconds for seconds in times if seconds is not None])


def report(name: str, seconds: list[float]) -> None:
    """Print one row."""
    print(f"{name:16} median {statistics.median(seconds):.3f} s, longest {max(seconds):.3f} s, n = {len(seconds)}")


if __name__ == "__main__":
    main()
