"""Runs: everything that was traced and saved, to open again."""

from __future__ import annotations

import streamlit as st

from pages.session import PAGES, go
from workbench import library
from workbench.runs import list_runs
from workbench.views.tables import tabulate_runs
from workbench.views.text import plain


def render() -> None:
    """List the saved runs; a selected row opens."""
    st.title("Saved runs")
    folder = library.find_runs()
    runs = list_runs(folder)
    if not runs:
        st.info("No run has been saved yet. Ask a question and trace its answer: the run appears here.")
        st.page_link(str(PAGES / "ask.py"), label="Ask", icon=":material/forum:")
        return
    st.caption(f"{len(runs)} runs in {plain(folder.name)}/. Select a row to open its circuit.")
    event = st.dataframe(
        tabulate_runs(runs),
        hide_index=True,
        key="saved",
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "prompt": st.column_config.TextColumn(width="large"),
            "faithfulness": st.column_config.NumberColumn(
                format="%.3f",
                help="Metric of the circuit alone: 0 is everything ablated, 1 is the whole model.",
            ),
        },
        alt="Saved runs",
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < len(runs):
        go("circuit", run=runs[rows[0]][0].name)


render()
