"""How good the circuit is: what `quality.json` beside the run says, and a button that measures it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.progress import watch
from pages.session import is_busy, restore, submit
from probes.errors import UserError
from probes.progress import Tick
from workbench import library, quality
from workbench.runs import Run
from workbench.views.figures import draw_curves
from workbench.views.tables import tabulate_overlap
from workbench.views.text import plain, show_decimals

if TYPE_CHECKING:
    from workbench.engine import Engine


def show_quality(run: Run, name: str) -> None:
    """The section of the Circuit page, folded until something was measured."""
    slot, folder = f"quality-{name}", library.find_runs() / name
    job = watch(slot)
    try:
        found = job.result if job is not None else quality.load_quality(folder)
    except UserError as error:
        st.error(plain(str(error)))
        return
    title = "Quality: size against faithfulness, necessity, completeness, overlap"
    section = st.expander(title, expanded=job is not None, key=f"open-{slot}", on_change="rerun")
    with section:
        if found is None:
            offer_measurement(run, slot, folder)
            return
        show_numbers(found)
        # A plot that nobody sees would hold up the graph below: Plotly's script comes first.
        if section.open:
            show_parts(found)


def offer_measurement(run: Run, slot: str, folder: Path) -> None:
    """Button that measures in the worker and keeps what was found beside the run."""
    st.caption("Not measured yet. It runs the model some hundred times with parts of it ablated.")
    if not st.button("Measure", key="measure-quality", icon=":material/speed:", disabled=is_busy(slot)):
        return
    try:
        _, settings = restore(run)
        submit(slot, "Measuring quality", settings, lambda engine, tick: measure_and_save(engine, run, folder, tick))
    except UserError as error:
        st.error(plain(str(error)))
    else:
        st.rerun()


def measure_and_save(engine: Engine, run: Run, folder: Path, tick: Tick) -> dict[str, Any]:
    """Measure every part and write `quality.json`."""
    found = quality.measure_run(engine, run, quality.Effort(), tick)
    quality.save_quality(folder, found)
    return found


def show_numbers(found: dict[str, Any]) -> None:
    """The headline numbers, each with what it means."""
    curves, ablations, agreement = (found.get(part) or {} for part in ("curves", "ablations", "agreement"))
    own, random = curves.get("absolute", {}), curves.get("random", {})
    numbers = [
        (
            "CPR",
            own.get("cpr"),
            f"Area under faithfulness by size; larger is better. Random: {show_decimals(random.get('cpr'))}.",
        ),
        ("CMD", own.get("cmd"), f"Area of its distance from 1; 0 is best. Random: {show_decimals(random.get('cmd'))}."),
        ("Sufficiency", ablations.get("sufficiency"), "Faithfulness of the circuit alone; 1 is the whole model."),
        ("Necessity", ablations.get("necessity"), "What the model loses when the circuit's edges alone are ablated."),
        (
            "Incompleteness",
            ablations.get("completeness", {}).get("mean"),
            "Distance of circuit and model after the same nodes are knocked out in both, mean of samples; 0 is best.",
        ),
        (
            "Idle edges",
            ablations.get("edges", {}).get("share_without_effect"),
            "Share of its edges whose removal alone changes faithfulness by less than 0.01.",
        ),
        ("Estimate vs exact", agreement.get("spearman"), "Spearman correlation over sampled edges, patched exactly."),
    ]
    with st.container(horizontal=True, gap="medium"):
        for label, value, meaning in numbers:
            st.metric(label, show_decimals(value), width="content", help=meaning)


def show_parts(found: dict[str, Any]) -> None:
    """Curves and overlap, side by side."""
    left, right = st.columns(2)
    if curves := found.get("curves"):
        left.plotly_chart(
            draw_curves(curves),
            key="quality-curves",
            config={"displayModeBar": False},
            alt="Faithfulness of circuits by their share of all edges",
        )
    if overlap := found.get("overlap"):
        right.caption("The same selection from other seeds, ablations and paraphrases.")
        right.dataframe(tabulate_overlap(overlap), hide_index=True, alt="Overlap with other circuits")
