"""Facts on the Placement page: the flow from where they live to where they should, and a selection that moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from probes.facts import Fact
from workbench.costs.formats import Formats
from workbench.ledgers.placing import Placement, sum_savings
from workbench.placement import FORMATS, UNMEASURED, count_moves, price_move
from workbench.views.placement import NAMES, draw_moves, tabulate_move, tabulate_moves, tabulate_placements
from workbench.views.text import plain

ANY = "any"


def show_flow(placements: Sequence[Placement], table: str) -> None:
    """Facts from where they live to where the cost model would keep them."""
    if not placements:
        st.info("No fact has a usage yet: choose above how often facts are read.")
        return
    moves = count_moves(placements)
    figure, rows = st.tabs(["Flow", "As a table"])
    with figure:
        st.plotly_chart(
            draw_moves(moves), key="moves", config={"displayModeBar": False}, alt="Where facts live and should live"
        )
    with rows:
        st.dataframe(tabulate_moves(moves), hide_index=True, key="moves-table", alt="Where facts live and should live")
    unknown = sum(one.lives == UNMEASURED for one in placements)
    if unknown == len(placements):
        st.info("Where facts live is not measured yet: choose a table of ledgers above, or measure some facts.")
    st.caption(
        plain(
            f"n = {len(placements):,} facts, {unknown:,} of them not measured. A fact lives in the format with the "
            "largest share of its margin (Shapley value over combinations of formats); it is recommended where write "
            f"+ n · read is least. Places from {table or 'no table'}."
        )
    )
    if unknown < len(placements):
        show_savings(placements)


def show_savings(placements: Sequence[Placement]) -> None:
    """What moving all facts that gain by it saves."""
    savings = sum_savings(placements)
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "Saving, if written anew",
            f"{savings['saving']:.4g} TFlops",
            width="content",
            help="Cost of the present place less that of the recommended one, both written anew (equation 1); sum over "
            "the measured facts for which it is above 0.",
        )
        st.metric(
            "Saving, if moved now",
            f"{savings['saving_moved']:.4g} TFlops",
            width="content",
            help="The same where what is there is paid for already and only the new place has to be written.",
        )


def filter_placements(
    placements: Sequence[Placement], facts: Mapping[str, Fact], words: str, lives: str, wanted: str
) -> list[Placement]:
    """Placements whose fact holds every word, that live and should live there (`any`: anywhere)."""
    terms = words.lower().split()

    def holds(one: Placement) -> bool:
        fact = facts.get(one.fact)
        text = one.fact if fact is None else f"{fact.id} {fact.subject} {fact.relation} {fact.object}"
        return all(term in text.lower() for term in terms)

    return [one for one in placements if lives in (ANY, one.lives) and wanted in (ANY, one.recommended) and holds(one)]


def offer_moves(placements: Sequence[Placement], facts: Mapping[str, Fact], formats: Formats, table: str) -> None:
    """The facts as a table; what moving the selected ones to each format costs and saves."""
    first, second, third = st.columns([2, 1, 1])
    words = first.text_input("Search facts", key="move-words", placeholder="subject, relation, object or id")
    lives = second.selectbox(
        "Lives in",
        [ANY, *sorted({one.lives for one in placements})],
        format_func=lambda name: NAMES.get(name, name),
        key="move-lives",
    )
    wanted = third.selectbox(
        "Recommended", [ANY, *FORMATS], format_func=lambda name: NAMES.get(name, name), key="move-wanted"
    )
    found = filter_placements(placements, facts, words, lives or ANY, wanted or ANY)
    if not found:
        st.info("No fact is left by these filters: widen them, or choose a usage above.")
        return
    event = st.dataframe(
        tabulate_placements(found, facts),
        hide_index=True,
        height=320,
        key=f"move-{table}-{words}-{lives}-{wanted}",
        on_select="rerun",
        selection_mode="multi-row",
        column_config={
            "its share": st.column_config.NumberColumn(
                format="%.3f", help="Largest share of the margin, in the unit of the table's metric."
            ),
            "by": st.column_config.TextColumn(help="Row of the ledger with that share."),
            "saving anew, TFlops": st.column_config.NumberColumn(format="%.3g"),
            "saving if moved, TFlops": st.column_config.NumberColumn(format="%.3g"),
        },
        alt="Facts with their places",
    )
    if all(one.lives == UNMEASURED for one in found):
        st.info("Where these facts live is not measured: choose a table of ledgers above, or measure some facts first.")
        return
    rows = [row for row in event["selection"]["rows"] if row < len(found)]
    chosen = [found[row] for row in rows] or found
    st.markdown(f"**Moving {f'the {len(rows):,} selected' if rows else f'all {len(found):,} listed'} facts**")
    st.dataframe(
        tabulate_move([price_move(chosen, target, formats) for target in FORMATS]),
        hide_index=True,
        key="move-costs",
        column_config={
            name: st.column_config.NumberColumn(format="%.4g")
            for name in ("writing them, TFlops", "their reads now, TFlops", "their reads then, TFlops")
        }
        | {
            "saved in all, TFlops": st.column_config.NumberColumn(
                format="%+.4g", help="Reads now less the write and the reads then; below 0 the move costs more."
            )
        },
        alt="What moving costs and saves",
    )
    st.caption(
        "TFlops over all expected reads, by the cost model above; what is there stays paid for. Facts already there or "
        "without a measured place are left where they are. Select rows to move those alone."
    )
