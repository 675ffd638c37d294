"""The part that several saved circuits share and each one's own, in one graph and as a table."""

from __future__ import annotations

import streamlit as st

from pages.graph import mount_graph, prepare, read_selected
from pages.session import PAGES, go, open_run
from probes.errors import UserError
from workbench import library
from workbench.views.links import list_run_names, pick_latest
from workbench.views.shared_core import (
    MOST_RUNS,
    SHARES,
    Overlay,
    choose_part,
    draw_overlay,
    explain_node,
    overlay,
    tabulate_overlay,
    tabulate_own,
)
from workbench.views.svg import write_svg
from workbench.views.text import plain, shorten

GRAPH = "shared-core"
EVERY = "every run"


def read_linked(names: list[str]) -> list[str]:
    """Runs that the link names, those that there are; says which are not."""
    # Each once, however often a link names it.
    linked = list(dict.fromkeys(filter(None, st.query_params.get("runs", "").split(","))))[:MOST_RUNS]
    for name in linked:
        if name not in names:
            st.warning(f"There is no saved run {plain(shorten(name, 60))}: it is left out.")
    return [name for name in linked if name in names]


def choose_runs() -> list[str]:
    """Two runs or more; the link follows the choice."""
    names = list_run_names(library.find_runs())
    if len(names) < 2:
        st.info("Two saved runs or more are laid over each other here: trace some answers first.")
        st.page_link(str(PAGES / "ask.py"), label="Ask", icon=":material/forum:")
        return []
    linked = read_linked(names)
    if "core-runs" not in st.session_state or linked != st.session_state.get("linked-runs", linked):
        st.session_state["core-runs"] = linked
    st.session_state["core-runs"] = [name for name in st.session_state["core-runs"] if name in names]
    chosen = st.multiselect(
        "Runs",
        names,
        key="core-runs",
        max_selections=MOST_RUNS,
        placeholder="choose two or more",
        help="Circuits of one model under one metric, for example of facts of one relation.",
    )
    if chosen != linked:
        st.query_params["runs"] = ",".join(chosen)
    st.session_state["linked-runs"] = list(chosen)
    if len(chosen) < 2:
        st.info("Choose two runs or more: the edges that their circuits share are drawn thick, each one's own thin.")
        return []
    return list(chosen)


@st.fragment
def show_cores() -> None:
    """Choice of runs, counts, graph, node and table."""
    names = choose_runs()
    if not names:
        return
    by_position = st.toggle(
        "Keep positions",
        key="core-positions",
        help="On: an edge at another position is another edge; only for prompts of equal length. Off: positions "
        "are put together.",
    )
    try:
        found = overlay([(name, open_run(name)) for name in names], by_position)
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    show_counts(found)
    one, two, three = st.columns([2, 2, 3], vertical_alignment="bottom")
    shares = one.multiselect(
        "Edges", list(SHARES), default=list(SHARES), format_func=SHARES.__getitem__, key="core-shares"
    )
    only = two.selectbox(
        "Of", [EVERY, *names], key="core-of", help="Draw the shared part with this run's own part alone."
    )
    part = choose_part(found, shares, None if only == EVERY else names.index(only))
    if not part.edges:
        st.info("No edge is of this choice: choose more kinds of edges.")
        return
    most = len(part.edges)
    edges = (
        three.slider("Edges shown, the most shared first", 1, most, min(most, 150), key=f"core-edges-{most}")
        if most > 1
        else 1
    )
    left, right = st.columns([3, 1], gap="medium")
    with left:
        node = pick_latest("", {"graph": read_selected(GRAPH)}, {})
        drawing = draw_overlay(found, part, edges, node)
        mount_graph(GRAPH, prepare(drawing), "core-" + ",".join(names), node)
        st.caption(plain(drawing.caption))
    with right:
        if (chosen := part.find_node(node)) is not None:
            st.subheader(plain(chosen.component.name))
            st.markdown(plain(explain_node(found, chosen)))
        else:
            st.info("Select a node: which circuits have it appears here.")
        show_links(names)
        title = f"What {len(names)} circuits share"
        st.download_button(
            "Figure (SVG)",
            data=lambda: write_svg(drawing, title).encode(),
            file_name="shared-core.svg",
            mime="image/svg+xml",
            on_click="ignore",
            icon=":material/image:",
        )
    with st.expander("Edges as a table"):
        st.dataframe(tabulate_overlay(found, part), hide_index=True, alt="Edges by how many circuits share them")


def show_counts(found: Overlay) -> None:
    """How many edges are shared by how many, and by run."""
    with st.container(horizontal=True, gap="medium"):
        for share, count in found.count_shares().items():
            st.metric(
                f"Edges {SHARES[share]}", f"{count:,}", width="content", help=f"Of n = {len(found.names)} circuits."
            )
        st.metric(
            "Mean overlap",
            f"{found.overlap:.3f}",
            width="content",
            help="Jaccard index of the edges of two circuits, as the mean over all pairs: 1 is the same edges, 0 none.",
        )
    st.dataframe(tabulate_own(found), hide_index=True, alt="Edges of each run: shared and its own")


def show_links(names: list[str]) -> None:
    """A button to open each run."""
    for name in names:
        if st.button(plain(shorten(name, 40)), key=f"core-open-{name}", icon=":material/hub:", width="stretch"):
            go("circuit", run=name)
