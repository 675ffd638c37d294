"""A circuit's graph as GEXF, DOT, Mermaid and node-link JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from workbench.circuit_files import Traced
from workbench.exports_graphml import build_graph
from workbench.views.describe import ROLES, name_component
from workbench.views.layout import label_node
from workbench.views.svg import view_run
from workbench.views.text import format_score, show_line

# Mermaid draws no more unless it is told to.
MOST_EDGES = 500


def write_node_link(run: Traced) -> bytes:
    """JSON as networkx.node_link_graph(data, edges="links") reads it."""
    import networkx

    data = networkx.node_link_data(build_graph(run), edges="links")
    return json.dumps(data, ensure_ascii=True, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def write_gexf(run: Traced) -> bytes:
    """GEXF 1.2, as Gephi and networkx read it; without the date of writing."""
    from networkx.readwrite.gexf import GEXFWriter

    writer = GEXFWriter(encoding="utf-8", prettyprint=True, version="1.2draft")
    writer.add_graph(build_graph(run))
    for meta in writer.xml.iter():
        meta.attrib.pop("lastmodifieddate", None)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + str(writer).encode() + b"\n"


def quote_dot(text: str) -> str:
    """A quoted string of DOT that shows exactly this."""
    escaped = show_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def write_dot(run: Traced) -> bytes:
    """DOT as Graphviz reads it, layers upwards; scores are labels, widths and colours of lines."""
    circuit, view = run.circuit, view_run(run)
    strongest = max((abs(edge.score) for edge in circuit.edges), default=1.0) or 1.0
    lines = ["digraph circuit {", "  rankdir=BT;", "  node [shape=box, style=rounded];"]
    for node in circuit.nodes:
        label, title = f"{label_node(node, run.tokens, view)} @{node.position}", name_component(node.component)
        kind = quote_dot(str(node.component.kind))
        lines.append(f"  {quote_dot(node.id)} [label={quote_dot(label)}, tooltip={quote_dot(title)}, kind={kind}];")
    for edge in circuit.edges:
        width = 0.5 + 3.5 * (abs(edge.score) / strongest) ** 0.5
        colour = "#c4472b" if edge.score < 0 else "#2166ac"
        lines.append(
            f"  {quote_dot(edge.writer)} -> {quote_dot(edge.reader)} [role={quote_dot(edge.role)}, "
            f'score="{edge.score!r}", penwidth="{width:.2f}", color="{colour}"];'
        )
    for move in circuit.moves:
        ends = f"{quote_dot(move.source)} -> {quote_dot(move.target)}"
        lines.append(f'  {ends} [relation="attention", attention="{move.weight!r}", style=dashed];')
    return "\n".join([*lines, "}", ""]).encode("utf-8", "backslashreplace")


def quote_mermaid(text: str) -> str:
    """A quoted label of Mermaid: whatever could be markup there is written by its number."""
    shown = "".join(c if c.isalnum() or c == " " or not c.isascii() else f"#{ord(c)};" for c in show_line(text))
    return f'"{shown}"'


def write_mermaid(run: Traced) -> bytes:
    """A flowchart of the strongest edges, as many as Mermaid draws."""
    circuit = run.circuit
    moves = circuit.moves[: max(MOST_EDGES - len(circuit.edges), 0)]
    circuit = replace(circuit.prune(MOST_EDGES), moves=moves)
    view = view_run(run)
    names = {node.id: f"n{index}" for index, node in enumerate(circuit.nodes)}
    lines = ["flowchart BT"]
    for node in circuit.nodes:
        label = f"{node.id} {label_node(node, run.tokens, view)}"
        lines.append(f"  {names[node.id]}[{quote_mermaid(label)}]")
    for edge in circuit.edges:
        label = f"{ROLES.get(edge.role, edge.role)} {format_score(edge.score)}"
        lines.append(f"  {names[edge.writer]} -->|{quote_mermaid(label)}| {names[edge.reader]}")
    for move in circuit.moves:
        if move.source in names and move.target in names:
            lines.append(f"  {names[move.source]} -.-> {names[move.target]}")
    return "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")
