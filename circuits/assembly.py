"""From a mask to a circuit at rest: edges strongest first, the nodes they join, attention between positions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit, Edge, EdgeScores, Move, Node
from circuits.connectivity import Mask
from circuits.graph import Component, Kind, Plan

# Attention below this probability is not drawn as a path between positions.
SMALLEST_ATTENTION = 0.01


def list_moves(
    nodes: dict[str, Component], plan: Plan, attention: Float[np.ndarray, "layer head query_pos key_pos"]
) -> tuple[Move, ...]:
    """Attention arcs from the circuit's key-value heads to its heads, strongest first."""
    moves = []
    sources = [(node, c) for node, c in nodes.items() if c.kind is Kind.KEY_VALUE]
    heads = [(node, c) for node, c in nodes.items() if c.kind is Kind.HEAD]
    for source, component in sources:
        start = int(source.rpartition("@")[2])
        for target, head in heads:
            stop = int(target.rpartition("@")[2])
            if head.layer != component.layer or head.head // plan.group != component.head or stop < start:
                continue
            weight = float(attention[head.layer, head.head, stop, start])
            if weight >= SMALLEST_ATTENTION:
                moves.append(Move(source, target, round(weight, 6)))
    return tuple(sorted(moves, key=lambda move: (-move.weight, move.source, move.target)))


def score_node(scores: EdgeScores, component: Component, position: int) -> float:
    """A writer's own score; for what only reads (a key-value head, a mixture) the sum over its incoming edges.

    0 for the logits.
    """
    wiring = scores.wiring
    if component.kind is Kind.LOGITS:
        return 0.0
    if component not in wiring.writers:
        readers = [i for i, reader in enumerate(wiring.readers) if reader.component == component]
        return float(scores.edges[position][:, readers].sum())
    return float(scores.nodes[position, wiring.find_writer(component.name)])


def assemble(
    scores: EdgeScores, mask: Mask, requested: int, attention: Float[np.ndarray, "layer head query_pos key_pos"]
) -> Circuit:
    """Circuit of the edges in `mask`, strongest first, with its nodes and attention arcs."""
    wiring = scores.wiring
    edges: list[Edge] = []
    components: dict[str, Component] = {}
    for position, w, r in zip(*np.nonzero(mask), strict=True):
        writer, reader = wiring.writers[w], wiring.readers[r]
        ends = f"{writer.name}@{position}", f"{reader.component.name}@{position}"
        components |= {ends[0]: writer, ends[1]: reader.component}
        edges.append(Edge(*ends, role=reader.role, score=float(scores.edges[position, w, r])))
    edges.sort(key=lambda edge: (-abs(edge.score), edge.writer, edge.reader, edge.role))
    nodes = [
        Node(component, position := int(node.rpartition("@")[2]), score_node(scores, component, position))
        for node, component in components.items()
    ]
    nodes.sort(key=lambda node: (node.component.layer, node.component.name, node.position))
    return Circuit(
        plan=wiring.plan,
        nodes=tuple(nodes),
        edges=tuple(edges),
        moves=list_moves(components, wiring.plan, attention),
        method=scores.method,
        ablation=scores.ablation,
        metric=scores.metric,
        unit=scores.unit,
        requested=requested,
        total=wiring.edges * mask.shape[0],
    )
