"""What a reader makes of the graph in this session: taken from the browser, saved as a view, opened by a link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from pages.drafting import mark_saved, read_linked
from pages.graph import read_log
from probes.errors import UserError
from workbench import library
from workbench.runs import Run
from workbench.view_files import SavedView, load_view, read_views, save_view
from workbench.views.curation import LONGEST_NAME, Action, Curation, History, describe, replay
from workbench.views.describe import name_component
from workbench.views.drawing import Drawing
from workbench.views.folding import find_rank
from workbench.views.text import plain, plural, show_line


@dataclass(frozen=True, slots=True)
class Taken:
    """What came in since the last run of the page: a node to be shown (empty: none), a view to be opened (None)."""

    revealed: str = ""
    opened: SavedView | None = None


def get_history(name: str) -> History:
    """This session's curation of a run's graph."""
    history: History = st.session_state.setdefault(f"history-{name}", History())
    return history


def take_actions(run: Run, name: str, key: str) -> Taken:
    """Open the view and the draft that the link names, then do what the browser logged since."""
    opened = open_linked(run, name)
    if (draft := read_linked(run, name)) is not None:
        st.session_state[f"history-{name}"] = get_history(name).turn(draft)
    page, entries = read_log(key)
    seen: dict[str, int] = st.session_state.setdefault(f"log-{name}", {})
    last = seen.get(page, 0)
    known = {node.id for node in run.circuit.nodes}
    history, seen[page] = replay(get_history(name), entries, last, known)
    revealed = find_revealed(entries, last, known)
    if revealed:
        history = history.do(Action("show", (revealed,))) if revealed in history.present.hidden else history
    st.session_state[f"history-{name}"] = history
    return Taken(revealed, opened)


def find_revealed(entries: list[Any], last: int, known: set[str]) -> str:
    """The node that a search asked for last and that is not drawn; empty: none."""
    asked = [
        str((entry.get("nodes") or [""])[0])
        for entry in entries
        if isinstance(entry, dict) and entry.get("kind") == "reveal" and int(entry.get("n") or 0) > last
    ]
    return asked[-1] if asked and asked[-1] in known else ""


def open_linked(run: Run, name: str) -> SavedView | None:
    """The saved view that the link names, once; it becomes the present curation, which can be undone."""
    linked, place = str(st.query_params.get("view", "")), f"view-{name}"
    if linked == st.session_state.get(place, ""):
        return None
    st.session_state[place] = linked
    if not linked:
        return None
    try:
        view, missing = load_view(library.find_runs() / name, linked, run.circuit)
    except UserError as error:
        st.warning(plain(str(error)))
        return None
    if missing:
        st.warning(f"{plural(missing, 'node')} of this view are not in this circuit: they were left out.")
    st.session_state[f"history-{name}"] = get_history(name).turn(view.curation)
    mark_saved(name, view.curation)
    return view


def encode_curation(run: Run, name: str, key: str, drawing: Drawing) -> dict[str, Any]:
    """What the graph's script has to know: pins, texts to edit, what can be undone, nodes that are not drawn."""
    history, (page, _) = get_history(name), read_log(key)
    state = history.present
    seen: dict[str, int] = st.session_state.get(f"log-{name}", {})
    return {
        "pinned": list(state.pinned),
        "names": dict(state.names) | {group.id: group.name for group in state.groups},
        "notes": dict(state.notes),
        "hidden": len(state.hidden),
        "alone": state.alone,
        "undo": bool(history.past),
        "redo": bool(history.future),
        "applied": {"page": page, "last": seen.get(page, 0)},
        "others": list_others(run, state, drawing),
    }


def list_others(run: Run, state: Curation, drawing: Drawing) -> list[tuple[str, str, str]]:
    """Nodes of the circuit that are not drawn: id, what they are, why they are not to be seen."""
    drawn = {glyph.id for glyph in drawing.glyphs}
    ranks = find_rank(run.circuit)
    others = []
    for node in run.circuit.nodes:
        if node.id in drawn:
            continue
        group = state.find_owner(node.id)
        words = f"{name_component(node.component)} {show_line(state.name_of(node.id))}".strip()
        why = (
            "hidden"
            if node.id in state.hidden
            else f"in {show_line(group.name)}"
            if group is not None and group.id in drawn
            else f"with {ranks.get(node.id, 0):,} edges"
        )
        others.append((node.id, words, why))
    return others


def offer_views(run: Run, name: str, edges: int, selected: str) -> None:
    """Save what is seen as a view with a link of its own, and open saved ones."""
    folder = library.find_runs() / name
    state = get_history(name).present
    with st.form(f"save-view-{name}", border=False, clear_on_submit=True):
        box, button = st.columns([3, 1], vertical_alignment="bottom")
        title = box.text_input("Save this view as", max_chars=LONGEST_NAME, placeholder="a title, if you like")
        if button.form_submit_button("Save view", icon=":material/bookmark_add:", width="stretch"):
            keep_view(name, SavedView(edges, selected, state, " ".join(title.split())))
    st.caption(
        f"{plain(describe(state)) or 'Nothing pinned, grouped or hidden yet'}. A view is kept in the run's folder: "
        "edges, pins, supernodes, names, notes and hidden nodes. Its link shows the same to everyone who has the run."
    )
    try:
        views = read_views(folder)
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    if views:
        labels = {number: entry["title"] or f"untitled, {entry['edges']} edges" for number, entry in views.items()}
        chosen = st.selectbox(
            "Saved views",
            list(reversed(labels)),
            index=None,
            format_func=lambda number: f"{plain(labels[number])} ({number})",
            placeholder="open a saved view",
            key=f"open-view-{name}-{len(views)}",
        )
        if chosen is not None and chosen != st.query_params.get("view"):
            link_view(name, chosen)
            st.rerun(scope="fragment")


def keep_view(name: str, view: SavedView) -> None:
    """Save a view and put it into the link."""
    try:
        number = save_view(library.find_runs() / name, view)
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    mark_saved(name, view.curation)
    st.session_state[f"view-{name}"] = number
    st.query_params["view"] = number
    st.success("Saved. The address of this page is now the link to this view.", icon=":material/link:")


def link_view(name: str, number: str) -> None:
    """Put a saved view into the link, so that it is opened afresh."""
    st.session_state.pop(f"view-{name}", None)
    st.query_params["view"] = number
    for parameter in ("edges", "node"):
        if parameter in st.query_params:
            del st.query_params[parameter]
