"""Sweeps: tables of many facts, filtered and drawn; every number is added up by DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from probes.errors import UserError
from workbench import library
from workbench.sweeps import queries
from workbench.views import sweeps as views
from workbench.views.text import plain, show_line

if TYPE_CHECKING:
    import duckdb

# What is chosen when the page opens, where it is there.
FIRST = {"method": ("ledger", "eap"), "row": ("component", "node", "edge")}


def stamp_parts(folder: Path) -> str:
    """What changes when a part is added: number of parts and the newest."""
    parts = [part.stat().st_mtime_ns for parts in queries.list_files(folder).values() for part in parts]
    return f"{len(parts)} {max(parts)}"


@st.cache_resource(max_entries=2, show_spinner="Opening the sweeps…")
def open_sweeps(folder: str, stamp: str) -> duckdb.DuckDBPyConnection:
    """The connection of a folder as it is now."""
    return queries.open_sweeps(Path(folder))


@st.cache_data(max_entries=2, show_spinner="Reading what there is…")
def list_values(folder: str, stamp: str) -> tuple[dict[str, list[str]], queries.Rows]:
    """What can be filtered by, and how many facts were measured."""
    connection = open_sweeps(folder, stamp)
    return queries.list_values(connection), queries.count_outcomes(connection)


def choose_rows(values: dict[str, list[str]]) -> queries.Filter:
    """Widgets of the filter. Method and kind of row are one each: values of others have other units or meanings."""
    left, right = st.columns(2)
    single, several = {}, {}
    for column, (name, wanted) in zip((left, right), FIRST.items(), strict=True):
        first = views.choose_first(values[name], wanted)
        single[name] = column.selectbox(name, values[name], index=first, key=f"sweeps-{name}", format_func=show_line)
    for place, name in enumerate(("sweep", "condition", "relation")):
        column = (left, right)[place % 2]
        several[name] = column.multiselect(
            name, values[name], key=f"sweeps-{name}", placeholder="all", format_func=show_line
        )
    component = right.text_input("component starts with", key="sweeps-component", placeholder="a3.h1, m, x, f2.l1 …")
    chosen = {name: (value,) for name, value in single.items() if value} | {
        name: tuple(some) for name, some in several.items()
    }
    return queries.Filter(tuple(sorted(chosen.items())), component.strip())


def show_rows(connection: duckdb.DuckDBPyConnection, chosen: queries.Filter) -> None:
    """Summary and figures of what is chosen."""
    count, facts, kinds = queries.summarise(connection, chosen)
    if not count:
        st.info("No row is left: take a filter away.")
        return
    unit = "; ".join(kinds)
    st.caption(f"{count:,} rows of {facts:,} facts. Values: {plain(unit)}; positive helps the answer.")
    left, right = st.columns([3, 2])
    ranked = queries.rank_components(connection, chosen)
    if ranked:
        left.plotly_chart(views.draw_components(ranked, unit), key="sweeps-ranked", width="stretch")
    right.plotly_chart(
        views.draw_values(queries.count_values(connection, chosen), unit), key="sweeps-values", width="stretch"
    )
    formats = queries.average_formats(connection, chosen)
    if formats:
        right.plotly_chart(views.draw_formats(formats, unit), key="sweeps-formats", width="stretch")


def render() -> None:
    """Filters over the sweeps there are, and what they leave."""
    st.title("Sweeps")
    folder = library.find_sweeps()
    try:
        stamp = stamp_parts(folder)
        values, outcomes = list_values(str(folder), stamp)
        with st.expander("What was measured, and what was not", expanded=False):
            st.dataframe(views.tabulate_outcomes(outcomes), hide_index=True, alt="Facts by outcome")
        show_rows(open_sweeps(str(folder), stamp), choose_rows(values))
    except UserError as error:
        st.info(plain(str(error)))


render()
