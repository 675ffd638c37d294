"""Two saved runs side by side and as the graph of their difference; no model is needed."""

from __future__ import annotations

import streamlit as st

from pages.graph import mount_graph, prepare, read_selected
from pages.session import open_run
from probes.errors import UserError
from workbench import library
from workbench.runs import Run
from workbench.views.comparing import compare_runs, mark_difference, tabulate_comparison
from workbench.views.layout import lay_out
from workbench.views.links import list_run_names
from workbench.views.svg import view_run, write_svg
from workbench.views.text import plain, show_decimals

WAYS = ["Difference", "Side by side"]


def show_comparison(run: Run, name: str, edges: int) -> None:
    """Choose a second run, then see both."""
    names = [other for other in list_run_names(library.find_runs()) if other != name]
    if not names:
        st.info("There is no other saved run yet: trace another question, or the same with another method or memory.")
        return
    linked = str(st.query_params.get("with", ""))
    index = names.index(linked) if linked in names else None
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    picked = left.selectbox(
        "Compare with", names, index=index, key=f"with-{name}-{linked[:80]}", placeholder="choose a saved run"
    )
    way = right.segmented_control("As", WAYS, default=WAYS[0], required=True, key=f"way-{name}")
    if linked and linked not in names:
        st.warning(f"There is no saved run {plain(linked[:80])} to compare with: choose one of the list.")
    if picked is None:
        return
    if picked != linked:
        st.query_params["with"] = picked
    try:
        other = open_run(picked)
        if way == "Side by side":
            show_both(run, name, other, picked, edges)
        else:
            show_difference(run, name, other, picked, edges)
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")


def show_both(run: Run, name: str, other: Run, picked: str, edges: int) -> None:
    """Both graphs with as many edges each, and their faithfulness."""
    for column, one, title in zip(st.columns(2), (run, other), (name, picked), strict=True):
        with column:
            found = one.about.get("faithfulness") or {}
            st.markdown(f"**{plain(title)}**")
            st.caption(
                f"{plain(one.circuit.method)}, {plain(one.circuit.ablation)} ablation; faithfulness "
                f"{show_decimals(found.get('normalised'))} (normalised), random circuits "
                f"{show_decimals((found.get('random') or {}).get('mean'))}."
            )
            key = f"beside-{name}-{title}"
            selected = read_selected(key)
            selected = selected if one.circuit.find_node(selected) is not None else ""
            drawing = lay_out(one.circuit, one.tokens, view_run(one, edges, selected))
            mount_graph(key, prepare(drawing), title, selected)


def show_difference(run: Run, name: str, other: Run, picked: str, edges: int) -> None:
    """The union of both circuits, scores second minus first, as a graph, a table and a file."""
    comparison = compare_runs(run, other)
    for warning in comparison.warnings:
        st.warning(plain(warning[:1].upper() + warning[1:]) + ".")
    key = f"difference-{name}-{picked}"
    selected = read_selected(key)
    selected = selected if comparison.circuit.find_node(selected) is not None else ""
    view = view_run(run, min(2 * edges, len(comparison.circuit.edges)), selected)
    drawing = mark_difference(lay_out(comparison.circuit, comparison.tokens, view), comparison)
    mount_graph(key, prepare(drawing), key, selected)
    st.caption(
        f"First: {plain(name)}; second: {plain(picked)}. Edges in both circuits: {comparison.count('both'):,} of "
        f"{len(comparison.edges):,} (Jaccard {comparison.jaccard:.3f}), in the first alone "
        f"{comparison.count('first alone'):,}, in the second alone {comparison.count('second alone'):,}. Blue: larger "
        f"in the second, orange-red: smaller, in {plain(comparison.circuit.unit)}; dots: the first circuit alone, "
        f"long dashes: the second alone. Shown: the {drawing.shown:,} largest differences."
    )
    st.download_button(
        "Difference (SVG)",
        data=lambda: write_svg(drawing, f"{picked} minus {name}").encode(),
        file_name=f"{name}-and-{picked}.svg",
        mime="image/svg+xml",
        on_click="ignore",
        icon=":material/image:",
    )
    with st.expander("All edges of both as a table"):
        st.dataframe(tabulate_comparison(comparison), hide_index=True, alt="Edges of both circuits", height=320)
