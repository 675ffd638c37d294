"""Everything about one node: score, exact check, parts, edges, attention, memory text, cluster path."""

from __future__ import annotations

import streamlit as st

from circuits.circuit import UNITS, Node
from circuits.graph import Kind
from pages.checks import offer_check
from pages.graph import mount_attention, mount_tokens
from pages.intervening import offer_intervention, offer_written
from pages.parts import show_parts
from workbench.runs import Run
from workbench.views.curation import Curation, Group
from workbench.views.describe import name_component, show_position
from workbench.views.drawing import Drawing
from workbench.views.memories import find_kept, read_block
from workbench.views.tables import tabulate_edges, tabulate_members, tabulate_moves
from workbench.views.text import format_score, plain, plural


def inspect(run: Run, name: str, node: str, drawing: Drawing, state: Curation) -> None:
    """The selected node or supernode, or how to select one."""
    group, found = state.find_group(node), run.circuit.find_node(node)
    if group is not None:
        inspect_group(run, name, group, state)
        return
    if found is None:
        st.info("Select a node in the graph: its score, edges, attention or memory appear here.")
        if len(state.pinned) > 1:
            offer_intervention(run, name, keep_writers(run, state.spread(state.pinned)), "all pinned nodes")
        return
    st.subheader(name_component(found.component))
    st.caption(f"{plain(found.id)} · {found.component.kind} · {plain(show_position(found.position, run.tokens))}")
    show_texts(state, node)
    if all(glyph.id != node for glyph in drawing.glyphs):
        st.caption(
            "Not among what is shown: move the slider to the right, or show hidden nodes, to see it in the graph."
        )
    if found.component.kind is not Kind.LOGITS:
        st.metric(
            "Score", f"{format_score(found.score)} {plain(run.circuit.unit)}", help=plain(explain_score(found, run))
        )
        offer_check(run, name, found.id)
        offer_intervention(run, name, (found.id,), found.id)
        if found.component.kind is not Kind.KEY_VALUE:
            offer_written(run, name, found.id)
        show_parts(run, name, found)
    show_memory(run, name, found)
    show_edges(run, found)
    if found.component.kind in (Kind.HEAD, Kind.EXPLICIT):
        show_attention(run, name, found)


def show_texts(state: Curation, one: str) -> None:
    """Name and note that a reader gave, as text."""
    if (name := state.name_of(one)) and state.find_group(one) is None:
        st.caption(f"Named “{plain(name)}”")
    if note := state.note_of(one):
        st.info(plain(note), icon=":material/edit_note:")


def keep_writers(run: Run, nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Nodes that can be ablated: all but the logits."""
    kinds = {node.id: node.component.kind for node in run.circuit.nodes}
    return tuple(node for node in nodes if kinds.get(node) not in (None, Kind.LOGITS))


def inspect_group(run: Run, name: str, group: Group, state: Curation) -> None:
    """A supernode: its members with their scores, ablated or scaled together."""
    st.subheader(plain(group.name))
    members = [node for node in run.circuit.nodes if node.id in group.members]
    st.caption(f"Supernode of {plural(len(members), 'node')}: drawn as one, their edges added up.")
    show_texts(state, group.id)
    total = sum(node.score for node in members)
    st.metric(
        "Sum of scores",
        format_score(total, run.circuit.unit),
        help="Each is the drop of the metric when that node alone is ablated; together they may do more or less.",
    )
    offer_intervention(run, name, keep_writers(run, group.members), group.name)
    st.dataframe(
        tabulate_members(members, run.tokens, run.circuit.unit),
        hide_index=True,
        column_config={run.circuit.unit: st.column_config.NumberColumn(format="%+.3f")},
        alt="Members of the supernode",
    )


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
    mount_attention(f"attention-{name}", run, component.layer, component.head, node.position)
    st.caption(
        "Clean run; probabilities of one softmax over memory and context, shaded by their square root. The marked row "
        "is this position; hover a cell for its number."
    )


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
        st.caption(
            f"Block of cluster {plain(path[level]) if level < len(path) else '?'}, level {level + 1} of the bank."
        )
    if node.component.kind is Kind.EXPLICIT and (block := read_block(run, node.component.block)) is not None:
        kept = find_kept(run, node.component, node.position)
        st.markdown(f"**Memory {plain(str(block['id']))}**")
        mount_tokens(f"memory-{name}-{node.id}", [str(token) for token in block.get("tokens", [])], kept)
        st.caption(
            f"Kept tokens are outlined, shaded by this head's attention; {100 * sum(kept.values()):.1f} % of it "
            "goes to this memory here."
        )
