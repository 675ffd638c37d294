"""Runs: everything that was traced and saved, to find, open, compare, rename, delete, export, replay and link."""

from __future__ import annotations

from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import streamlit as st

from pages.progress import watch
from pages.question import name_filters
from pages.session import PAGES, go, is_busy, open_run, submit
from probes.errors import UserError
from workbench import library
from workbench.exports import EXPORTS
from workbench.replaying import Difference
from workbench.run_folders import delete_runs, empty_trash, list_trash, pack_run, rename_run, restore_run
from workbench.run_index import MEMORIES, Entry, Filters, filter_entries, list_entries
from workbench.settings import METHODS, restore_settings
from workbench.views.run_tables import tabulate_differences, tabulate_entries
from workbench.views.shared_core import MOST_RUNS
from workbench.views.text import plain, shorten

REPLAY = "replaying"


@st.cache_resource(max_entries=2, show_spinner="Reading the saved runs…")
def _list(folder: str, stamp: int) -> list[Entry]:
    return list_entries(Path(folder))


def list_saved() -> list[Entry]:
    """Saved runs, the newest first; read again when something was added, renamed or removed."""
    folder = library.find_runs()
    return _list(str(folder), folder.stat().st_mtime_ns) if folder.is_dir() else []


def choose_filters(entries: list[Entry]) -> Filters:
    """What the list is narrowed to."""
    one, two, three = st.columns([3, 2, 2])
    words = one.text_input(
        "Search", key="run-words", placeholder="name, prompt, answer or fact", persist_state="session"
    )
    models = two.multiselect("Model", sorted({entry.model for entry in entries}), key="run-models", placeholder="any")
    methods = three.multiselect(
        "Method",
        sorted({entry.method for entry in entries}),
        format_func=lambda name: METHODS[name].label if name in METHODS else name,
        key="run-methods",
        placeholder="any",
    )
    four, five, six = st.columns([3, 2, 2])
    relations = four.multiselect(
        "Relation",
        sorted({entry.relation for entry in entries if entry.relation}),
        key="run-relations",
        placeholder="any",
        help="Of the shipped fact that was asked; typed prompts have none. A single fact: search for its id.",
    )
    memories = five.multiselect(
        "Memories", MEMORIES, key="run-memories", placeholder="any", help="Attached to the clean run: all of these."
    )
    days = [entry.saved.date() for entry in entries]
    first, last = min(days), max(days)
    chosen = six.date_input("Saved", (first, last), key=f"run-days-{first}-{last}", help="First and last day, UTC.")
    since, until = read_days(chosen)
    return Filters(words, models, methods, relations, memories, since, until)


def read_days(chosen: Any) -> tuple[date | None, date | None]:
    """First and last day of a date box, which holds one while the second is being chosen."""
    days = list(chosen) if isinstance(chosen, tuple | list) else [chosen]
    return (days[0] if days else None), (days[1] if len(days) > 1 else None)


def choose_rows(shown: list[Entry], key: str) -> list[Entry]:
    """The table; its selected runs."""
    event = st.dataframe(
        tabulate_entries(shown),
        hide_index=True,
        key=key,
        on_select="rerun",
        selection_mode="multi-row",
        height=min(38 + 35 * max(len(shown), 1), 420),
        column_config={
            "prompt": st.column_config.TextColumn(width="large"),
            "saved": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm", help="UTC."),
            "edges": st.column_config.NumberColumn(help="Edges of the circuit that was kept."),
            "pairs": st.column_config.NumberColumn(help="Prompt pairs that the metric is a mean over."),
            "faithfulness": st.column_config.NumberColumn(
                format="%.3f",
                help="Metric of the circuit alone: 0 is everything ablated, 1 the whole model. By the run's own "
                "ablation.",
            ),
        },
        alt="Saved runs",
    )
    return [shown[row] for row in event["selection"]["rows"] if row < len(shown)]


def offer_actions(chosen: list[Entry]) -> None:
    """Buttons for what is selected."""
    names, busy = [entry.name for entry in chosen], bool(st.session_state.get("deleting"))
    with st.container(horizontal=True):
        if st.button("Open", type="primary", disabled=len(chosen) != 1, icon=":material/hub:", help="Select one run."):
            go("circuit", run=names[0])
        if st.button("Compare", disabled=len(chosen) != 2, icon=":material/compare:", help="Select two runs."):
            go("circuit", **{"run": names[0], "with": names[1]})
        if st.button(
            "Shared core",
            disabled=not 2 <= len(chosen) <= MOST_RUNS,
            icon=":material/join_inner:",
            help=f"Select two to {MOST_RUNS} runs: edges in all, most or one of them.",
        ):
            go("knowledge", section="core", runs=",".join(names))
        if st.button("Delete", disabled=not chosen or busy, icon=":material/delete:", help="Moves runs to the trash."):
            st.session_state["deleting"] = names
            st.rerun()


def confirm_deletion() -> None:
    """Asks before runs go to the trash."""
    names = st.session_state.get("deleting")
    if not names:
        return
    some = ", ".join(plain(shorten(name, 60)) for name in names[:5]) + (" …" if len(names) > 5 else "")
    st.warning(f"Move {len(names)} run{'s' if len(names) > 1 else ''} to the trash: {some}?")
    with st.container(horizontal=True):
        if st.button("Move to the trash", type="primary", key="confirm-delete"):
            del st.session_state["deleting"]
            try:
                moved = delete_runs(library.find_runs(), names)
                told = f"{len(moved)} moved to the trash; they can be restored below."
            except UserError as error:
                told = str(error)
            finish(told)
        if st.button("Keep", key="keep-runs"):
            del st.session_state["deleting"]
            st.rerun()


