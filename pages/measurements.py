"""Measurements on a page: choose a saved one, start a new one as a job, open a file that a command printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from pages.progress import watch
from pages.session import go, is_busy, submit
from probes.errors import UserError
from workbench import library
from workbench.measurements import (
    LARGEST,
    SUBJECTS,
    Measurement,
    check_measurement_name,
    find_measurements,
    import_measurement,
    list_measurements,
    open_measurement,
)
from workbench.settings import Settings
from workbench.views.text import plain, shorten

# The job of this page.
SLOT = "measuring"


@st.cache_resource(max_entries=64, show_spinner="Opening the measurement…")
def _read(path: str, stamp: int) -> Measurement:
    return open_measurement(Path(path))


def open_named(name: str) -> Measurement:
    """A saved measurement by its name. Raises UserError when there is none or it is not one."""
    folder = find_measurements()
    path = folder / f"{check_measurement_name(name, list_measurements(folder))}.json"
    return _read(str(path), path.stat().st_mtime_ns)


def list_kind(kind: str) -> tuple[list[str], list[str]]:
    """Names of the saved measurements of a kind, the newest first; and what is wrong with files that are none."""
    found, problems = [], []
    for name in list_measurements(find_measurements()):
        try:
            if open_named(name).kind == kind:
                found.append(name)
        except UserError as error:
            problems.append(str(error))
    return found, problems


def choose_saved(kind: str) -> Measurement | None:
    """The measurement of a kind that the link or the box names, the newest at first; None where there is none."""
    names, problems = list_kind(kind)
    linked = st.query_params.get("measurement", "")
    for problem in problems:
        st.warning(plain(problem), icon=":material/warning:")
    if not names:
        st.info(f"Nothing of this kind was measured yet: {SUBJECTS[kind].explanation} Start it under “Measure anew”.")
        return None
    if linked and linked not in names and linked not in list_measurements(find_measurements()):
        st.warning(f"There is no saved measurement {plain(shorten(linked, 60))}: the newest is shown.")
    # Set before the box is drawn: a box that exists keeps its own value, whatever index it is given.
    key = f"choose-{kind}"
    if linked in names and linked != st.session_state.get("linked-measurement"):
        st.session_state[key] = linked
    if st.session_state.get(key) not in names:
        st.session_state[key] = names[0]
    name = st.selectbox("Saved measurement", names, key=key)
    st.session_state["linked-measurement"] = name
    if st.query_params.get("measurement") != name:
        st.query_params["measurement"] = name
    measured = open_named(name)
    show_origin(measured)
    return measured


def show_origin(measured: Measurement) -> None:
    """Model and command of a measurement, as far as the file says; facts that were left out."""
    model = measured.model.get("name", "")
    digest = measured.model.get("sha256", "")[:12]
    if model:
        st.caption(f"Model {plain(shorten(model, 80))}{f', weights {plain(digest)}…' if digest else ''}")
    else:
        st.caption("The file says neither model nor command: it was printed by a command, not kept by this page.")
    if measured.command:
        st.code(measured.command, language=None, wrap_lines=True)
    if skipped := measured.found.get("skipped"):
        with st.expander(f"{len(skipped)} facts were left out"):
            columns = {name: [str(one[name]) for one in skipped] for name in ("fact", "reason")}
            st.dataframe(columns, hide_index=True, alt="Facts that were left out, with the reason")


def spell_model(settings: Settings, memories: Sequence[str] = ("bank", "memory", "text")) -> list[str]:
    """Model and memories as arguments of a command, defaults left out."""
    default = Settings()
    names = [name for name in ("model", *memories) if getattr(settings, name) != getattr(default, name)]
    return [f"--{name}={getattr(settings, name)}" for name in names]


def choose_facts(kind: str, limit: int, wordings: int) -> list[str]:
    """Which facts in how many wordings, as arguments of a command."""
    facts = library.read_shipped_facts()
    one, two, three, four, five = st.columns([3, 2, 1, 1, 1])
    relations = one.multiselect(
        "Relations",
        sorted({fact.relation for fact in facts}),
        key=f"{kind}-relations",
        placeholder="all",
        help="Facts of these relations; none chosen: of all.",
    )
    split = two.selectbox(
        "Split",
        ["any", *sorted({fact.split for fact in facts if fact.split})],
        key=f"{kind}-split",
        help="Only facts of this split. Facts whose answer the model does not give are left out, and counted.",
    )
    count = three.number_input("Facts", 1, 10_000, limit, key=f"{kind}-limit", help="Of each relation, at most.")
    words = four.number_input("Wordings", 1, 50, wordings, key=f"{kind}-wordings", help="Prompts of a fact, at most.")
    seed = five.number_input("Seed", 0, 2**31 - 1, 0, key=f"{kind}-seed", help="Draws facts and resamples.")
    chosen = [f"--relation={name}" for name in relations]
    chosen += [f"--split={split}"] if split != "any" else []
    return [*chosen, f"--limit={count:d}", f"--wordings={words:d}", f"--seed={seed:d}"]


def ask_number(kind: str, option: str, label: str, low: float, high: float, value: float, help: str) -> str:
    """A number as an argument of a command."""
    number = st.number_input(label, low, high, value, key=f"{kind}-{option}", help=help)
    return f"--{option}={math.floor(number) if isinstance(value, int) else number}"


def choose_question(kind: str) -> list[str]:
    """A fact by its id, or a prompt with its answers, as arguments of a command."""
    fact = st.text_input(
        "Fact",
        str(st.session_state.get("fact", "")),
        key=f"{kind}-fact",
        help="Id of a shipped fact, as the table of the page Ask has it; left empty, the prompt below is asked.",
    ).strip()
    if fact:
        return [f"--fact={fact}"]
    names = ["prompt", "answer", *(["counterfactual", "foil"] if kind == "restore" else [])]
    fields = {name: st.text_input(name.capitalize(), key=f"{kind}-{name}") for name in names}
    return [f"--{name}={text}" for name, text in fields.items() if text.strip()]


def start(kind: str, arguments: list[str]) -> None:
    """Queue a measurement; its name comes back as the job's result. Tells what the command would refuse."""
    from workbench.commands.measurements import measure_and_save, read_arguments

    folder = find_measurements()
    try:
        settings = read_arguments(kind, arguments)[1]
        submit(
            SLOT,
            SUBJECTS[kind].label,
            settings,
            lambda engine, tick: (kind, measure_and_save(engine, kind, arguments, folder, tick)),
        )
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    st.rerun()


