"""A job on the page: how far it is, how to stop it, how it ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

import streamlit as st

from pages.session import find_job, open_jobs
from workbench.jobs import Job, State
from workbench.views.text import plain

EVERY = 1.0


def describe_job(job: Job) -> str:
    """One line about a job that waits or runs: what it does, how far it is and how long that still takes."""
    if job.state is State.WAITING:
        before = open_jobs().count_before(job)
        return f"{job.label}: waiting, number {before + 1} in the queue" if before else f"{job.label}: starting"
    count = f" {job.done:,} of {job.total:,}" if job.total > 1 else ""
    left = f", about {describe_time(job.left)} left of this step" if job.left is not None else ""
    return f"{job.label}: {job.step or 'starting'}{count}{left}"


def describe_time(seconds: float) -> str:
    """A length of time as a person says it, rounded up: `8 s`, `3 min`."""
    return f"{max(math.ceil(seconds), 1)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"


@st.fragment(run_every=EVERY)
def show_progress(slot: str) -> None:
    """Progress bar and Cancel; reruns the page when the job has ended or was cancelled."""
    job = find_job(slot)
    if job is None or not job.active or job.stopping:
        st.rerun()
    bar, stop = st.columns([6, 1], vertical_alignment="center")
    bar.progress(job.share, text=plain(describe_job(job)))
    if stop.button("Cancel", key=f"cancel-{slot}", width="stretch"):
        job.cancel()
        st.rerun()


def watch(slot: str, into: str = "", stale: Sequence[str] = ()) -> Job | None:
    """Show the job of a slot while it works, tell how it failed; a job that is done is handed out once.

    Its result is put into the session under the name `into`, and what the names `stale` say of the one before is
    dropped. The script may be stopped at any use of the session, by a click or the next look at a job: so the slot is
    let go last, and the next run finds it and does the same again.
    """
    if not st.session_state.get(slot):
        return None
    job = find_job(slot)
    if job is not None and job.active and not job.stopping:
        show_progress(slot)
        return None
    done = None
    if job is None:
        st.warning("This work was forgotten, because the server restarted or much else was done since: start it again.")
    elif job.state is State.FAILED:
        st.error(plain(job.error), icon=":material/error:")
    elif job.state is State.CANCELLED or job.stopping:
        st.info(f"{job.label}: cancelled.")
    else:
        done = job
        for name in stale:
            st.session_state.pop(name, None)
        if into:
            st.session_state[into] = job.result
    del st.session_state[slot]
    return done
