"""The app's server with a witness in its worker: started by `sessions.py`, never by hand.

Takes the arguments of `streamlit run`, as `pages.warm_server` does. A line of JSON is written to the file that
`SESSIONS_NOTES` names when a piece of work begins, is told to stop and ends: its number, its label, what happened and
the seconds of the machine's monotonic clock, which all processes share. Tracing the fact `SESSIONS_BROKEN` raises.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from pages import tracing, warm_server
from probes.progress import Tick
from workbench import jobs
from workbench.settings import Question, Settings

NOTES, BROKEN = "SESSIONS_NOTES", "SESSIONS_BROKEN"
DEFECT = "a defect put here on purpose"


def note(job: jobs.Job, event: str) -> None:
    """Append a line; short enough to be written at once."""
    line = {"job": job.id, "label": job.label, "event": event, "state": job.state, "seconds": time.monotonic()}
    with open(os.environ[NOTES], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def watch_jobs() -> None:
    """Put the witness around the work and its cancel."""
    run, cancel = jobs.run_job, jobs.Job.cancel

    def run_noted(job: jobs.Job) -> None:
        note(job, "begin")
        run(job)
        note(job, "end")

    def cancel_noted(job: jobs.Job) -> None:
        note(job, "cancel")
        cancel(job)

    jobs.run_job = run_noted
    jobs.Job.cancel = cancel_noted  # type: ignore[method-assign, assignment]


def break_trace() -> None:
    """Let the trace of one fact raise what no code expects."""
    trace = tracing.trace_and_save

    def trace_or_raise(engine: Any, question: Question, settings: Settings, tick: Tick) -> str:
        if question.fact == os.environ[BROKEN]:
            raise RuntimeError(DEFECT)
        return trace(engine, question, settings, tick)

    tracing.trace_and_save = trace_or_raise


if __name__ == "__main__":
    watch_jobs()
    break_trace()
    warm_server.main()
