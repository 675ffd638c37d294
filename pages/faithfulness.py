"""Faithfulness of what the slider shows, and the curve that it is read from, beside random circuits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from pages.progress import watch
from pages.session import is_busy, submit
from probes.errors import UserError
from probes.progress import Tick
from workbench import library, size_curves
from workbench.runs import Run
from workbench.settings import restore_settings
from workbench.size_curves import SizeCurve, read_faithfulness
from workbench.views.curves import draw_sizes, tabulate_sizes
from workbench.views.text import plain, show_decimals

if TYPE_CHECKING:
    from workbench.engine import Engine


def read_curve(name: str) -> SizeCurve | None:
    """The curve that is kept beside a run; None when there is none, or it is damaged."""
    try:
        return size_curves.load_curve(library.find_runs() / name)
    except UserError:
        return None


def show_reading(run: Run, name: str, edges: int) -> None:
    """Faithfulness of the edges shown: measured, or an estimate from the curve."""
    curve = read_curve(name)
    reading = read_faithfulness(run, curve, edges)
    value = "not measured" if reading.value is None else show_decimals(reading.value)
    how = "see “Faithfulness curve” below the graph" if reading.value is None else reading.how
    st.markdown(
        f"Faithfulness of the {edges:,} strongest edges: **{value}** · {how}",
        help="Metric when these edges alone are kept and all else is ablated, normalised: 0 is everything ablated, 1 "
        "the whole model. What you hide or group is still kept: that changes the picture, not the circuit.",
    )


def show_curve(run: Run, name: str, edges: int) -> None:
    """The curve as a plot and a table, or a button that measures it."""
    slot, folder = f"curve-{name}", library.find_runs() / name
    job = watch(slot)
    try:
        curve = job.result if job is not None else size_curves.load_curve(folder)
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    if curve is None:
        offer_curve(run, slot, folder)
        return
    st.plotly_chart(
        draw_sizes(curve, edges),
        key=f"sizes-{name}",
        config={"displayModeBar": False},
        alt="Faithfulness by number of edges, of this circuit and of random ones",
    )
    st.caption(
        f"Normalised faithfulness of this circuit's strongest edges, all else ablated ({plain(run.circuit.ablation)}), "
        f"beside random circuits of as many edges: mean and range of {curve.draws}, seed {curve.seed}. Metrics of "
        "faithfulness depend on the ablation. The upright line is the slider."
    )
    with st.expander("The curve as a table"):
        st.dataframe(tabulate_sizes(curve), hide_index=True, alt="Faithfulness by number of edges")


def offer_curve(run: Run, slot: str, folder: Path) -> None:
    """Button that measures the curve in the worker and keeps it beside the run."""
    st.caption(
        "Not measured yet. It runs the model with this circuit cut to about a dozen sizes, and with random circuits of "
        "the same sizes; then the slider tells faithfulness as you move it."
    )
    if not st.button("Measure the curve", key=slot + "-start", icon=":material/show_chart:", disabled=is_busy(slot)):
        return
    try:
        settings = restore_settings(run.about["settings"])
        submit(slot, "Measuring the curve", settings, lambda engine, tick: measure_and_save(engine, run, folder, tick))
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
    else:
        st.rerun()


def measure_and_save(engine: Engine, run: Run, folder: Path, tick: Tick) -> SizeCurve:
    """Measure the curve and write `curve.json`."""
    curve = size_curves.measure_curve(engine, run, 0, tick)
    size_curves.save_curve(folder, curve)
    return curve
