"""The graph with its slider, its inspector and its downloads; a click reruns this part of the page alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from pages.comparing import show_comparison
from pages.curating import Taken, encode_curation, get_history, offer_views, take_actions
from pages.drafting import keep_draft
from pages.faithfulness import show_curve, show_reading
from pages.graph import Picture, mount_graph, prepare, read_click, read_selected
from pages.inspector import inspect
from workbench.runs import Run
from workbench.views.curation import Curation, describe
from workbench.views.figures import map_scores
from workbench.views.folding import drop_rings, find_rank
from workbench.views.layout import lay_out
from workbench.views.links import Place, count_drawable, pick_latest, read_place
from workbench.views.svg import draw_run, view_run
from workbench.views.tables import tabulate_circuit
from workbench.views.text import plain

# The first is open at first, so it is one without a plot or a table: their scripts are larger than all else of the page
# together, and would be fetched and read before the graph is drawn.
TABS = (
    "Saved views",
    "Edges as a table",
    "Layer × head map",
    "Faithfulness curve",
    "Compare with another run",
    "Download and replay",
)

UNSAVED = (
    "Not saved yet: this browser tab keeps it as a draft, which a reload brings back; “Saved views” gives it a link."
)


def choose_edges(run: Run, name: str, wanted: int, forced: bool) -> int:
    """Slider on the number of edges; the link follows it, and it follows the link, or what is `forced` upon it."""
    most, key = count_drawable(run.circuit), f"edges-{name}"
    linked = st.query_params.get("edges", "")
    if forced or key not in st.session_state or linked != st.session_state.get("linked-edges"):
        st.session_state[key] = wanted
    if most <= 1:
        return most
    chosen = int(st.slider("Edges shown, strongest first", 1, most, key=key))
    if (whole := len(run.circuit.edges)) > most:
        st.caption(
            f"Thinned: the {most:,} strongest of {whole:,} edges can be drawn here; the exports hold all of them."
        )
    if chosen != wanted or linked not in ("", str(chosen)):
        st.query_params["edges"] = str(chosen)
    st.session_state["linked-edges"] = st.query_params.get("edges", "")
    return chosen


def choose_node(run: Run, name: str, linked: str, taken: Taken) -> str:
    """The selected node or supernode: whichever of link, graph, map, search and opened view changed last."""
    seen = st.session_state.setdefault(f"seen-{name}", {"graph": "", "map": ""})
    sources = {"link": linked, "graph": read_selected(f"graph-{name}"), "map": read_click(f"map-{name}")}
    node = pick_latest(seen.get("node", ""), sources, seen)
    if taken.opened is not None and not linked:
        node = taken.opened.selected
    state = get_history(name).present
    node = taken.revealed or node
    owner = state.find_owner(node)
    node = node if owner is None else owner.id
    known = run.circuit.find_node(node) is not None or state.find_group(node) is not None
    node = node if known else ""
    seen["node"], seen["graph"], seen["link"] = node, node, node
    if node and st.query_params.get("node") != node:
        st.query_params["node"] = node
    return node


def choose_place(run: Run, name: str, taken: Taken) -> tuple[Place, bool]:
    """What of the circuit is asked for, and whether the slider has to follow it."""
    place = read_place(st.query_params.to_dict(), run.circuit, get_history(name).present)
    edges, forced = int(st.session_state.get(f"edges-{name}", place.edges)), False
    if taken.opened is not None and not st.query_params.get("edges"):
        edges, forced = min(taken.opened.edges, count_drawable(run.circuit)), True
    rank = find_rank(run.circuit).get(taken.revealed, 0)
    if edges < rank <= count_drawable(run.circuit):
        edges, forced = rank, True
    return (Place(edges, place.node, place.problems), True) if forced else (place, False)


def draw(run: Run, name: str, edges: int, state: Curation) -> Picture:
    """The picture of a run, kept for as long as nothing in it changes: selecting and pinning do not draw it anew."""
    state = drop_rings(run.circuit, edges, state)
    known: tuple[Run, int, Curation, Picture] | None = st.session_state.get(f"picture-{name}")
    if known is not None and known[0] is run and known[1:3] == (edges, state):
        return known[3]
    picture = prepare(lay_out(run.circuit, run.tokens, view_run(run, edges, curation=state)))
    st.session_state[f"picture-{name}"] = run, edges, state, picture
    return picture


@st.fragment
def explore(run: Run, name: str) -> None:
    """Slider, graph, inspector, map and downloads of a run."""
    key = f"graph-{name}"
    taken = take_actions(run, name, key)
    place, forced = choose_place(run, name, taken)
    for problem in place.problems:
        st.warning(plain(problem))
    left, right = st.columns([3, 1], gap="medium")
    with left:
        edges = choose_edges(run, name, place.edges, forced)
        show_reading(run, name, edges)
        node = choose_node(run, name, place.node, taken)
        state = get_history(name).present
        picture = draw(run, name, edges, state)
        drawing = picture.drawing
        mount_graph(key, picture, name, node, encode_curation(run, name, key, drawing))
        below = st.empty()
        show_more(run, name, edges, node)
        # A view that was saved just now leaves nothing unsaved.
        made = f" {plain(describe(state))}." if describe(state) else ""
        made += f" {UNSAVED}" if keep_draft(name, edges, node, state) else ""
        below.caption(
            f"Showing {drawing.shown:,} of {drawing.kept:,} edges of this circuit ({drawing.total:,} in the whole "
            f"graph). Line width grows with the square root of the score.{made}"
        )
    with right:
        inspect(run, name, node, drawing, state)


def show_more(run: Run, name: str, edges: int, node: str) -> None:
    """Below the graph, one at a time: map, tables, curve, comparison, saved views, files to take away."""
    tabs = st.tabs(TABS, key=f"tabs-{name}", on_change="rerun")
    shows: tuple[Callable[[], object], ...] = (
        lambda: offer_views(run, name, edges, node),
        lambda: st.dataframe(tabulate_circuit(run.circuit, edges), hide_index=True, alt="Edges shown", height=320),
        lambda: show_map(run, name),
        lambda: show_curve(run, name, edges),
        lambda: show_comparison(run, name, edges),
        lambda: offer_files(run, name, edges, node),
    )
    for tab, show in zip(tabs, shows, strict=True):
        if tab.open:
            with tab:
                show()


def show_map(run: Run, name: str) -> None:
    """Layer by head map of the whole model, whose cells can be clicked."""
    st.caption(
        f"Node scores of the whole model, summed over positions, in {plain(run.circuit.unit)}: how much the metric "
        "drops when that component is ablated. Click a cell to select its strongest node, if the circuit has it."
    )
    st.plotly_chart(
        map_scores(run),
        key=f"map-{name}",
        on_select="rerun",
        selection_mode="points",
        alt="Layer by head map of node scores",
        config={"displayModeBar": False},
    )
    clicked = read_click(f"map-{name}")
    if clicked and run.circuit.find_node(clicked) is None:
        st.caption(f"{plain(clicked)} is not in this circuit.")


def offer_files(run: Run, name: str, edges: int, node: str) -> None:
    """Downloads, built when clicked, and the command that makes the run again."""
    state = get_history(name).present
    with st.container(horizontal=True):
        st.download_button(
            "Figure as shown (SVG)",
            data=lambda: draw_run(run, edges, node, state).encode(),
            file_name=f"{name}.svg",
            mime="image/svg+xml",
            on_click="ignore",
            icon=":material/image:",
        )
    exports = {export.label: export for export in list_exports()}
    chosen = st.selectbox("Other formats", list(exports), key=f"format-{name}")
    if chosen in exports:
        export = exports[chosen]
        shows = {"view": view_run(run, edges, node, state)} if export.shows_view else {}
        st.download_button(
            export.label,
            data=partial(export.write, run, **shows),
            file_name=f"{name}{export.suffix}",
            mime=export.mime,
            on_click="ignore",
            key=f"file-{name}",
            help=f"{export.drops[:1].upper()}{export.drops[1:]}.",
        )
    if command := run.about.get("command"):
        st.caption("The command that makes this run again:")
        st.code(str(command), language=None, wrap_lines=True)


def list_exports() -> list[Any]:
    """Formats besides the picture that this installation can write."""
    from workbench.exports import EXPORTS
    from workbench.figures.vector import can_typeset

    missing = () if can_typeset() else ("pdf", "png")
    return [export for name, export in EXPORTS.items() if name not in ("svg", *missing)]
