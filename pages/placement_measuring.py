"""Measured places: a table of ledgers chosen from those on disk, or made here from a sample of shipped facts."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from pages.memory_forms import BANK, DIGITS, EXPLICIT, TEXT, pick_places, share_engine
from pages.progress import watch
from pages.session import is_busy, submit
from probes.errors import UserError
from probes.progress import Tick
from workbench import library
from workbench.ledgers.bulk import HEAD
from workbench.placement import Measured, list_tables, read_places
from workbench.settings import Settings
from workbench.views.text import plain

if TYPE_CHECKING:
    from workbench.pipeline import Engine

NONE = "none"
SLOT = "attributing"


@st.cache_resource(max_entries=4, show_spinner="Reading the table…")
def open_table(folder: str, stamp: tuple[int, int]) -> dict[str, Measured]:
    """Where each fact of a table lives, read again when its parts change."""
    return read_places(Path(folder))


def choose_table() -> tuple[dict[str, Measured], str]:
    """Measured places and the table's name, both empty where none is chosen."""
    if watch(SLOT, into="measured-places") is not None:
        st.rerun()
    tables = list_tables(library.find_runs())
    linked = str(st.query_params.get("measured", ""))
    if linked and linked not in tables:
        st.warning(plain(f"there is no table of ledgers {linked[:80]!r}: none is read"))
    wanted = st.session_state.pop("measured-places", "") or linked
    options = [NONE, *tables]
    name = st.selectbox(
        "Measured places",
        options,
        index=options.index(wanted) if wanted in options else 0,
        key=f"table-{wanted}-{len(options)}",
        help="Tables that `memory-circuits attribute` wrote, beside the runs or below the working directory. They say "
        "which format carries each fact.",
    )
    offer_measuring()
    if name in (None, NONE):
        st.query_params.pop("measured", None)
        return {}, ""
    st.query_params["measured"] = name
    folder = tables[name]
    parts = [path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")]
    return open_table(str(folder), (len(parts), max(parts, default=0))), name


def offer_measuring() -> None:
    """Measure a sample of the shipped facts in the worker; a table that was stopped goes on."""
    with st.popover("Measure some facts", icon=":material/speed:"):
        st.caption(
            "Runs every combination of text, explicit memory, bank levels and parameters for each fact of a sample and "
            "keeps the ledgers as a table beside the runs."
        )
        count = st.number_input("Facts", 1, 100_000, 64, key="sample", help="n; drawn with the seed from all facts.")
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="sample-seed")
        settings = pick_places(Settings(), [TEXT, EXPLICIT, BANK])
        if st.button("Measure", key="measure-places", disabled=is_busy(SLOT)):
            start_measuring(settings, int(count), int(seed))


def draw_sample(count: int, seed: int) -> list[str]:
    """Ids of shipped facts, drawn with a seed, in the order of the facts."""
    ids = [fact.id for fact in library.read_shipped_facts()]
    chosen = set(random.Random(seed).sample(ids, min(count, len(ids))))
    return [name for name in ids if name in chosen]


def start_measuring(settings: Settings, count: int, seed: int) -> None:
    """Queue the table; its name comes back."""
    runs = library.find_runs()

    def work(engine: Engine, tick: Tick) -> str:
        from workbench.ledgers.bulk import attribute

        name = f"places-{engine.model.sha256[:DIGITS]}.n{count}.seed{seed}"
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "facts.jsonl"
            path.write_text("".join(f'{{"id": "{one}"}}\n' for one in draw_sample(count, seed)), encoding="utf-8")
            attribute(engine, path, runs / name, settings, top=0, chunk=8, tick=tick)
        assert (runs / name / HEAD).is_file()
        return name

    try:
        submit(SLOT, "Measuring places", share_engine(settings), work)
    except UserError as error:
        st.error(plain(str(error)))
    else:
        st.rerun()