def finish(sections: dict[str, str]) -> None:
    """Show the job that runs; when it is done, open what it measured. `sections` names the section of each kind."""
    if (job := watch(SLOT)) is not None:
        kind, name = job.result
        go("knowledge", section=sections[kind], measurement=name)


def offer_form(kind: str, fields: Any) -> None:
    """A form that measures anew; `fields` draws its widgets and returns the arguments of the command."""
    with st.expander("Measure anew", icon=":material/experiment:"):
        st.caption(SUBJECTS[kind].explanation)
        try:
            with st.form(f"measure-{kind}", border=False):
                arguments = fields()
                wanted = st.form_submit_button("Measure", type="primary", disabled=is_busy(SLOT))
        except UserError as error:
            st.error(plain(str(error)), icon=":material/error:")
            return
        if wanted:
            start(kind, arguments)


def offer_upload(sections: dict[str, str]) -> None:
    """Open the --json output of a command; it is checked against a schema and kept beside the others."""
    with st.expander("Open the output of a command", icon=":material/upload_file:"):
        st.caption(
            f"What `memory-circuits {' | '.join(SUBJECTS)}` printed with `--json`, at most {LARGEST // 2**20} MB. "
            "It is "
            "checked, and kept in the folder of measurements."
        )
        given = st.file_uploader("JSON file", type=["json"], key="measurement-file", max_upload_size=LARGEST // 2**20)
        if given is None or not st.button("Keep and open", key="keep-measurement"):
            return
        try:
            name = import_measurement(given.getvalue(), find_measurements())
        except UserError as error:
            st.error(plain(str(error)), icon=":material/error:")
            return
        go("knowledge", section=sections[open_named(name).kind], measurement=name)
