"""Tags of heads by finders from the literature, and knowledge neurons with how much each layer's FFN changes."""

from __future__ import annotations

import streamlit as st

from workbench.measurements import Measurement
from workbench.views.component_figures import draw_layers, draw_map, map_finder
from workbench.views.components import Quantity
from workbench.views.text import plain

QUIET = {"displayModeBar": False}


def show_heads(measured: Measurement) -> None:
    """Scores of heads by finder: a map, all scores as a table, how far finders agree."""
    found = measured.found
    names = list(dict.fromkeys(f"{row['finder']}: {row['metric']}" for row in found["rows"]))
    if not names:
        st.info("This file holds no scores.")
        return
    first = next((place for place, name in enumerate(names) if not name.endswith("performance s_h")), 0)
    chosen = st.selectbox("Finder", names, index=first, key="finder")
    rows = [row for row in found["rows"] if f"{row['finder']}: {row['metric']}" == chosen]
    unit, texts = rows[0]["unit"], rows[0]["n"]
    st.caption(
        f"{plain(chosen)}, in {plain(unit)}; mean over n = {texts:,} texts, window of {found['window']} tokens. "
        "Intervals: "
        "percentiles 2.5 and 97.5 of a bootstrap over texts. What each finder measures: `memory-circuits heads --help`."
    )
    signed = any(row["value"] < 0 for row in rows)
    st.plotly_chart(
        draw_map(map_finder(rows), Quantity(chosen, unit, "", signed), unit),
        key="map-finder",
        config=QUIET,
        alt=f"Layer by head map of {chosen}",
    )
    ordered = sorted(rows, key=lambda row: -row["value"])
    marks = [("candidate" if row.get("candidate") else "") or str(row.get("source", "")) for row in ordered]
    columns = {"head": [f"a{row['layer']}.h{row['head']}" for row in ordered], "tag": marks}
    columns |= {name: [row[name] for row in ordered] for name in ("value", "low", "high", "n")}
    st.dataframe(columns, hide_index=True, alt="Heads by score", height=300)
    st.markdown("**How far the finders agree**: rank correlation over heads (Spearman)")
    pairs = [
        {"finders": " and ".join(row["finders"]), **{k: row[k] for k in ("spearman", "low", "high", "n")}}
        for row in found["comparisons"]
    ]
    st.dataframe(pairs, hide_index=True, alt="Rank correlations of finders")


def show_units(measured: Measurement) -> None:
    """Knowledge neurons of every fact, and PKS by layer."""
    found = measured.found
    st.caption(
        f"{plain(found['method'])}; {len(found['neurons']):,} neurons of {found['facts']:,} facts in "
        f"{found['items']:,} "
        f"prompts, {found['steps']} points of the path. A fact's neurons reach {found['adaptive']:g} of the "
        "largest attribution in "
        f"{found['shared']:g} of its wordings. Score in {plain(found['unit'])}."
    )
    columns = {name: [row[name] for row in found["neurons"]] for name in ("unit", "score", "facts", "fact")}
    config = {"facts": st.column_config.NumberColumn("of facts", help="Facts of the sample whose neuron it is.")}
    st.dataframe(columns, hide_index=True, column_config=config, height=300, alt="Knowledge neurons")
    knowledge = found["parametric_knowledge"]
    title = f"PKS ({knowledge['unit']})"
    st.plotly_chart(draw_layers(knowledge["layers"], title), key="pks", config=QUIET, alt="PKS by layer")
    st.caption(
        "Parametric knowledge score: how much each layer's FFN changes the prediction at the last token. Bars are "
        "means over prompts with bootstrap intervals."
    )
    with st.expander("As a table"):
        st.dataframe(knowledge["layers"], hide_index=True, alt="PKS by layer, as a table")
