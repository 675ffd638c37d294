"""The exact check of a node or of a part: a button, and what the model says beside the estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.progress import watch
from pages.session import is_busy, restore, submit
from probes.errors import UserError
from probes.progress import Tick
from workbench import checks, pipeline
from workbench.parts import is_part
from workbench.runs import Run
from workbench.views.text import format_score, plain

if TYPE_CHECKING:
    from workbench.pipeline import Engine


def check_exactly(engine: Engine, run: Run, node: str, tick: Tick) -> Any:
    """Exact check of a node or, where the id is that of one, of a part."""
    return (checks.check_part if is_part(node) else check_whole)(engine, run, node, tick=tick)


def check_whole(engine: Engine, run: Run, node: str, tick: Tick) -> pipeline.Check:
    """Exact check of a node."""
    return pipeline.check_node(engine, run, node, tick)


def offer_check(run: Run, name: str, node: str) -> None:
    """Button that removes a node or a part for real, and the result beside the estimate."""
    what = "part" if is_part(node) else "node"
    slot, found = f"check-{what}-{name}", st.session_state.setdefault("checks", {})
    if (job := watch(slot)) is not None:
        asked, result = job.result
        found[name, asked] = result
    check = found.get((name, node))
    if check is not None:
        show_check(check)
        return
    if st.button(
        "Check exactly" if what == "node" else "Check this part exactly",
        disabled=is_busy(slot),
        icon=":material/fact_check:",
        key=f"check-{what}",
        width="stretch",
        help=f"Runs the model with this {what} removed and measures the metric again.",
    ):
        try:
            _, settings = restore(run)
            submit(
                slot, f"Checking {node}", settings, lambda engine, tick: (node, check_exactly(engine, run, node, tick))
            )
        except UserError as error:
            st.error(plain(str(error)))
        else:
            st.rerun(scope="fragment")


def show_check(check: pipeline.Check | checks.PartCheck) -> None:
    """Estimate beside exact measurement, of a part one row a way of removal."""
    if isinstance(check, checks.PartCheck):
        show_part_check(check)
        return
    left, right = st.columns(2)
    left.metric(
        "Estimate",
        format_score(check.estimate),
        help=plain(f"By {check.method}, in {check.estimate_unit or check.unit}."),
    )
    right.metric("Exact", format_score(check.exact), help=plain(f"Measured with the node ablated, in {check.unit}."))
    difference = "" if check.estimate_unit else f"; difference {format_score(check.estimate - check.exact)}"
    st.caption(f"Drop of the metric in {plain(check.unit)}{difference}.")


def show_part_check(check: checks.PartCheck) -> None:
    """Estimate beside exact removal, one row a way of removal."""
    columns = {
        "removed as": [way.removal for way in check.ways],
        "estimate": [way.estimate for way in check.ways],
        "exact": [way.exact for way in check.ways],
    }
    number = st.column_config.NumberColumn(format="%+.3f")
    config = {"estimate": number, "exact": number}
    st.dataframe(columns, hide_index=True, column_config=config, alt="Estimate and exact removal of a part")
    st.caption(
        f"{plain(check.part)}: drop of the metric in {plain(check.unit)}, {plain(check.ablation)} ablation; estimates "
        f"by {plain(check.method)}{'' if check.recorded else ', made now'}."
    )
