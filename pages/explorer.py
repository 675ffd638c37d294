"""The graph with its slider, its inspector and its downloads; a click reruns this part of the page alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from pages.graph import mount_graph, read_state
from pages.inspector import inspect
from workbench.runs import Run
from workbench.views.figures import map_scores
from workbench.views.layout import lay_out
from workbench.views.links import pick_latest, read_place
from workbench.views.svg import draw_run, view_run
from workbench.views.tables import tabulate_circuit
from workbench.views.text import plain


def choose_edges(run: Run, name: str, wanted: int) -> int:
    """Slider on the number of edges; the link follows it, and it follows the link."""
    most, key = len(run.circuit.edges), f"edges-{name}"
    linked = st.query_params.get("edges", "")
    if key not in st.session_state or linked != st.session_state.get("linked-edges"):
        st.session_state[key] = wanted
    if most <= 1:
        return most
    chosen = int(st.slider("Edges shown, strongest first", 1, most, key=key))
    if chosen != wanted or linked not in ("", str(chosen)):
        st.query_params["edges"] = str(chosen)
    st.session_state["linked-edges"] = st.query_params.get("edges", "")
    return chosen


def read_map(key: str) -> str:
    """Node clicked in the layer by head map."""
    event: Any = st.session_state.get(key) or {}
    points = (event.get("selection") or {}).get("points") or []
    data = points[0].get("customdata") if points else None
    return str(data[0]) if isinstance(data, list | tuple) and data else ""


def choose_node(run: Run, name: str, linked: str) -> str:
    """The selected node: whichever of link, graph and map changed last."""
    seen = st.session_state.setdefault(f"seen-{name}", {"graph": "", "map": ""})
    sources = {"link": linked, "graph": read_state(f"graph-{name}")[0], "map": read_map(f"map-{name}")}
    node = pick_latest(seen.get("node", ""), sources, seen)
    node = node if run.circuit.find_node(node) is not None else ""
    seen["node"], seen["graph"], seen["link"] = node, node, node
    if node and st.query_params.get("node") != node:
        st.query_params["node"] = node
    return node


@st.fragment
def explore(run: Run, name: str) -> None:
    """Slider, graph, inspector, map and downloads of a run."""
    place = read_place(st.query_params.to_dict(), run.circuit)
    for problem in place.problems:
        st.warning(plain(problem))
    left, right = st.columns([3, 1], gap="medium")
    with left:
        edges = choose_edges(run, name, place.edges)
        node = choose_node(run, name, place.node)
        drawing = lay_out(run.circuit, run.tokens, view_run(run, edges, node))
        mount_graph(f"graph-{name}", drawing, name, node, read_state(f"graph-{name}")[1])
        st.caption(
            f"Showing {drawing.shown:,} of {drawing.kept:,} edges of this circuit ({drawing.total:,} in the whole "
            "graph). Line width grows with the square root of the score."
        )
        show_more(run, name, edges, node)
    with right:
        inspect(run, name, node, drawing)


def show_more(run: Run, name: str, edges: int, node: str) -> None:
    """Below the graph: the map of all heads, the edges as a table, files to take away."""
    maps, table, files = st.tabs(["Layer × head map", "Edges as a table", "Download and replay"])
    with maps:
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
        clicked = read_map(f"map-{name}")
        if clicked and run.circuit.find_node(clicked) is None:
            st.caption(f"{plain(clicked)} is not in this circuit.")
    with table:
        st.dataframe(tabulate_circuit(run.circuit, edges), hide_index=True, alt="Edges shown", height=320)
    with files:
        offer_files(run, name, edges, node)


def offer_files(run: Run, name: str, edges: int, node: str) -> None:
    """Downloads, built when clicked, and the command that makes the run again."""
    with st.container(horizontal=True):
        st.download_button(
            "Figure as shown (SVG)",
            data=lambda: draw_run(run, edges, node).encode(),
            file_name=f"{name}.svg",
            mime="image/svg+xml",
            on_click="ignore",
            icon=":material/image:",
        )
        for export in list_exports():
            st.download_button(
                export.label,
                data=partial(export.write, run),
                file_name=f"{name}{export.suffix}",
                mime=export.mime,
                on_click="ignore",
                key=f"file-{export.name}",
                help=f"{export.drops[:1].upper()}{export.drops[1:]}.",
            )
    if command := run.about.get("command"):
        st.caption("The command that makes this run again:")
        st.code(str(command), language=None, wrap_lines=True)


def list_exports() -> list[Any]:
    """Formats of this installation besides the picture; none when the exports are not installed."""
    try:
        from workbench.exports import EXPORTS
    except ImportError:
        return []
    return [export for name, export in EXPORTS.items() if name != "svg"]