def finish(told: str) -> None:
    """Forget the selection, say what was done, and draw the page anew."""
    st.session_state["runs-told"] = told
    st.session_state["runs-round"] = st.session_state.get("runs-round", 0) + 1
    st.rerun()


def show_run(entry: Entry) -> None:
    """One run: rename, link, export, replay."""
    st.subheader(plain(shorten(entry.name, 100)))
    link, name, files, again = st.tabs(["Link", "Rename", "Export", "Replay"])
    with link:
        base = (st.context.url or "").rsplit("/", 1)[0]
        st.caption("Opens this run on this server, also from another browser:")
        st.code(f"{base}/circuit?run={quote(entry.name)}", language=None, wrap_lines=True)
    with name:
        with st.form(f"form-rename-{entry.name}", border=False):
            new = st.text_input("New name", entry.name, key=f"rename-{entry.name}", max_chars=120)
            wanted = st.form_submit_button("Rename")
        if wanted and new.strip() != entry.name:
            try:
                finish(f"Renamed to {rename_run(library.find_runs(), entry.name, new)}.")
            except UserError as error:
                st.error(plain(str(error)), icon=":material/error:")
    with files:
        offer_files(entry.name)
    with again:
        offer_replay(entry.name)


def offer_files(name: str) -> None:
    """Downloads, built when clicked."""
    with st.container(horizontal=True):
        st.download_button(
            "Whole run (zip)",
            data=lambda: pack_run(library.find_runs(), name),
            file_name=f"{name}.zip",
            mime="application/zip",
            on_click="ignore",
            help="The folder as it is, to unpack into another runs folder.",
        )
        for export in EXPORTS.values():
            st.download_button(
                export.label,
                data=partial(write_export, export.name, name),
                file_name=f"{name}{export.suffix}",
                mime=export.mime,
                on_click="ignore",
                key=f"export-{export.name}",
                help=f"{export.drops[:1].upper()}{export.drops[1:]}.",
            )


def write_export(export: str, name: str) -> bytes:
    """Bytes of a run in a format."""
    return EXPORTS[export].write(open_run(name))


def offer_replay(name: str) -> None:
    """The command that traces the run again, and a button that does it here and says which numbers moved."""
    try:
        run = open_run(name)
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    if command := run.about.get("command"):
        st.code(str(command), language=None, wrap_lines=True)
    if st.button("Replay now", disabled=is_busy(REPLAY), icon=":material/replay:", key="replay"):
        from workbench import replaying

        try:
            settings = restore_settings(run.about["settings"])
            submit(REPLAY, "Replaying", settings, lambda engine, tick: (name, replaying.replay(run, engine, tick)))
        except UserError as error:
            st.error(plain(str(error)), icon=":material/error:")
        else:
            st.rerun()
    watch(REPLAY, into="replayed")
    replayed: tuple[str, tuple[Difference, ...]] | None = st.session_state.get("replayed")
    if replayed is not None and replayed[0] == name:
        show_differences(replayed[1])


def show_differences(rows: tuple[Difference, ...]) -> None:
    """Which numbers moved in a replay."""
    if not rows:
        st.success("Traced again: every number is the same.", icon=":material/check:")
        return
    st.warning(f"Traced again: {len(rows)} numbers moved.")
    st.dataframe(tabulate_differences(rows), hide_index=True, alt="Numbers that moved")


def show_trash() -> None:
    """Deleted runs: take one back, or delete all for good."""
    folder = library.find_runs()
    names = list_trash(folder)
    if not names:
        return
    with st.expander(f"Trash ({len(names)})", icon=":material/delete:"):
        one, two, three = st.columns([3, 1, 1], vertical_alignment="bottom")
        name = one.selectbox("Deleted run", names, key="trash")
        try:
            if two.button("Restore", width="stretch") and name:
                finish(f"Restored as {restore_run(folder, name)}.")
            sure = three.checkbox("I am sure", key="empty-sure")
            if three.button("Delete all for good", disabled=not sure, width="stretch"):
                finish(f"{empty_trash(folder)} deleted for good.")
        except UserError as error:
            st.error(plain(str(error)), icon=":material/error:")


def render() -> None:
    """The page from top to bottom."""
    st.title("Saved runs")
    if told := st.session_state.pop("runs-told", ""):
        st.info(plain(told))
    entries = list_saved()
    if not entries:
        st.info("No run has been saved yet. Ask a question and trace its answer: the run appears here.")
        st.page_link(str(PAGES / "ask.py"), label="Ask", icon=":material/forum:")
        show_trash()
        return
    filters = choose_filters(entries)
    shown = filter_entries(entries, filters)
    st.caption(
        f"{len(shown):,} of {len(entries):,} runs in {plain(library.find_runs().name)}/, the newest first. Select "
        "one to open, "
        "rename, export or replay it, two to compare them, several to see what they share."
    )
    chosen = choose_rows(shown, f"saved-{name_filters(repr(filters))}-{st.session_state.get('runs-round', 0)}")
    offer_actions(chosen)
    confirm_deletion()
    if len(chosen) == 1:
        show_run(chosen[0])
    show_trash()


render()
