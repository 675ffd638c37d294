"""A study: its waterfall and tables, what was read and by which heads, the cluster path, and answers when blocked."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.graph import mount_tokens
from pages.memory_trials import offer_trials, show_answers
from workbench.ledgers.table import Ledger
from workbench.settings import METRICS
from workbench.studies import Reference, Study
from workbench.views.ledgers import (
    PLACES,
    Step,
    draw_waterfall,
    list_readers,
    list_steps,
    map_readers,
    mark_kept,
    subtract,
    tabulate_combinations,
    tabulate_interactions,
    tabulate_ledger,
    tabulate_path,
    tabulate_readers,
    tabulate_rivals,
    tabulate_steps,
)
from workbench.views.text import format_score, plain, shorten, show_line, show_token

LEDGER, READ, PATH, TRIALS = ("Ledger", "What was read", "Cluster path", "Block and ask again")
PARTS_AT_FIRST = 2
ALL_HEADS = "all heads (mean)"
WAYS = {
    "renormalised": "out of the softmax",
    "contribution": "contribution only",
}
EVERY_ROW = (
    "share: what the row adds to the margin. alone: what the place adds to the model without the others; last: what it "
    "adds to all others. effect: first-order drop of the margin when a part of the model alone counts as zero; effects "
    "overlap and do not add up."
)


def show_study(study: Study) -> None:
    """What was asked and found, and the section that is chosen."""
    st.subheader(plain(shorten(show_line(study.title), 160)))
    st.caption(plain(describe_source(study)))
    if study.kind == "conflict":
        show_conflict(study)
    if study.kind == "writing":
        show_writing(study)
    parts = {LEDGER: study.ledgers, READ: study.references, PATH: study.path, TRIALS: study.answers}
    there = [name for name, found in parts.items() if found]
    if not there:
        return
    section = st.segmented_control(
        "Section",
        there,
        default=there[0],
        required=True,
        key="section",
        bind="query-params",
        label_visibility="collapsed",
    )
    if section == READ:
        show_references(study)
    elif section == PATH:
        show_path(study)
    elif section == TRIALS:
        offer_trials(study)
    elif study.ledgers:
        show_ledgers(study)


def describe_source(study: Study) -> str:
    """Model, memories and seed of a study."""
    model, settings = study.about.get("model") or {}, study.about.get("settings") or {}
    pieces = [
        f"model {settings.get('model') or model.get('name') or '?'}",
        f"weights {str(model.get('sha256', ''))[:8]}" if model.get("sha256") else "",
        f"explicit memory {Path(str(settings['memory'])).name}" if settings.get("memory") else "",
        f"text {settings.get('text')}" if settings.get("text") else "",
        f"bank {settings.get('bank')}, blocks {settings.get('reading')}" if settings.get("bank") else "",
        f"seed {settings.get('seed')}" if "seed" in settings else "",
    ]
    return " · ".join(piece for piece in pieces if piece)


def show_conflict(study: Study) -> None:
    """Who wins, and the ledger of the two likeliest answers' log odds."""
    conflict = study.about.get("conflict") or {}
    words = f"Likeliest: {show_token(str(conflict.get('winner', '')))}, said by {conflict.get('winner_says', '?')}"
    said = str(conflict.get("said") or "")
    st.markdown(f"**{plain(words)}**" + (plain(f"; the model itself says {show_token(said)}") if said else ""))
    st.dataframe(tabulate_rivals(study), hide_index=True, key=f"rivals-{study.name}", alt="Answers that rival")
    st.caption(
        "Natural log-probability of each whole answer with text, memory, bank and parameters on; n = 1 question."
    )
    if len(study.ledgers) > 1:
        first, second = study.ledgers[:2]
        title = f"Log odds of {show_token(first.answer)} over {show_token(second.answer)}"
        with st.expander(plain(f"{title}, place by place"), expanded=True):
            show_steps(f"odds-{study.name}", subtract(first, second), "nats", plain(title))


