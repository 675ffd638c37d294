"""Specific or abstract: what heads, FFN units and memory blocks are for, over many facts. Opening needs no model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from pages.components import explore_components
from pages.cores import show_cores
from pages.measurements import (
    ask_number,
    choose_facts,
    choose_question,
    choose_saved,
    finish,
    offer_form,
    offer_upload,
    spell_model,
)
from pages.question import choose_settings
from pages.readouts import explore_classes, show_lens, show_probe, show_restored
from pages.tags import show_heads, show_units
from probes.errors import UserError
from workbench.commands.head_finders import FINDERS
from workbench.measurements import SUBJECTS, Measurement
from workbench.settings import Settings
from workbench.views.text import plain

SECTIONS = {
    "components": "Components",
    "classes": "Classes of circuits",
    "core": "Shared core",
    "heads": "Head tags",
    "units": "Knowledge neurons",
    "lens": "Lens",
    "probe": "Probes",
    "restore": "Causal tracing",
}
# Section in which a kind of measurement is shown.
HOMES = {kind: "components" if kind == "specificity" else kind for kind in SUBJECTS}
VIEWS: dict[str, tuple[str, Callable[[Measurement], None]]] = {
    "components": ("specificity", explore_components),
    "classes": ("classes", explore_classes),
    "heads": ("heads", show_heads),
    "units": ("units", show_units),
    "lens": ("lens", show_lens),
    "probe": ("probe", show_probe),
    "restore": ("restore", show_restored),
}


def choose_section() -> str:
    """The section of the link, or the one clicked; the link follows."""
    linked = st.query_params.get("section", "")
    if linked in SECTIONS and linked != st.session_state.get("linked-section"):
        st.session_state["section"] = linked
    if st.session_state.get("section") not in SECTIONS:
        st.session_state["section"] = "components"
    section = str(
        st.segmented_control(
            "Section",
            list(SECTIONS),
            format_func=SECTIONS.__getitem__,
            key="section",
            label_visibility="collapsed",
            required=True,
        )
    )
    if linked != section:
        st.query_params["section"] = section
    st.session_state["linked-section"] = section
    return section


def ask_specificity(settings: Settings) -> list[str]:
    """Form of `specificity`."""
    chosen = choose_facts("specificity", 8, 3)
    one, two = st.columns(2)
    with one:
        confirm = ask_number(
            "specificity", "confirm", "Removed for real", 0, 100, 3, "Components of each kind with the largest effects."
        )
    estimate = two.checkbox(
        "Estimate all",
        key="specificity-estimate",
        help="First-order effects of all components by one backward pass; else heads, blocks and memories are "
        "removed one by one.",
    )
    return [*chosen, *spell_model(settings), confirm, *(["--estimate"] if estimate else [])]


def ask_heads(settings: Settings) -> list[str]:
    """Form of `heads`."""
    finders = st.multiselect("Finders", list(FINDERS), key="heads-finder", placeholder="all")
    st.caption(plain("; ".join(f"{name}: {finder.label}" for name, finder in FINDERS.items())))
    one, two, three = st.columns(3)
    with one:
        limit = ask_number("heads", "limit", "Texts", 2, 10_000, 64, "Shipped facts after their document, at most.")
    with two:
        window = ask_number("heads", "window", "Window", 1, 10_000, 16, "Tokens before that a masked head still sees.")
    with three:
        seed = ask_number("heads", "seed", "Seed", 0, 2**31 - 1, 0, "Of draws and of resampling.")
    return [*(f"--finder={name}" for name in finders), limit, window, seed, *spell_model(settings, ())]


def ask_units(settings: Settings) -> list[str]:
    """Form of `units`."""
    chosen = choose_facts("units", 4, 4)
    return [*chosen, ask_number("units", "steps", "Steps", 1, 1000, 20, "Points of the path."), *spell_model(settings)]


def ask_classes(settings: Settings) -> list[str]:
    """Form of `classes`."""
    from workbench.commands.classes import PIECES, WEIGHTS

    chosen = choose_facts("classes", 4, 3)
    one, two, three, four = st.columns(4)
    pieces = one.selectbox(
        "Pieces", PIECES, index=0, key="classes-pieces", help="How a text's kept edges are cut into subgraphs."
    )
    weight = two.selectbox(
        "Weight of an edge", WEIGHTS, key="classes-weight", help="Exact zero ablation, or by the gradient."
    )
    with three:
        threshold = ask_number(
            "classes", "threshold", "Threshold", 0.0, 1.0, 0.1, "Share of the text's strongest edge."
        )
    with four:
        fraction = ask_number("classes", "fraction", "Fraction", 0.0, 1.0, 0.2, "Specific: at most this share differs.")
    return [*chosen, f"--pieces={pieces}", f"--weight={weight}", threshold, fraction, *spell_model(settings)]


def ask_lens(settings: Settings) -> list[str]:
    """Form of `lens`."""
    chosen = choose_question("lens")
    tuned = st.checkbox(
        "Tuned lens", key="lens-tuned", help="With one affine map a layer, trained here on the documents."
    )
    return [*chosen, "--everywhere", *(["--tuned"] if tuned else []), *spell_model(settings)]


def ask_probe(settings: Settings) -> list[str]:
    """Form of `probe`."""
    from workbench.commands.reading import LABELS

    chosen = choose_facts("probe", 20, 4)
    label = st.selectbox("Label", LABELS, key="probe-label", index=1, help="What is predicted from the stream.")
    return [*chosen, f"--label={label}", *spell_model(settings)]


def ask_restore(settings: Settings) -> list[str]:
    """Form of `restore`."""
    chosen = choose_question("restore")
    state = st.selectbox("State", ("stream", "attention", "mlp"), key="restore-state", help="What is put back.")
    return [*chosen, f"--state={state}", *spell_model(settings)]


FORMS: dict[str, Callable[[Settings], list[str]]] = {
    "specificity": ask_specificity,
    "heads": ask_heads,
    "units": ask_units,
    "classes": ask_classes,
    "lens": ask_lens,
    "probe": ask_probe,
    "restore": ask_restore,
}


def show_section(section: str) -> None:
    """Saved measurement of a section, and above it how to make or open another."""
    kind, show = VIEWS[section]
    # Drawn above, filled last: what is saved shall not wait for the table of facts that the form lists.
    above = st.container()
    try:
        measured = choose_saved(kind)
        if measured is not None:
            show(measured)
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
    with above:
        settings = choose_settings()
        offer_form(kind, partial(FORMS[kind], settings))
        offer_upload(HOMES)


def render() -> None:
    """The page from top to bottom."""
    st.title("Specific or abstract?")
    st.caption(
        "Does a head, an FFN unit or a memory block carry one fact, a relation, or everything? Measure it over many "
        "facts; results are kept beside the saved runs and open again without a model."
    )
    section: Any = choose_section()
    finish(HOMES)
    if section == "core":
        show_cores()
        return
    show_section(section)


render()
