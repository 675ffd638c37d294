"""Components over facts: layer maps, effect against specificity, a searchable table, and one component in full."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.graph import read_click
from pages.measurements import list_kind, open_named
from pages.question import name_filters
from workbench.measurements import Measurement
from workbench.views.component_figures import MOST, choose_points, draw_map, scatter_components
from workbench.views.components import (
    KINDS,
    LABELS,
    QUANTITIES,
    Map,
    Quantity,
    Row,
    count_classes,
    divide_effect,
    explain_component,
    filter_components,
    find_component,
    gather_tags,
    map_heads,
    map_units,
    tabulate_components,
    tabulate_map,
)
from workbench.views.links import pick_latest
from workbench.views.text import plain

INTERVAL = "Interval: percentiles 2.5 and 97.5 of a bootstrap over facts."
QUIET = {"displayModeBar": False}


def read_row(key: str) -> int:
    """Selected row of a table, -1 for none."""
    event: Any = st.session_state.get(key) or {}
    rows = (event.get("selection") or {}).get("rows") or []
    return int(rows[0]) if rows else -1


def choose_component(rows: list[Row], listed: list[Row], table: str) -> str:
    """The selected component: whichever of link, table and figures changed last."""
    seen = st.session_state.setdefault("seen-component", {})
    row = read_row(table)
    sources = {
        "link": st.query_params.get("component", ""),
        "heads": read_click("map-heads"),
        "units": read_click("map-units"),
        "scatter": read_click("scatter"),
        table: str(listed[row]["component"]) if 0 <= row < len(listed) else "",
    }
    # A source that was not there before did not change.
    for source in sources:
        seen.setdefault(source, "")
    name = pick_latest(seen.get("chosen", ""), sources, seen)
    if name and find_component(rows, name) is None:
        st.warning(f"This measurement has no component {plain(name[:60])}.")
        name = ""
    seen["chosen"] = seen["link"] = name
    if name and st.query_params.get("component") != name:
        st.query_params["component"] = name
    return name


@st.fragment
def explore_components(measured: Measurement) -> None:
    """All views of a `specificity` result; a click reruns this part of the page alone."""
    found = measured.found
    rows: list[Row] = found["components"]
    unit = found["unit"]
    summarise(found)
    kinds, labels, words = choose_filter(rows)
    listed = filter_components(rows, kinds, labels, words)
    table = f"components-{name_filters(*kinds, '|', *labels, '|', words)}"
    name = choose_component(rows, listed, table)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        scatter, heads, units = st.tabs(["Effect × specificity", "Layer × head", "Layer × unit"])
        with scatter:
            show_scatter(listed, unit, name)
        with heads:
            show_head_map(rows, unit)
        with units:
            show_unit_map(rows, unit)
    with right:
        show_component(rows, name, found)
    st.markdown(f"**{len(listed):,} of {len(rows):,} components**, the largest effect first")
    list_components(listed, table, unit)


def summarise(found: dict[str, Any]) -> None:
    """What was measured, over how much; how many components of each class."""
    with st.container(horizontal=True, gap="medium"):
        st.metric("Facts", f"{found['facts']:,}", width="content", help="Facts that the model knows, of those chosen.")
        st.metric("Relations", f"{found['relations']:,}", width="content", help="Relations of these facts.")
        st.metric("Prompts", f"{found['items']:,}", width="content", help="Wordings of all facts together.")
    st.caption(
        f"Effect: drop of the {plain(found['metric'])} in {plain(found['unit'])} by {plain(found['method'])}. Classes: "
        f"inert where no effect reaches {found['negligible']:g} of the largest; specific from an index of 0.5 on, else "
        "abstract; undecided where a relation has no second fact. The thresholds are ours: the paper gives none."
    )
    st.dataframe(count_classes(found["components"]), hide_index=True, alt="Components by kind and class")


def choose_filter(rows: list[Row]) -> tuple[list[str], list[str], str]:
    """Kinds, classes and words that the table and the scatter keep."""
    present = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    one, two, three = st.columns(3)
    kinds = one.multiselect("Kinds", present, format_func=KINDS.__getitem__, key="component-kinds", placeholder="all")
    labels = two.multiselect("Classes", LABELS, key="component-labels", placeholder="all")
    words = three.text_input("Search", key="component-words", placeholder="component or fact")
    return list(kinds), list(labels), words


def show_scatter(listed: list[Row], unit: str, name: str) -> None:
    """One point a component; a click selects it."""
    points = choose_points(listed)
    if not points:
        st.info("No component of this choice has an effect and an index: widen the filters.")
        return
    st.plotly_chart(
        scatter_components(listed, unit, name),
        key="scatter",
        on_select="rerun",
        selection_mode="points",
        config=QUIET,
        alt="Effect against specificity, one point a component",
    )
    left_out = len(listed) - len(points)
    st.caption(
        f"{len(points):,} components{f'; {left_out:,} without an effect or beyond the {MOST:,} largest left out' if left_out else ''}. "  # noqa: E501
        f"Circle: head; square: FFN unit; hexagon: bank block; diamond: explicit memory. {INTERVAL}"
    )


def choose_quantity(key: str) -> tuple[str, Quantity]:
    """What a map shows."""
    name = st.selectbox("Shows", list(QUANTITIES), format_func=lambda name: QUANTITIES[name].label, key=key)
    quantity = QUANTITIES[name]
    st.caption(quantity.explanation)
    return name, quantity


def show_map(values: Map, quantity: Quantity, unit: str, key: str, alt: str) -> None:
    """A clickable map, and the same as a table."""
    st.plotly_chart(
        draw_map(values, quantity, unit), key=key, on_select="rerun", selection_mode="points", config=QUIET, alt=alt
    )
    with st.expander("As a table"):
        st.dataframe(tabulate_map(values), hide_index=True, alt=f"{alt}, as a table")


def show_head_map(rows: list[Row], unit: str) -> None:
    """Layer by head map."""
    name, quantity = choose_quantity("heads-quantity")
    values = map_heads(rows, name)
    if values.names:
        show_map(values, quantity, unit, "map-heads", f"Layer by head map of {quantity.label}")
    else:
        st.info("This measurement has no heads.")


def show_unit_map(rows: list[Row], unit: str) -> None:
    """Layer by unit map of the units with the largest effects."""
    name, quantity = choose_quantity("units-quantity")
    most = st.slider("Units of a layer", 8, 256, 64, step=8, key="units-most", help="Those with the largest effects.")
    values, count = map_units(rows, name, most)
    if not values.names:
        st.info("This measurement has no FFN units.")
        return
    show_map(values, quantity, unit, "map-units", f"Layer by unit map of {quantity.label}")
    ranked = len(values.names) < count
    st.caption(
        f"{len(values.names):,} of {count:,} FFN units"
        + (", by rank of their largest effect within the layer (# 0 has it)." if ranked else ", by number.")
    )


def list_components(listed: list[Row], table: str, unit: str) -> None:
    """The table; a selected row selects its component."""
    number = st.column_config.NumberColumn
    drop = f"Drop of the answer's log-odds in {unit} when it is removed for real (zero ablation); the strongest only."
    st.dataframe(
        tabulate_components(listed),
        hide_index=True,
        height=300,
        key=table,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "effect": number(format="%+.3f", help=f"Mean over facts, {unit}."),
            "largest": number(format="%+.3f", help=f"On the fact where it is largest, {unit}."),
            "participation": number(format="%.1f", help=QUANTITIES["participation"].explanation),
            "relations": number(help=QUANTITIES["relations"].explanation),
            "index": number(format="%.2f", help=QUANTITIES["index"].explanation),
            "low": number(format="%.2f", help=INTERVAL),
            "high": number(format="%.2f", help=INTERVAL),
            "own facts": number(format="%+.3f", help=f"On its facts. {drop}"),
            "neighbours": number(format="%+.3f", help=f"On other facts of their relations. {drop}"),
            "others": number(format="%+.3f", help=f"On all other facts. {drop}"),
            "text": number(format="%+.4f", help="On unrelated text, nats a token."),
        },
        alt="Components, the largest effect first",
    )


def show_component(rows: list[Row], name: str, found: dict[str, Any]) -> None:
    """The selected component: class, division of its effect, removal for real, tags; or how to select one."""
    row = find_component(rows, name)
    if row is None:
        st.info("Select a point, a cell or a row: what the component is for appears here.")
        return
    unit = found["unit"]
    st.subheader(plain(name))
    st.markdown(plain(explain_component(row, unit)))
    st.dataframe(
        divide_effect(row),
        hide_index=True,
        column_config={
            "share": st.column_config.ProgressColumn(
                min_value=0, max_value=1, format="%.2f", help="Of its mean squared effect, by analysis of variance."
            )
        },
        alt="How the effect divides",
    )
    if row.get("drop_own") is not None:
        st.caption(f"Removed for real (zero ablation), drop in {plain(unit)}; on unrelated text in nats a token:")
        groups = {
            "drop_own": "own facts",
            "drop_neighbours": "neighbours",
            "drop_others": "others",
            "drop_text": "text",
        }
        values = {label: [row.get(key)] for key, label in groups.items()}
        config = {label: st.column_config.NumberColumn(format="%+.3f") for label in values}
        st.dataframe(values, hide_index=True, column_config=config, alt="Drops when it is removed")
    else:
        st.caption("It was not removed for real: raise “Removed for real” when you measure.")
    tags = gather_tags(name, *(open_newest(kind) for kind in ("heads", "units")))
    if tags["says"]:
        st.caption("What the newest results of “Head tags” and “Knowledge neurons” say of it:")
        st.dataframe(tags, hide_index=True, alt="Tags of the component")


def open_newest(kind: str) -> dict[str, Any] | None:
    """Result of the newest measurement of a kind."""
    names, _ = list_kind(kind)
    return open_named(names[0]).found if names else None