def show_writing(study: Study) -> None:
    """The document that was written, and the answers without it, with it, and with it as text."""
    written = study.about.get("written") or {}
    st.markdown("**Written into explicit memory**")
    st.text(show_line(str(written.get("document", ""))))
    memories = ", ".join(str(name) for name in written.get("memories", []))
    st.caption(plain(f"memories {memories} in the bank {written.get('bank', '?')} beside the runs"))
    show_answers(study, 3)


def show_ledgers(study: Study) -> None:
    """The ledger that is chosen, of those of two removals or of several answers."""
    ledger, place = study.ledgers[0], 0
    if len(study.ledgers) > 1:
        if study.kind == "conflict":
            names = [show_token(one.answer) for one in study.ledgers]
        else:
            names = [WAYS.get(one.removal, one.removal) for one in study.ledgers]
        place = int(
            st.segmented_control(
                "Answer" if study.kind == "conflict" else "A memory that is off is",
                range(len(names)),
                format_func=lambda index: plain(names[index]),
                default=0,
                required=True,
                key=f"ledger-{study.name}",
                help="Out of the softmax: the context takes its share of the attention (renormalised). Contribution "
                "only: its slots keep their attention and are read as zero.",
            )
            or 0
        )
        ledger = study.ledgers[place]
    show_ledger(study, ledger, f"{study.name}-{place}")


def show_ledger(study: Study, ledger: Ledger, key: str) -> None:
    """Headline numbers, the waterfall and its tables."""
    show_numbers(ledger)
    most = max((len(entry.parts) for entry in ledger.entries), default=0)
    parts = (
        st.slider(
            "Parts shown of each place",
            0,
            most,
            min(PARTS_AT_FIRST, most),
            key=f"parts-{key}",
            help="0 shows whole places. Parts are memory slots as heads read them, bank units, heads' reads of the "
            "text, and heads and MLPs of the model alone; those not shown stand together.",
        )
        if most
        else 0
    )
    show_steps(f"waterfall-{key}", list_steps(ledger, parts), ledger.unit, "Where the margin comes from")
    st.caption(plain(describe_method(ledger)))
    every, pairs, combinations = st.tabs(["Every row", "Interactions", "All combinations"])
    with every:
        st.caption(EVERY_ROW)
        st.dataframe(tabulate_ledger(ledger), hide_index=True, key=f"rows-{key}", height=320, alt="Every row")
    with pairs:
        st.caption("Shapley interaction of two places: below 0 either would do (redundancy), above 0 they need both.")
        st.dataframe(tabulate_interactions(ledger), hide_index=True, key=f"pairs-{key}", alt="Interactions")
    with combinations:
        st.caption("The margin with only these places on, each run exactly.")
        st.dataframe(tabulate_combinations(ledger), hide_index=True, key=f"on-{key}", alt="All combinations")


def show_numbers(ledger: Ledger) -> None:
    """The margin, what each kind of place has of it, and that all rows add up."""
    metric, unit = METRICS.get(ledger.metric), ledger.unit
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "Margin",
            format_score(ledger.margin, unit),
            width="content",
            help=f"{metric.explanation if metric else ledger.metric} With everything attached; n = 1 question.",
        )
        for kind, word in PLACES.items():
            shares = [entry.share for entry in ledger.entries if entry.kind == kind]
            if shares:
                st.metric(
                    word.capitalize(),
                    format_score(sum(shares), unit),
                    width="content",
                    help="Its Shapley value: the mean of what it adds over all orders of attaching the places. "
                    "Positive helps the answer.",
                )
        st.metric(
            "All rows add up to",
            format_score(ledger.total, unit),
            width="content",
            help="Sum of every row of the table below; it is the margin but for the last digits.",
        )
    if not ledger.known:
        st.warning(plain(f"With everything on the model says {show_token(ledger.said)}, not the answer."))


