"""Read-outs by layer and position: lens, probes, states that bring an answer back; and classes of circuits."""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.components import read_row
from pages.graph import read_click
from workbench.lens_tables import LensTable, restore_table
from workbench.measurements import Measurement
from workbench.views.links import pick_latest
from workbench.views.readout_figures import (
    draw_lens,
    draw_lines,
    draw_restored,
    scatter_classes,
    tabulate_answer,
    tabulate_classes,
    tabulate_lens,
    tabulate_restored,
)
from workbench.views.text import plain, shorten, show_line, show_token

QUIET = {"displayModeBar": False}


def show_lens_table(table: LensTable, key: str, lens: str = "logit") -> None:
    """A lens table as a picture and as tables; also used by the page Ask."""
    st.plotly_chart(draw_lens(table), key=f"lens-{key}", config=QUIET, alt=f"{lens} lens by layer and position")
    st.caption(
        f"{plain(lens.capitalize())} lens, n = 1 prompt: the most probable next token that the stream would give "
        "at each layer and position, shaded by its probability; framed where it is "
        f"{plain(show_token(table.answer))}. The top row is "
        "what the model says."
    )
    at_end, everywhere = st.tabs(["The answer at the prompt's end", "All positions as a table"])
    share = st.column_config.NumberColumn(format="%.3f", help="Probability of that token as the next one.")
    rank = st.column_config.NumberColumn(help="1: no token is more probable.")
    config = {"its probability": share, "probability of the answer": share, "rank of the answer": rank}
    with at_end:
        st.dataframe(tabulate_answer(table), hide_index=True, column_config=config, alt="Lens at the prompt's end")
    with everywhere:
        st.dataframe(tabulate_lens(table), hide_index=True, alt="Lens at every position")


def show_lens(measured: Measurement) -> None:
    """A `lens` result: at every position where it has them, else at the prompt's end."""
    found = measured.found
    st.markdown(f"{plain(shorten(show_line(found['prompt']), 200))} → **{plain(show_token(found['answer']))}**")
    if found.get("everywhere"):
        show_lens_table(restore_table(found["everywhere"]), "saved", found["lens"])
        return
    lines = {"answer_probability": "the answer", "best_probability": "the most probable token"}
    st.plotly_chart(
        draw_lines(found["layers"], lines, "probability"), key="lens-end", config=QUIET, alt="Lens by layer"
    )
    st.caption(
        f"{plain(found['lens'].capitalize())} lens at the prompt's end, n = 1 prompt; probability of the next token."
    )
    rows = [{**row, "best": show_token(row["best"])} for row in found["layers"]]
    st.dataframe(rows, hide_index=True, alt="Lens by layer, as a table")


def show_probe(measured: Measurement) -> None:
    """A `probe` result: accuracy, control and selectivity by layer."""
    found = measured.found
    lines = {name: name for name in ("accuracy", "control", "selectivity", "majority")}
    st.plotly_chart(
        draw_lines(found["layers"], lines, "share of prompts"), key="probe", config=QUIET, alt="Probe by layer"
    )
    st.caption(
        f"Linear probe of the {plain(found['label'])} at the {plain(found['position'])}; n = {found['items']:,} "
        "prompts of "
        f"{found['facts']:,} facts, {found['labels']:,} labels, folds by {plain(found['folds'])}. Control: labels "
        "drawn at random "
        "for each fact; selectivity: accuracy less that; majority: always the most frequent label (Hewitt and "
        "Liang 2019)."
    )
    st.dataframe(found["layers"], hide_index=True, alt="Probe by layer, as a table")


def show_restored(measured: Measurement) -> None:
    """A `restore` result: share of the metric that each state brings back."""
    found = measured.found
    st.plotly_chart(draw_restored(found), key="restored", config=QUIET, alt="States put back, by layer and position")
    st.caption(
        f"{plain(found['method'])}: {plain(found['state'])} of the clean prompt put back into “"
        f"{plain(shorten(show_line(found['counterfactual']), 120))}”. Share of the {plain(found['metric'])}: 0 is the "
        f"counterfactual run ({found['corrupted']:.3f} {plain(found['unit'])}), 1 the clean one "
        f"({found['clean']:.3f}); n = 1 pair."
    )
    with st.expander("As a table"):
        st.dataframe(tabulate_restored(found), hide_index=True, alt="States put back, as a table")


