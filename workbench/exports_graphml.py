"""A circuit as GraphML: a directed multigraph that networkx, Gephi, yEd and Cytoscape open."""

from __future__ import annotations

import re
from typing import Any

from circuits.graph import Component, wire
from circuits.parts import PART_KINDS
from workbench.circuit_files import Traced
from workbench.exports_tables import find_token
from workbench.views.describe import describe_node, name_component, name_part, show_position
from workbench.views.memories import find_source

# XML 1.0 has no way to write these, and parsers turn a carriage return into a line feed.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def picture_character(found: re.Match[str]) -> str:
    """The picture Unicode has of a control character, or U+FFFD where it has none."""
    code = ord(found.group())
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def clean_xml(text: object) -> str:
    """Text that XML can hold and that comes back the same from a parser."""
    return _UNWRITABLE.sub(picture_character, str(text))


def build_graph(run: Traced) -> Any:
    """networkx.MultiDiGraph of a circuit: `relation` is `edge` or `attention`, scores in the graph's `unit`.

    Parts that the run kept are nodes too, each joined to the node that it is a part of (`part`), and to the one reader
    for which it was scored (`part edge`).
    """
    import networkx

    circuit, pair = run.circuit, run.pair
    graph = networkx.MultiDiGraph(
        prompt=clean_xml(pair["clean"]),
        answer=clean_xml(pair["answer"]),
        foil=clean_xml(pair["foil"]),
        pairs=len(run.pairs),
        **{name: clean_xml(getattr(circuit, name)) for name in ("method", "ablation", "metric", "unit")},
    )
    for node in circuit.nodes:
        graph.add_node(
            node.id,
            label=clean_xml(describe_node(node, run.tokens, circuit.unit)),
            kind=str(node.component.kind),
            layer=node.component.layer,
            head=node.component.head,
            block=node.component.block,
            position=node.position,
            token=clean_xml(find_token(run.tokens, node.position)),
            score=node.score,
        )
    for index, edge in enumerate(circuit.edges):
        graph.add_edge(edge.writer, edge.reader, f"e{index}", relation="edge", role=edge.role, score=edge.score)
    for index, move in enumerate(circuit.moves):
        graph.add_edge(move.source, move.target, f"m{index}", relation="attention", attention=move.weight)
    add_parts(graph, run)
    return graph


def add_parts(graph: Any, run: Traced) -> None:
    """Add the parts that a run kept, and the nodes that they belong to where the circuit has not kept these."""
    kept = run.parts
    if kept is None:
        return
    readers = {reader.name: reader for reader in wire(run.circuit.plan).readers}
    for index, part in enumerate(kept.parts):
        add_place(graph, run, part.component.whole, part.position)
        add_place(graph, run, part.component, part.position)
        graph.add_edge(part.id, part.node, "part", relation="part")
        other = {name: getattr(part, name) for name in ("contribution", "renormalised")}
        measured = {"score": part.score} | {name: value for name, value in other.items() if value is not None}
        if not part.reader:
            source = clean_xml(find_source(run, part.component))
            graph.add_node(part.id, kind=PART_KINDS[part.component.kind], source=source, **measured)
            continue
        reader = readers[part.reader]
        add_place(graph, run, reader.component, part.position)
        end = f"{reader.component.name}@{part.position}"
        graph.add_edge(part.id, end, f"p{index}", relation="part edge", role=reader.role, **measured)


def add_place(graph: Any, run: Traced, component: Component, position: int) -> None:
    """Add a node for a component, or a part of one, at a position, unless it is there."""
    node = f"{component.name}@{position}"
    if node in graph:
        return
    name = name_part(component) if component.part >= 0 else name_component(component)
    graph.add_node(
        node,
        label=clean_xml(f"{name}, {show_position(position, run.tokens)}"),
        kind=PART_KINDS[component.kind] if component.part >= 0 else str(component.kind),
        layer=component.layer,
        head=component.head,
        block=component.block,
        position=position,
        token=clean_xml(find_token(run.tokens, position)),
    )


def write_graphml(run: Traced) -> bytes:
    """GraphML of a circuit; the same run gives the same bytes, whichever XML library is installed."""
    from networkx.readwrite.graphml import GraphMLWriter

    # networkx.write_graphml would take lxml when it is there, whose output differs.
    writer = GraphMLWriter(graph=build_graph(run), encoding="utf-8", prettyprint=True)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + str(writer).encode() + b"\n"