def describe_method(ledger: Ledger) -> str:
    """Method, metric, removal and n of a ledger."""
    metric, foil = METRICS.get(ledger.metric), f" against {show_token(ledger.foil)}" if ledger.foil else ""
    return (
        f"{metric.label if metric else ledger.metric} of {show_token(ledger.answer)}{foil} in {ledger.unit}. "
        f"{ledger.method}. A memory that is off is removed {ledger.removal}. n = 1 question, "
        f"{len(ledger.combinations)} combinations. Blue helps the answer, framed orange-red hurts it."
    )


def show_steps(key: str, steps: list[Step], unit: str, title: str) -> None:
    """A waterfall, with the same rows as a table in a second tab."""
    figure, table = st.tabs(["Waterfall", "As a table"])
    with figure:
        st.plotly_chart(draw_waterfall(steps, unit), key=key, config={"displayModeBar": False}, alt=title)
    with table:
        st.dataframe(tabulate_steps(steps, unit), hide_index=True, key=f"{key}-table", alt=title)


def show_references(study: Study) -> None:
    """Each text that could be read, its kept tokens, and the heads that read it."""
    st.caption(
        "Attention where the answer's first token is predicted, as probabilities of one softmax over memories and "
        "context; n = 1 position. Attention says what is read, not what it does to the answer: shares say that."
    )
    for place, reference in enumerate(study.references):
        with st.container(border=True):
            show_reference(study, reference, f"{study.name}-{place}")


def show_reference(study: Study, reference: Reference, key: str) -> None:
    """One text: tokens shaded for one head or all, the map of heads, and the table."""
    st.markdown(f"**{plain(reference.entry)}**: {plain(shorten(show_line(reference.id), 100))}")
    readers = list_readers(reference)
    options = [ALL_HEADS, *(f"a{layer}.h{head}" for layer, head, _ in readers)]
    chosen = st.selectbox(
        "Tokens as read by",
        options,
        key=f"reader-{key}",
        help="Heads are ordered by how much of their attention goes to this text. Each key-value head keeps tokens of "
        "its own.",
    )
    place = options.index(chosen) - 1 if chosen in options else -1
    layer, head = readers[place][:2] if place >= 0 else (None, None)
    kept = mark_kept(reference, layer, head)
    mount_tokens(f"tokens-{key}", list(reference.tokens), kept)
    word = (
        "Kept tokens are outlined"
        if reference.kept
        else "Every token can be read; words with which text and question both start count as the question's"
    )
    st.caption(f"{word}; shading is attention, {100 * sum(kept.values()):.1f} % of it in all.")
    left, right = st.columns(2)
    left.plotly_chart(
        map_readers(reference),
        key=f"readers-{key}",
        config={"displayModeBar": False},
        alt="Attention by layer and head",
    )
    ledger = study.ledgers[0] if study.ledgers else None
    right.dataframe(
        tabulate_readers(reference, ledger),
        hide_index=True,
        key=f"heads-{key}",
        height=260,
        column_config={"attention": st.column_config.ProgressColumn(min_value=0, max_value=1, format="%.3f")},
        alt="Heads that read it",
    )


def show_path(study: Study) -> None:
    """The clusters of the path among their siblings."""
    steps = " › ".join(f"level {level.level}: **{level.cluster}**" for level in study.path)
    st.markdown(f"Path of the prompt: {steps}")
    st.dataframe(
        tabulate_path(study.path),
        hide_index=True,
        key=f"path-{study.name}",
        height=420,
        column_config={
            "trained facts": st.column_config.NumberColumn(
                help="Facts that occur in training and whose prompt is routed to this cluster."
            )
        },
        alt="Cluster path with siblings",
    )
    st.caption(
        "Siblings share a parent: the router chose this cluster among them. n = all shipped facts that occur in "
        "training; a cluster of −1 is the generic block."
    )
