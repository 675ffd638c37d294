"""What all pages share: the worker and the model behind it, runs on disk, ways from page to page."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import streamlit as st

from probes.progress import Tick
from workbench import library
from workbench.jobs import Holder, Job, Jobs
from workbench.runs import Run, load_run
from workbench.settings import Settings
from workbench.views.links import check_run_name, list_run_names

if TYPE_CHECKING:
    from workbench.pipeline import Engine

PAGES = Path(__file__).resolve().parent
Value = TypeVar("Value")


@st.cache_resource(show_spinner=False)
def open_jobs() -> Jobs:
    """The one worker of this server."""
    return Jobs()


@st.cache_resource(show_spinner=False)
def hold_engine() -> Holder[Engine]:
    """The one loaded model of this server."""
    return Holder()


def get_owner() -> str:
    """A secret name of this browser session, under which its jobs are kept."""
    return str(st.session_state.setdefault("owner", secrets.token_hex(16)))


def key_engine(settings: Settings) -> str:
    """What decides which model is loaded with which memories, as text."""
    parts = (settings.model, settings.dtype, settings.device, settings.bank, settings.memory)
    return "\n".join([*parts, *map(str, (settings.device_map, settings.trust_remote_code, settings.faithful))])


def submit(slot: str, label: str, settings: Settings, work: Callable[[Engine, Tick], Value]) -> None:
    """Queue work on the model that the settings name; `progress.watch(slot)` shows it and hands out its end."""
    holder = hold_engine()

    def begin(tick: Tick) -> Value:
        from workbench import pipeline

        engine = holder.fetch(key_engine(settings), lambda: pipeline.open_engine(settings, tick))
        return work(engine, tick)

    st.session_state[slot] = open_jobs().submit(get_owner(), label, begin).id


def is_busy(slot: str) -> bool:
    """Whether this session's job of a slot still waits or works."""
    job = find_job(slot)
    return job is not None and job.active


def find_job(slot: str) -> Job | None:
    """This session's job of a slot."""
    number = st.session_state.get(slot)
    return open_jobs().find(get_owner(), number) if number else None


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
