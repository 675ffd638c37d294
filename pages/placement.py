"""Placement: where facts live, where their usage would keep them, what moving costs, and tiers of storage."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import streamlit as st

from pages.placement_facts import offer_moves, show_flow
from pages.placement_measuring import choose_table
from pages.placement_tiers import simulate_tiers
from probes.errors import UserError
from probes.facts import Fact, read_rows
from workbench import library, stored
from workbench.costs import memory3
from workbench.costs.formats import Formats, Usage, compare_formats
from workbench.costs.shapes import Shape, read_shape
from workbench.ledgers.placing import Placement
from workbench.placement import place_facts, read_usage_rows
from workbench.stored import Blocks, Memories, Place
from workbench.views.placement import draw_costs, tabulate_places, tabulate_ranges
from workbench.views.text import plain

# Choices stand in the link as they are shown.
SHIPPED, PAPER = SHAPES = ("shipped model", "Memory^3, 2.4B")
PLACES, COSTS, MOVES, TIERS = VIEWS = ("Places", "Cost against usage", "Move a selection", "Tiers of storage")
OCCURRENCES, SAME, TABLE = SOURCES = ("as often as in training", "the same for all", "as a table says")


@st.cache_resource(show_spinner=False)
def open_stores() -> tuple[Shape, Blocks | None, Memories | None]:
    """Shape and stores of the shipped model, from their heads."""
    folder = library.find_shipped()
    bank, memory = folder / "bank", folder / "memory"
    return (
        read_shape(folder / "model"),
        stored.read_blocks(bank) if bank.is_dir() else None,
        stored.read_memories(memory) if memory.is_dir() else None,
    )


def choose_costs() -> tuple[Shape, Usage, bool]:
    """Shape of the model, lengths of references and chunks; whether it is the shipped model."""
    first, second, third = st.columns([2, 1, 1])
    name = first.selectbox(
        "Costs of",
        SHAPES,
        key="shape",
        bind="query-params",
        help="Costs follow from sizes alone (Yang et al. 2024, appendix A): no model is loaded.",
    )
    shape, _, memories = open_stores()
    usage = stored.choose_usage(shape, memories)
    if name == PAPER:
        shape, usage = memory3.SHAPE, memory3.USAGE
    reference = second.number_input(
        "Tokens of a reference", 1, 100_000, 128, key="reference", bind="query-params", help="Of every fact's document."
    )
    chunk = third.number_input(
        "Tokens that read it",
        1,
        100_000,
        64,
        key="chunk",
        bind="query-params",
        help="Length of the chunk that reads a memory or text once.",
    )
    return shape, replace(usage, reference=int(reference), chunk=int(chunk)), name != PAPER


def choose_usage(facts: tuple[Fact, ...]) -> dict[str, float]:
    """Expected reads of every fact. Raises UserError for a table that cannot be read."""
    first, second = st.columns([2, 1])
    source = first.selectbox(
        "A fact is read",
        SOURCES,
        key="usage-source",
        bind="query-params",
        help="How often a fact stands in the training text is a stand-in for how often it will be read; 0 for facts "
        "that were never seen. A table says it for each fact.",
    )
    if source == TABLE:
        with second:
            return upload_usage()
    label = "Reads a fact" if source == SAME else "Reads an occurrence"
    factor = float(
        second.number_input(
            label,
            0.0,
            1e12,
            100.0,
            key="factor",
            bind="query-params",
            format="%g",
            help="n, the expected reads of a fact: this number, times its occurrences in training if so chosen.",
        )
    )
    if source == SAME:
        return {fact.id: factor for fact in facts}
    return {fact.id: factor * max(fact.occurrences, 0) for fact in facts}


def upload_usage() -> dict[str, float]:
    """Usage from a table of the user's own. Raises UserError for one that is not whole."""
    file = st.file_uploader(
        "Table of usage",
        type=["csv", "jsonl", "parquet"],
        key="usage-file",
        help="Columns id and usage; at most 50 MB.",
    )
    if file is None:
        st.caption("A table with the columns id and usage: how often each fact will be read.")
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"usage{Path(file.name).suffix.lower()}"
        path.write_bytes(file.getvalue())
        try:
            rows = read_rows(path)
        except UserError:
            raise UserError("the table of usage cannot be read as what its name says: save it again") from None
    return read_usage_rows((row if isinstance(row, Mapping) else {} for row in rows), "the table of usage")


