"""What all pages share: the worker and the model behind it, runs on disk, ways from page to page."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import streamlit as st

from probes.errors import UserError
from probes.progress import Tick
from workbench import interrupting, library
from workbench.jobs import Cancelled, Holder, Job, Jobs
from workbench.places import Places, find_places
from workbench.runs import Run, load_run
from workbench.settings import Question, Settings, read_question, restore_settings
from workbench.views.links import check_run_name, list_run_names

if TYPE_CHECKING:
    from workbench.pipeline import Engine

PAGES = Path(__file__).resolve().parent
Value = TypeVar("Value")

# Most jobs that a link names.
LINKED = 3


@st.cache_resource(show_spinner=False)
def open_jobs() -> Jobs:
    """The one worker of this server."""
    return Jobs()


@st.cache_resource(show_spinner=False)
def hold_engine() -> Holder[Engine]:
    """The one loaded model of this server."""
    return Holder()


def get_owner() -> str:
    """A name of this browser session, by which its unfinished jobs are counted."""
    return str(st.session_state.setdefault("owner", secrets.token_hex(8)))


def get_places() -> Places:
    """What this server may read for a browser: `get_places().confine(path)` before any path that was typed."""
    return find_places()


def restore(run: Run) -> tuple[Question, Settings]:
    """Question and settings of a saved run. Raises UserError for another release's, and for files outside."""
    question, settings = read_question(run.about["question"]), restore_settings(run.about["settings"])
    get_places().check_question(question)
    get_places().check_settings(settings)
    return question, settings


def key_engine(settings: Settings) -> str:
    """What decides which model is loaded with which memories, as text."""
    parts = (settings.model, settings.dtype, settings.device, settings.bank, settings.memory)
    return "\n".join([*parts, *map(str, (settings.device_map, settings.trust_remote_code, settings.faithful))])


def load_engine(settings: Settings, tick: Tick) -> Engine:
    """The engine of these settings, loaded so that a stop is heard meanwhile."""
    from workbench import pipeline

    interrupting.import_libraries(tick)
    with interrupting.interruptible(tick) as pulse:
        return pipeline.open_engine(settings, pulse)


def use_engine(settings: Settings, work: Callable[[Engine, Tick], Value], tick: Tick) -> Value:
    """Do work with the engine of these settings; a defect lets the engine go, so that nobody gets a broken one."""
    holder = hold_engine()
    engine = holder.fetch(key_engine(settings), lambda: load_engine(settings, tick))
    try:
        with interrupting.interruptible(tick) as pulse:
            return work(engine, pulse)
    except (UserError, Cancelled):
        raise
    except BaseException:
        holder.drop()
        raise


def submit(slot: str, label: str, settings: Settings, work: Callable[[Engine, Tick], Value]) -> None:
    """Queue work on the model that the settings name; `progress.watch(slot)` shows it and hands out its end.

    Raises UserError when too much waits, and when the settings name what the browser may not have read.
    """
    get_places().check_settings(settings)
    job = open_jobs().submit(get_owner(), label, lambda tick: use_engine(settings, work, tick), slot, get_page())
    st.session_state[slot] = job.id
    list_known()[job.id] = None
    link_jobs()


def get_page() -> str:
    """Name of the page that is shown, as in its link and as its file."""
    return str(st.session_state.get("page", ""))


def list_known() -> dict[str, None]:
    """Numbers of the jobs that this session has started or taken up, in that order."""
    known: dict[str, None] = st.session_state.setdefault("known-jobs", {})
    return known


def link_jobs() -> None:
    """Put this page's jobs and the unfinished ones into the link, so that a reload finds them.

    Once for each change: else the browser's Back would lead here again and again.
    """
    page, found = get_page(), [(number, open_jobs().find(number)) for number in list_known()]
    numbers = [number for number, job in found if job is not None and (job.active or job.page == page)][-LINKED:]
    if numbers and st.session_state.get("linked-jobs") != (page, numbers):
        st.query_params["job"] = numbers
        st.session_state["linked-jobs"] = page, numbers


def adopt_jobs() -> bool:
    """Take up the jobs that the link names; whether all of them are still known to the server."""
    whole = True
    for number in st.query_params.get_all("job")[:LINKED]:
        if number in list_known():
            continue
        job = open_jobs().find(number)
        whole = whole and job is not None
        list_known()[number] = None
        if job is not None and not st.session_state.get(job.slot):
            st.session_state[job.slot] = number
    return whole


def is_busy(slot: str) -> bool:
    """Whether this session's job of a slot still waits or works."""
    job = find_job(slot)
    return job is not None and job.active and not job.stopping


def find_job(slot: str) -> Job | None:
    """This session's job of a slot."""
    number = st.session_state.get(slot)
    return open_jobs().find(number) if number else None


@st.cache_resource(max_entries=4, show_spinner="Opening the run…")
def _read_run(folder: str, stamp: int) -> Run:
    return load_run(Path(folder))


def open_run(name: str) -> Run:
    """A saved run by its name. Raises UserError when there is none or it is not whole."""
    folder = library.find_runs()
    check_run_name(name, list_run_names(folder))
    path = folder / name
    return _read_run(str(path), (path / "run.json").stat().st_mtime_ns)


def go(page: str, **parameters: str) -> NoReturn:
    """Open another page with these parameters in its link."""
    st.switch_page(str(PAGES / f"{page}.py"), query_params=parameters)
