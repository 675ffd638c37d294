"""Circuit: a saved run, its faithfulness and quality, its graph and every node of it. Opening one needs no model."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.explorer import explore
from pages.quality import show_quality
from pages.session import PAGES, go, open_run
from probes.errors import UserError
from workbench import library
from workbench.runs import Run
from workbench.settings import ABLATIONS, METHODS, METRICS
from workbench.views.links import list_run_names
from workbench.views.tables import tabulate_pairs
from workbench.views.text import plain, shorten, show_decimals, show_line, show_token


def read_run_name() -> str:
    """The run a link names, else the one open before; says what to do when there is none."""
    name = str(st.query_params.get("run", "") or st.session_state.get("run", ""))
    if name:
        return name
    st.title("Circuit")
    if list_run_names(library.find_runs()):
        offer_runs("")
    else:
        st.info("No run has been saved yet. Ask a question and trace its answer: its circuit appears here.")
        st.page_link(str(PAGES / "ask.py"), label="Ask", icon=":material/forum:")
    return ""


def offer_runs(name: str) -> None:
    """A box to open another saved run."""
    names = list_run_names(library.find_runs())
    index = names.index(name) if name in names else None
    picked = st.selectbox("Saved run", names, index=index, key=f"choose-{name}", placeholder="choose a saved run")
    if picked is not None and picked != name:
        go("circuit", run=picked)


def show_question(run: Run, name: str) -> None:
    """Prompt, answer and foil, and what was attached; a box to open another run."""
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with right:
        offer_runs(name)
    pair, memories, several = run.pair, run.about.get("memories") or {}, len(run.pairs) > 1
    title = f"{plain(shorten(show_line(pair['clean']), 140))} → {plain(shorten(show_line(pair['answer'].strip()), 60))}"
    left.title(f"{title} and {len(run.pairs) - 1} more" if several else title)
    attached = []
    if bank := memories.get("bank"):
        path = " › ".join(str(cluster) for cluster in bank.get("path", []))
        attached.append(f"bank, clusters {path or 'of each pair'}")
    if explicit := memories.get("explicit"):
        blocks = ", ".join(str(block["id"]) for block in explicit.get("blocks", []))
        attached.append(f"explicit memory of {blocks or 'each pair'}")
    if memories.get("text"):
        attached.append("text in the prompt")
    taught = pair["answer_tokens"]
    pieces = [
        f"answer of {len(taught)} tokens, each after those before: {' '.join(map(show_token, taught))}"
        if len(taught) > 1
        else "",
        f"foil {show_token(pair['foil'])}" if pair.get("foil") else "",
        f"model {name_model(run.about)}",
        "; ".join(attached) or "no memories attached",
        f"counterfactual prompt “{shorten(show_line(pair['counterfactual']), 100)}”"
        if pair.get("counterfactual")
        else "",
    ]
    st.caption(plain(" · ".join(piece for piece in pieces if piece)))
    if several:
        show_pairs(run)


def show_pairs(run: Run) -> None:
    """The pairs of a data set, and what the page shows of them."""
    st.info(
        f"Traced over {len(run.pairs)} prompt pairs: the metric is their mean and every node stands for all positions, "
        "so the graph has one column and no attention patterns. Trace one pair alone to see its positions."
    )
    with st.expander(f"The {len(run.pairs)} pairs"):
        st.dataframe(tabulate_pairs(run), hide_index=True, alt="Prompt pairs")


def name_model(about: dict[str, Any]) -> str:
    """The model as it was asked for, without the folders before its own."""
    asked = str((about.get("settings") or {}).get("model") or "")
    return "shipped" if asked == "shipped" else str((about.get("model") or {}).get("name") or asked or "?")


def show_faithfulness(run: Run) -> None:
    """How much of the model's behaviour the circuit alone keeps, beside random circuits; how it was made."""
    found, circuit = run.about.get("faithfulness") or {}, run.circuit
    random, unit = found.get("random") or {}, found.get("unit", circuit.unit)
    if found:
        show_numbers(found, random, str(unit))
    else:
        st.markdown("Faithfulness of this circuit: **not measured** with the run.")
    method, ablation, metric = METHODS.get(circuit.method), ABLATIONS.get(circuit.ablation), METRICS.get(circuit.metric)
    baseline = f"; random baseline n = {plain(str(random['n']))}" if random else ""
    st.caption(
        f"Method {method.label if method else plain(circuit.method)}, "
        f"{(ablation.label if ablation else plain(circuit.ablation)).lower()} ablation, metric "
        f"{(metric.label if metric else plain(circuit.metric)).lower()} in {plain(unit)}; "
        f"{len(circuit.edges):,} of {circuit.total:,} edges{baseline}. One of many possible circuits."
    )
    whole, empty = found.get("metric_whole"), found.get("metric_empty")
    if whole is not None and empty is not None and abs(whole - empty) < 0.1 * max(abs(whole), abs(empty)):
        st.warning(
            f"Whole model and ablated model differ by only {abs(whole - empty):.3f} {plain(unit)}: the ablation hardly "
            "changes this answer, and the normalised numbers say little."
        )


def show_numbers(found: dict[str, Any], random: dict[str, Any], unit: str) -> None:
    """What was measured; the random circuits only where there are any."""
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "Faithfulness, normalised",
            show_decimals(found.get("normalised")),
            width="content",
            help="Metric of the circuit alone, all else ablated: 0 is everything ablated, 1 the whole model.",
        )
        if random:
            st.metric(
                "Random circuits of its size",
                show_decimals(random.get("mean")),
                width="content",
                help=f"Mean of {plain(str(random['n']))} circuits of as many edges drawn at random; from "
                f"{show_decimals(random.get('low'))} to {show_decimals(random.get('high'))}.",
            )
        for label, key in (
            ("Whole model", "metric_whole"),
            ("This circuit", "metric_circuit"),
            ("Everything ablated", "metric_empty"),
        ):
            st.metric(label, f"{show_decimals(found.get(key))} {plain(unit)}", width="content")


def render() -> None:
    """The page of one run."""
    name = read_run_name()
    if not name:
        return
    try:
        run = open_run(name)
    except UserError as error:
        st.title("Circuit")
        st.session_state.pop("run", None)
        st.error(plain(str(error)), icon=":material/error:")
        offer_runs("")
        return
    st.session_state["run"] = name
    if not st.query_params.get("run"):
        st.query_params["run"] = name
    show_question(run, name)
    show_faithfulness(run)
    show_quality(run, name)
    explore(run, name)


render()