def show_costs(formats: Formats, levels: list[Place], placements: list[Placement]) -> None:
    """The chart of costs against usage, and its numbers."""
    figure, table = st.tabs(["Chart", "As a table"])
    with figure:
        st.plotly_chart(
            draw_costs(formats, levels, placements),
            key="costs",
            config={"displayModeBar": False},
            alt="Cost of text, explicit memory, bank levels and parameters against expected reads",
        )
    with table:
        st.dataframe(
            tabulate_ranges(formats),
            hide_index=True,
            key="ranges",
            column_config={name: st.column_config.NumberColumn(format="%.4g") for name in list_numbers(formats)},
            alt="Costs and advantage intervals",
        )
    low, high = formats.interval
    st.caption(
        f"Explicit memory is the cheapest from {low:.3g} to {high:,.6g} reads. Equations 1 and 2 of Yang et al. 2024 "
        "for this model's sizes, in TFlops (10¹² operations); lines of bank levels are ours: one training step writes "
        f"a block, two operations a number and token read it. Marks at the bottom: n = {len(placements):,} facts by "
        "their reads, facts without reads at the left edge."
    )


def list_numbers(formats: Formats) -> list[str]:
    """Columns of the table of costs that are numbers."""
    return [name for name in tabulate_ranges(formats) if name != "format"]


def list_places(shape: Shape, usage: Usage, facts: tuple[Fact, ...]) -> list[Place]:
    """Places of the shipped hierarchy."""
    _, blocks, memories = open_stores()
    return stored.list_places(shape, library.find_shipped() / "model", blocks, memories, facts, usage)


def show_places(places: list[Place]) -> None:
    """The shipped hierarchy as it is."""
    st.markdown("**As it is**")
    st.dataframe(
        tabulate_places(places),
        hide_index=True,
        key="places-table",
        column_config={
            "MB": st.column_config.NumberColumn(format="%.2f", help="Bytes on disk, 10⁶."),
            "write one reference, TFlops": st.column_config.NumberColumn(format="%.3g"),
            "read it once, TFlops": st.column_config.NumberColumn(format="%.3g"),
        },
        alt="Text, explicit memory, bank levels and anchor as they are",
    )
    st.caption("Slowest to read first. Counts and bytes from the shipped files, costs from sizes by the formula named.")


def render() -> None:
    """The page from top to bottom: assumptions, then places, costs, moves and tiers."""
    st.title("Where should each fact live?")
    st.caption(
        "Text is free to write and dear to read, parameters the other way round; explicit memory lies between. How "
        "often a fact is read decides."
    )
    try:
        facts = library.read_shipped_facts()
        with st.container(border=True):
            shape, usage, own = choose_costs()
            reads = choose_usage(facts)
            measured, name = choose_table()
        formats = compare_formats(shape, usage)
        placements = place_facts(facts, reads, measured, formats)
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    view = st.segmented_control(
        "View", VIEWS, default=PLACES, required=True, key="view", bind="query-params", label_visibility="collapsed"
    )
    places = list_places(shape, usage, facts) if own else []
    if view == COSTS:
        show_costs(formats, [place for place in places if place.name.startswith("bank")], placements)
    elif view == MOVES:
        offer_moves(placements, {fact.id: fact for fact in facts}, formats, name)
    elif view == TIERS:
        simulate_tiers(open_stores()[1])
    else:
        if own:
            show_places(places)
        st.markdown("**As recommended**")
        show_flow(placements, name)


render()
