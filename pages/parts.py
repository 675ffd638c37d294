"""What a node is made of: its strongest FFN units, memory slots with their tokens, or source positions."""

from __future__ import annotations

import streamlit as st

from circuits.circuit import Node
from circuits.graph import Kind
from circuits.parts import PART_KINDS, WEIGHED, KeptParts
from pages.checks import offer_check
from pages.intervening import offer_written
from workbench.runs import Run
from workbench.settings import ABLATIONS, METHODS
from workbench.views.describe import name_part
from workbench.views.memories import find_source
from workbench.views.tables import tabulate_parts
from workbench.views.text import format_score, plain, show_token

TITLES = {
    "FFN unit": "Strongest FFN units",
    "bank unit": "Strongest units of the block",
    "memory slot": "Strongest slots",
    "attention edge": "Strongest source positions",
}


def show_parts(run: Run, name: str, node: Node) -> None:
    """Parts of a node with their estimates, one of them to be checked; how to get them where the run kept none."""
    if node.component.kind not in PART_KINDS:
        return
    kind, kept = PART_KINDS[node.component.kind], run.parts
    if kept is None:
        st.caption(f"This run kept no {kind}s: trace again with “Parts kept” above 0 (`trace --parts`) to see them.")
        return
    found = kept.list_of(node.id)
    st.markdown(f"**{TITLES[kind]}**")
    if not found:
        scored = any(part.component.kind is node.component.kind for part in kept.parts)
        reasons = "" if scored else "; ".join(kept.left_out)
        st.caption(f"Not scored: {plain(reasons)}." if reasons else f"No {kind} of this node was kept.")
        return
    weighed = node.component.kind in WEIGHED
    number = st.column_config.NumberColumn(format="%+.3f")
    names = ("ablated", "contribution", "renormalised") if weighed else ("ablated",)
    st.dataframe(
        tabulate_parts(run, found),
        hide_index=True,
        column_config=dict.fromkeys(names, number),
        height=min(38 + 35 * len(found), 214),
        alt=TITLES[kind],
    )
    st.caption(explain_parts(kept, weighed))
    labels = {part.id: (find_source(run, part.component), part) for part in found}

    def label(part: str) -> str:
        source, entry = labels[part]
        brings = f" {show_token(source)}" if source else ""
        return f"{part}{brings}  {format_score(entry.score)}"

    chosen = st.selectbox("Part", list(labels), format_func=label, key=f"part-{name}-{node.id}")
    if chosen is not None:
        st.caption(f"{plain(name_part(labels[chosen][1].component))}.")
        offer_check(run, name, chosen)
        if node.component.kind is not Kind.HEAD:
            offer_written(run, name, chosen)


def explain_parts(kept: KeptParts, weighed: bool) -> str:
    """How the numbers of a table of parts were found."""
    method = METHODS[kept.method].label if kept.method in METHODS else plain(kept.method)
    ablation = ABLATIONS[kept.ablation].label.lower() if kept.ablation in ABLATIONS else plain(kept.ablation)
    ways = (
        " Contribution: its weighted value alone is taken away; renormalised: it leaves the softmax and the rest "
        "shares out its attention."
        if weighed
        else ""
    )
    return (
        f"Estimated by {method} at the clean run: drop of the metric in {plain(kept.unit)} when that part alone is "
        f"removed, {ablation} ablation; positive helps the answer.{ways}"
    )
