"""Sweeps: tables of many facts, filtered and drawn; every number is added up by DuckDB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from probes.errors import UserError
from workbench import library
from workbench.sweeps import queries
from workbench.views import sweeps as views
from workbench.views.text import plain, plural, show_line

if TYPE_CHECKING:
    import duckdb

    from workbench.views.tables import Columns

# Kind of row that is chosen when the page opens, the first that the method has.
FIRST = ("component", "node", "edge")
ROWS = {
    "component": "parts of the memories and the anchor",
    "format": "whole formats",
    "node": "components of the model",
    "edge": "edges between components",
}


def stamp_parts(folder: Path) -> str:
    """What changes when a part is added: number of parts and the newest."""
    parts = [part.stat().st_mtime_ns for parts in queries.list_files(folder).values() for part in parts]
    return f"{len(parts)} {max(parts)}"


@st.cache_resource(max_entries=2, show_spinner="Opening the sweeps…")
def open_sweeps(folder: str, stamp: str) -> duckdb.DuckDBPyConnection:
    """The connection of a folder as it is now."""
    return queries.open_sweeps(Path(folder))


@st.cache_data(max_entries=2, show_spinner="Reading what there is…")
def list_values(folder: str, stamp: str) -> tuple[dict[str, list[str]], dict[str, list[str]], queries.Rows]:
    """What can be filtered by, the kinds of rows of each method, and how many facts were measured."""
    connection = open_sweeps(folder, stamp)
    return queries.list_values(connection), queries.list_kinds(connection), queries.count_outcomes(connection)


def choose_rows(values: Mapping[str, list[str]], kinds: Mapping[str, list[str]]) -> queries.Filter:
    """Widgets of the filter. Method and kind of row are one each: values of others have other units or meanings."""
    left, right = st.columns(2)
    methods = list(kinds)
    method = left.selectbox(
        "Method",
        methods,
        index=methods.index(views.pick_method(kinds)),
        key="sweeps-method",
        format_func=views.name_method,
        help="How the values were found. Values of two methods are not added up: they mean different things.",
    )
    rows = kinds.get(method, [])
    row = right.selectbox(
        "Values of",
        rows,
        index=views.choose_first(rows, FIRST),
        key=f"sweeps-row-{methods.index(method)}",
        format_func=lambda kind: ROWS.get(kind, show_line(kind)),
        help="A sweep keeps several kinds of rows of each fact; the method says which.",
    )
    chosen: dict[str, tuple[str, ...]] = {"method": (method,), "row": (row,)}
    for place, name in enumerate(("sweep", "condition", "relation")):
        picked = (left, right)[place % 2].multiselect(
            name.capitalize(), values[name], key=f"sweeps-{name}", placeholder="all", format_func=show_line
        )
        chosen[name] = tuple(picked)
    component = right.text_input(
        "Component starts with",
        key="sweeps-component",
        placeholder="a3.h1, m, x, f2.l1 …",
        help="a: attention head, m: MLP, x: head reading explicit memory, f: bank block; then layer and head or level.",
    )
    return queries.Filter(tuple(sorted(chosen.items())), component.strip())


def show_figure(figure: Any, table: Columns, key: str, alt: str) -> None:
    """A figure, and the same as a table."""
    st.plotly_chart(figure, key=key, width="stretch", alt=alt, config={"displayModeBar": False})
    with st.expander("As a table", key=f"{key}-table", on_change="rerun") as section:
        if section.open:
            st.dataframe(table, hide_index=True, alt=f"{alt}, as a table")


def warn_of_mixtures(sweeps: int, conditions: int, kinds: list[str]) -> None:
    """Say over what the means go that had better be apart."""
    counts = {"sweep": sweeps, "condition": conditions}
    mixed = [plural(count, name) for name, count in counts.items() if count > 1]
    mixed += [f"{len(kinds)} metrics, ablations or units"] if len(kinds) > 1 else []
    if mixed:
        st.warning(f"Means go over {' and '.join(mixed)} together: choose one of each above to tell them apart.")


def show_rows(connection: duckdb.DuckDBPyConnection, chosen: queries.Filter) -> None:
    """Summary and figures of what is chosen."""
    count, facts, kinds = queries.summarise(connection, chosen)
    if not count:
        st.info("No row is left: take a filter away.")
        return
    unit = "; ".join(kinds)
    method = dict(chosen.chosen)["method"][0]
    st.caption(
        f"{plural(count, 'row')} of {plural(facts, 'fact')}. Method: {plain(method)}. Values: {plain(unit)}; positive "
        "helps the answer."
    )
    warn_of_mixtures(*queries.count_sources(connection, chosen), kinds)
    left, right = st.columns([3, 2])
    if ranked := queries.rank_components(connection, chosen):
        with left:
            st.subheader(f"The {len(ranked)} with the largest mean size" if len(ranked) > 1 else "One component")
            st.caption("Bars are means over the rows that list it; whiskers are one standard deviation.")
            table = views.tabulate_components(ranked, unit)
            show_figure(views.draw_components(ranked, unit), table, "sweeps-ranked", "Components by mean value")
    with right:
        st.subheader("How the values spread")
        bins = queries.count_values(connection, chosen)
        table = views.tabulate_values(bins)
        show_figure(views.draw_values(bins, unit), table, "sweeps-values", "Histogram of values")
        everywhere = replace(chosen, chosen=tuple(pair for pair in chosen.chosen if pair[0] != "row"), component="")
        if formats := queries.average_formats(connection, everywhere):
            st.subheader("Formats by relation")
            table = views.tabulate_formats(formats, unit)
            show_figure(views.draw_formats(formats, unit), table, "sweeps-formats", "Mean share of formats by relation")


def render() -> None:
    """Filters over the sweeps there are, and what they leave."""
    st.title("Sweeps")
    st.caption(
        "Many facts measured by one command, as one table: which components and formats matter over all of them."
    )
    folder = library.find_sweeps()
    try:
        stamp = stamp_parts(folder)
        values, kinds, outcomes = list_values(str(folder), stamp)
        with st.expander("What was measured, and what was not", expanded=not kinds):
            st.dataframe(views.tabulate_outcomes(outcomes), hide_index=True, alt="Facts by outcome")
        if kinds:
            show_rows(open_sweeps(str(folder), stamp), choose_rows(values, kinds))
        else:
            st.info("No fact was measured: the table above says why.")
    except UserError as error:
        st.info(plain(str(error)))


render()
