"""Everything about one node: score, exact check, parts, edges, attention, memory text, cluster path."""

from __future__ import annotations

import streamlit as st

from circuits.circuit import UNITS, Node
from circuits.graph import Kind
from pages.checks import offer_check
from pages.graph import mount_tokens
from pages.parts import show_parts
from workbench.runs import Run
from workbench.views.describe import name_component, show_position
from workbench.views.drawing import Drawing
from workbench.views.figures import draw_attention
from workbench.views.memories import find_kept, read_block
from workbench.views.tables import tabulate_edges, tabulate_moves
from workbench.views.text import format_score, plain


def inspect(run: Run, name: str, node: str, drawing: Drawing) -> None:
    """The selected node, or how to select one."""
    found = run.circuit.find_node(node)
    if found is None:
        st.info("Select a node in the graph: its score, edges, attention or memory appear here.")
        return
    st.subheader(name_component(found.component))
    st.caption(f"{plain(found.id)} · {found.component.kind} · {plain(show_position(found.position, run.tokens))}")
    if all(glyph.id != node for glyph in drawing.glyphs):
        st.caption("Not among the edges shown: move the slider to the right to see it in the graph.")
    if found.component.kind is not Kind.LOGITS:
        st.metric(
            "Score", f"{format_score(found.score)} {plain(run.circuit.unit)}", help=plain(explain_score(found, run))
        )
        offer_check(run, name, found.id)
        show_parts(run, name, found)
    show_memory(run, name, found)
    show_edges(run, found)
    if found.component.kind in (Kind.HEAD, Kind.EXPLICIT):
        show_attention(run, name, found)


def explain_score(node: Node, run: Run) -> str:
    """What the score of a node says."""
    if node.component.kind is Kind.KEY_VALUE:
        return "Sum over the edges that enter its key and value; positive helps the answer."
    if run.circuit.unit != UNITS.get(run.circuit.metric, run.circuit.unit):
        return f"Largest {run.circuit.unit} of its outgoing edges to be kept ({run.circuit.method})."
    return f"Drop of the metric when its output is ablated at this position ({run.circuit.method}); positive helps."


def show_edges(run: Run, node: Node) -> None:
    """Edges into and out of the node, and the attention that joins it to other positions."""
    into, out = run.circuit.list_edges_of(node.id)
    unit, tokens = run.circuit.unit, run.tokens
    score = {unit: st.column_config.NumberColumn(format="%+.3f")}
    for title, edges, other in (
        (f"Edges in ({len(into)})", into, "writer"),
        (f"Edges out ({len(out)})", out, "reader"),
    ):
        if edges:
            st.markdown(f"**{title}**")
            st.dataframe(
                tabulate_edges(edges, tokens, other, unit),
                hide_index=True,
                column_config=score,
                height=min(38 + 35 * len(edges), 214),
                alt=title,
            )
    sources = [move for move in run.circuit.moves if move.target == node.id]
    targets = [move for move in run.circuit.moves if move.source == node.id]
    for title, moves, other in (("Attends to", sources, "source"), ("Is read by", targets, "target")):
        if moves:
            st.markdown(f"**{title}**")
            st.dataframe(
                tabulate_moves(moves, tokens, other),
                hide_index=True,
                alt=title,
                height=min(38 + 35 * len(moves), 179),
                column_config={"attention": st.column_config.ProgressColumn(min_value=0, max_value=1, format="%.3f")},
            )


def show_attention(run: Run, name: str, node: Node) -> None:
    """Attention pattern of the node's head."""
    component = node.component
    if component.layer >= len(run.recording.context) or node.position >= len(run.tokens):
        if len(run.pairs) > 1:
            st.caption(f"No attention pattern: the run is over {len(run.pairs)} pairs, each has its own.")
        return
    st.markdown("**Attention pattern**")
    st.plotly_chart(
        draw_attention(run, component.layer, component.head, node.position),
        key=f"attention-{name}-{node.id}",
        config={"displayModeBar": False},
        alt=f"Attention pattern of head {component.head} of layer {component.layer}",
    )
    st.caption("Clean run; probabilities of one softmax over memory and context. The framed row is this position.")


def show_memory(run: Run, name: str, node: Node) -> None:
    """Text of the explicit memory the node reads, or the path of the bank block."""
    memories = run.about.get("memories") or {}
    if node.component.kind in (Kind.BANK, Kind.LEARNED) and (bank := memories.get("bank")):
        path = [str(cluster) for cluster in bank.get("path", [])]
        level = node.component.block
        st.markdown("**Cluster path**")
        st.markdown(
            " › ".join(f"**{plain(step)}**" if place == level else plain(step) for place, step in enumerate(path))
        )
        st.caption(f"Block of cluster {plain(path[level]) if level < len(path) else '?'}, level {level} of the bank.")
    if node.component.kind is Kind.EXPLICIT and (block := read_block(run, node.component.block)) is not None:
        kept = find_kept(run, node.component, node.position)
        st.markdown(f"**Memory {plain(str(block['id']))}**")
        mount_tokens(f"memory-{name}-{node.id}", [str(token) for token in block.get("tokens", [])], kept)
        st.caption(
            f"Kept tokens are outlined, shaded by this head's attention; {100 * sum(kept.values()):.1f} % of it "
            "goes to this memory here."
        )