def choose_class(count: int) -> int:
    """Number of the selected class: whichever of table and figure changed last; -1 for none."""
    seen = st.session_state.setdefault("seen-class", {})
    row = read_row("classes")
    sources = {"figure": read_click("scatter-classes"), "table": str(row) if row >= 0 else ""}
    for source in sources:
        seen.setdefault(source, "")
    chosen = pick_latest(seen.get("chosen", ""), sources, seen)
    seen["chosen"] = chosen
    return int(chosen) if chosen.isdigit() and int(chosen) < count else -1


@st.fragment
def explore_classes(measured: Measurement) -> None:
    """A `classes` result: rate against variability, the classes as a table, one class with its members."""
    found, settings = measured.found, measured.found["settings"]
    classes: list[dict[str, Any]] = found["classes"]
    st.caption(
        f"{found['edges_kept']:,} edges of n = {found['texts']:,} texts in {found['subgraphs']:,} subgraphs "
        f"({plain(settings['pieces'])}) and {len(classes):,} classes. Weight: {plain(settings['weight'])} in "
        f"{plain(found['unit'])}, at least {settings['threshold']:g} of the text's strongest edge. Specific: at most "
        f"{settings['fraction']:g} of the members have another output than the most frequent (the thresholds are ours)."
    )
    if not classes:
        st.info("No edge is strong enough: measure again with single edges, or a lower threshold.")
        return
    chosen = choose_class(len(classes))
    left, right = st.columns([3, 2], gap="medium")
    with left:
        st.plotly_chart(
            scatter_classes(found),
            key="scatter-classes",
            on_select="rerun",
            selection_mode="points",
            config=QUIET,
            alt="Rate against variability, one point a class",
        )
    with right:
        show_class(classes[chosen] if chosen >= 0 else None, found["unit"])
    number = st.column_config.NumberColumn
    st.dataframe(
        tabulate_classes(found),
        hide_index=True,
        key="classes",
        on_select="rerun",
        selection_mode="single-row",
        height=320,
        column_config={
            "rate": number(format="%.2f", help="Share of texts whose kept edges hold a member."),
            "low": number(format="%.2f", help="Percentile 2.5 of a bootstrap over texts."),
            "high": number(format="%.2f", help="Percentile 97.5 of a bootstrap over texts."),
            "facts": number(help="Facts that have a member; empty in files of older releases."),
            "variability": number(format="%.2f", help="Share of members whose output is not the most frequent one."),
            "weight": number(format="%.3f", help=f"Mean over members of their weakest edge, {found['unit']}."),
        },
        alt="Classes of circuits",
    )


def show_class(row: dict[str, Any] | None, unit: str) -> None:
    """One class: its edges, facts, inputs and outputs; or how to select one."""
    if row is None:
        st.info("Select a point or a row: the members of that class appear here.")
        return
    rate = row["rate"]
    st.subheader(f"{row['verdict'].capitalize()} class")
    st.markdown("  \n".join(plain(edge) for edge in row["edges"]))
    st.caption(
        f"{row['members']:,} members in {rate['value']:.0%} [{rate['low']:.0%}, {rate['high']:.0%}] of n = "
        f"{rate['n']:,} texts; "
        f"weight {row['weight']:.3f} {plain(unit)}; variability {row['variability']:.2f}. The edges are those of "
        "its first "
        f"member, of {plain(row['example'])}; positions are those of its own text."
    )
    for title, rows, key in (
        ("fact", row.get("facts", []), "fact"),
        ("input token", row["inputs"], "text"),
        ("output token", row["outputs"], "text"),
    ):
        if rows:
            columns = {
                title: [show_line(one[key]) if key == "fact" else show_token(one[key]) for one in rows],
                "members": [one["members"] for one in rows],
            }
            st.dataframe(columns, hide_index=True, height=min(38 + 35 * len(rows), 180), alt=f"{title}s of the class")
