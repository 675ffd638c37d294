"""The form that traces an answer: method, ablation, metric, selection and seed; the result is a saved run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from circuits.selection import SELECTIONS, Selection
from pages.answers import Asked, Chosen
from pages.session import is_busy, submit
from probes.errors import UserError
from probes.progress import Tick
from workbench import library, pipeline
from workbench.runs import save_run
from workbench.settings import ABLATIONS, METHODS, METRICS, Choice, Method, Question, Settings
from workbench.views.links import list_run_names, name_run
from workbench.views.text import plain

if TYPE_CHECKING:
    from workbench.pipeline import Engine


def explain_choices(table: Mapping[str, Choice | Method | Selection]) -> str:
    """Help text of a table of choices."""
    costs = {name: f" Cost: {choice.cost}." for name, choice in table.items() if isinstance(choice, Method)}
    return "\n\n".join(f"**{c.label}**: {c.explanation}{costs.get(name, '')}" for name, c in table.items())


def build_question(asked: Asked, chosen: Chosen) -> Question:
    """The question with the chosen answer and foil; a fact's own answer is left to the fact."""
    keep = bool(asked.question.fact) and not chosen.changed
    return replace(asked.question, answer="" if keep else chosen.answer, foil=chosen.foil)


def choose_method(asked: Asked, question: Question) -> Settings:
    """Method, ablation and metric; how edges are selected; the seed."""
    names = list(ABLATIONS)
    comparable = bool(question.fact or question.counterfactual)
    one, two, three = st.columns(3)
    method = one.selectbox(
        "Method", METHODS, format_func=lambda name: METHODS[name].label, key="method", help=explain_choices(METHODS)
    )
    ablation = two.selectbox(
        "Ablation",
        names,
        index=0 if comparable else names.index("mean"),
        format_func=lambda name: ABLATIONS[name].label,
        key=f"ablation-{comparable}",
        help=explain_choices(ABLATIONS),
    )
    metric = three.selectbox(
        "Metric", METRICS, format_func=lambda name: METRICS[name].label, key="metric", help=explain_choices(METRICS)
    )
    four, five, six, seven, eight = st.columns([3, 2, 2, 2, 2])
    selection = four.selectbox(
        "Selection",
        SELECTIONS,
        format_func=lambda name: SELECTIONS[name].label,
        key="selection",
        help=explain_choices(SELECTIONS),
    )
    edges = five.number_input(
        "Edges",
        1,
        100_000,
        200,
        step=50,
        key="edges-wanted",
        help="How many edges to keep at most, all on a path to the logits.",
    )
    threshold = six.number_input(
        "Threshold",
        1e-6,
        1e6,
        0.01,
        format="%g",
        key="threshold",
        help="Smallest absolute score that the selection above a threshold keeps, and smallest change for which "
        "pruning keeps an edge, in the metric's unit.",
    )
    seed = seven.number_input(
        "Seed",
        0,
        2**31 - 1,
        0,
        key="seed",
        help="Decides the counterfactual fact and the random circuits to compare with.",
    )
    parts = eight.number_input(
        "Parts kept",
        0,
        10_000,
        20,
        step=10,
        key="parts",
        help="How many of the strongest FFN units, bank units, memory slots and attention edges are kept of each, "
        "estimated by EAP at the clean run; 0: they are not scored. Under the metric minus KL, which is flat there, "
        "none are.",
    )
    return replace(
        asked.settings,
        method=method,
        ablation=ablation,
        metric=metric,
        selection=selection,
        edges=int(edges),
        threshold=float(threshold),
        seed=int(seed),
        parts=0 if metric == "kl" else int(parts),
    )


def trace_and_save(engine: Engine, question: Question, settings: Settings, tick: Tick) -> str:
    """Trace in the worker and save; returns the run's name."""
    run = pipeline.trace(engine, question, settings, tick)
    folder = library.find_runs()
    name = name_run(question, settings, list_run_names(folder))
    tick("saving", 0, 1)
    save_run(run, folder / name)
    return name


def offer_trace(asked: Asked, chosen: Chosen) -> None:
    """The form and its button."""
    st.subheader("Trace the answer")
    question = build_question(asked, chosen)
    with st.form("trace", border=True):
        settings = choose_method(asked, question)
        busy = is_busy("tracing")
        wanted = st.form_submit_button("Trace", type="primary", icon=":material/hub:", disabled=busy)
    if not wanted:
        return
    try:
        settings.check()
        question.check_traceable(settings)
        submit("tracing", "Tracing", settings, lambda engine, tick: trace_and_save(engine, question, settings, tick))
        st.rerun()
    except UserError as error:
        st.error(plain(str(error)))
