"""Ablate or scale nodes of the graph and see what the model then answers; which tokens a node writes for."""

from __future__ import annotations

import streamlit as st

from pages.progress import watch
from pages.session import is_busy, submit
from probes.errors import UserError
from workbench import interventions
from workbench.interventions import FACTORS, Outcome, WrittenTokens
from workbench.runs import Run
from workbench.settings import ABLATIONS, restore_settings
from workbench.views.interventions import tabulate_outcomes, tabulate_shifts, tabulate_written
from workbench.views.text import format_score, plain, plural

# Outcomes that a session remembers of one run.
KEPT = 20


def offer_intervention(run: Run, name: str, nodes: tuple[str, ...], label: str) -> None:
    """Factor and button, and what earlier interventions of this session found."""
    slot, found = f"intervene-{name}", st.session_state.setdefault(f"outcomes-{name}", [])
    if (job := watch(slot)) is not None:
        found.insert(0, job.result)
        del found[KEPT:]
    ablation = ABLATIONS[run.circuit.ablation].label.lower() if run.circuit.ablation in ABLATIONS else "its"
    st.markdown("**Ablate or scale**")
    factor = st.slider(
        f"Factor on {plain(label)}",
        -2.0,
        3.0,
        0.0,
        0.5,
        key=f"factor-{name}",
        help=f"0 ablates ({ablation} ablation, as in this run), 1 leaves it alone, 2 doubles how far its output stands "
        f"from the ablated one, below 0 turns it round. Commands take {FACTORS[0]:g} to {FACTORS[1]:g}.",
    )
    words = "Ablate and ask again" if factor == 0 else "Scale and ask again"
    if st.button(words, disabled=is_busy(slot), icon=":material/tune:", key=f"intervene-start-{name}", width="stretch"):
        try:
            settings = restore_settings(run.about["settings"])
            submit(
                slot,
                f"Asking again with {plural(len(nodes), 'node')} changed",
                settings,
                lambda engine, tick: interventions.intervene(engine, run, nodes, factor, tick),
            )
        except UserError as error:
            st.error(plain(str(error)), icon=":material/error:")
        else:
            st.rerun(scope="fragment")
    own = [outcome for outcome in found if outcome.nodes == nodes]
    if own:
        show_outcome(own[0])
    if len(found) > 1:
        with st.expander(f"All {len(found)} interventions of this session"):
            st.dataframe(tabulate_outcomes(found), hide_index=True, alt="Interventions of this session")


def show_outcome(outcome: Outcome) -> None:
    """Metric and next tokens before and after."""
    st.metric(
        f"Metric with factor {outcome.factor:g}",
        f"{format_score(outcome.after)} {plain(outcome.unit)}",
        delta=f"{outcome.after - outcome.before:+.3f}",
        help=f"Exact: the model is run again with {plural(len(outcome.nodes), 'node')} changed; {outcome.ablation} "
        f"ablation, n = {plural(outcome.pairs, 'pair')}. Before: {outcome.before:+.3f}.",
    )
    if outcome.tokens:
        share = st.column_config.ProgressColumn(min_value=0, max_value=1, format="percent")
        st.dataframe(
            tabulate_shifts(outcome.tokens),
            hide_index=True,
            column_config={"before": share, "after": share},
            alt="Probability of next tokens before and after",
        )
    st.caption(
        f"Measured on the model, metric in {plain(outcome.unit)}; probabilities of the first token that follows."
    )


def offer_written(run: Run, name: str, one: str) -> None:
    """Button that reads what a node or part writes for, and the tokens."""
    slot, found = f"written-{name}", st.session_state.setdefault(f"written-found-{name}", {})
    if (job := watch(slot)) is not None:
        found[job.result.one] = job.result
    written = found.get(one)
    if written is not None:
        show_written(written)
        return
    if st.button(
        f"Top tokens of {plain(one)}",
        disabled=is_busy(slot) or len(run.pairs) > 1,
        icon=":material/format_list_numbered:",
        key=f"written-start-{name}-{one}",
        width="stretch",
        help="Loads the model and reads, by the logit lens, which tokens its output at this position points to.",
    ):
        try:
            settings = restore_settings(run.about["settings"])
            submit(
                slot,
                f"Reading {one}",
                settings,
                lambda engine, tick: interventions.read_written(engine, run, one, tick),
            )
        except UserError as error:
            st.error(plain(str(error)), icon=":material/error:")
        else:
            st.rerun(scope="fragment")


def show_written(written: WrittenTokens) -> None:
    """Tokens towards and away, side by side."""
    st.markdown(f"**Top tokens of {plain(written.one)}**")
    number = st.column_config.NumberColumn(format="%+.2f", help="Logit of that direction alone")
    st.dataframe(
        tabulate_written(written),
        hide_index=True,
        column_config={"logit": number, "logit away": number},
        alt="Tokens that the output points to and away from",
    )
    st.caption(
        f"Logit lens on clean minus ablated output ({plain(written.ablation)}) at this position, through the final "
        f"norm and the unembedding alone; length of that output {written.norm:.2f}. A reading of one direction, not "
        "an effect: the exact check measures that."
    )
