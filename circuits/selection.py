"""From scores to a circuit: the strongest edges on a path to the logits, joined by attention between positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from circuits.circuit import Circuit, Edge, EdgeScores, Move, Node
from circuits.graph import Component, Kind, Plan, Wiring

# Attention below this probability is not drawn as a path between positions.
SMALLEST_ATTENTION = 0.01

# Kinds that bring something in: a circuit may start at them.
SOURCES = (Kind.EMBEDDING, Kind.EXPLICIT, Kind.BANK)

Mask = Bool[np.ndarray, "pos writer reader"]


def rank_edges(scores: EdgeScores) -> np.ndarray:
    """Flat indices of all edges with a score, largest absolute score first; ties in order of position, writer, reader.

    An edge of score 0 does nothing or was left out by the method (pruned, or measured on the logits alone).
    """
    size = np.where(scores.wiring.visible[None], np.abs(scores.edges), 0.0).ravel()
    order = np.argsort(-size, kind="stable")
    return order[: np.count_nonzero(size)]


def keep_strongest(scores: EdgeScores, count: int) -> Mask:
    """Mask of the `count` edges with the largest absolute scores."""
    return keep_ranked(rank_edges(scores)[:count], scores.edges.shape)


def keep_ranked(chosen: np.ndarray, shape: tuple[int, ...]) -> Mask:
    """Mask of edges given by their flat indices."""
    mask = np.zeros(shape, dtype=bool)
    mask.ravel()[chosen] = True
    return mask


def feed(wiring: Wiring) -> Bool[np.ndarray, "reader writer"]:
    """Which readers feed which writers' outputs: a head's query, its key-value head's k and v, or the input."""
    group = wiring.plan.group

    def belongs(reader: Component, writer: Component) -> bool:
        if reader.kind is Kind.KEY_VALUE:
            return writer.kind is Kind.HEAD and writer.layer == reader.layer and writer.head // group == reader.head
        return reader == writer

    return np.array([[belongs(r.component, w) for w in wiring.writers] for r in wiring.readers], dtype=bool)


def crosses(wiring: Wiring) -> Bool[np.ndarray, " reader"]:
    """Which readers pass on to later positions (keys and values)."""
    return np.array([reader.component.kind is Kind.KEY_VALUE for reader in wiring.readers], dtype=bool)


def drop_dead_ends(mask: Mask, wiring: Wiring, ends: Sequence[int]) -> Mask:
    """Edges that lie on some path from a source to the logits at one of the positions `ends`.

    Keys and values pass to their heads at the same and at later positions. Repeats until nothing more falls away.
    """
    feeds, across = feed(wiring), crosses(wiring)
    source = np.array([writer.kind in SOURCES for writer in wiring.writers])
    logits = len(wiring.readers) - 1
    mask = mask.copy()
    while True:
        fed = mask.any(axis=1)
        reached = (fed & ~across) @ feeds
        reached |= np.maximum.accumulate((fed & across) @ feeds, axis=0)
        alive = mask & (reached | source)[:, :, None]
        used = alive.any(axis=2)
        wanted = used @ feeds[~across].T
        needed = np.zeros(mask.shape[::2], dtype=bool)
        needed[:, ~across] = wanted
        later = np.maximum.accumulate(used[::-1], axis=0)[::-1]
        needed[:, across] = later @ feeds[across].T
        needed[:, logits] = False
        needed[list(ends), logits] = True
        alive &= needed[:, None, :]
        if alive.sum() == mask.sum():
            return mask
        mask = alive


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
    """A writer's own score; for a key-value head the sum over its incoming edges; 0 for the logits."""
    wiring = scores.wiring
    if component.kind is Kind.LOGITS:
        return 0.0
    if component.kind is Kind.KEY_VALUE:
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


def select_circuit(
    scores: EdgeScores,
    count: int,
    attention: Float[np.ndarray, "layer head query_pos key_pos"],
    ends: Sequence[int] | None = None,
) -> Circuit:
    """Circuit of the strongest edges that lie on a path to the logits, as many as there are within `count`.

    The longest prefix of the ranking of which at most `count` edges survive once dead ends are dropped: more edges
    never make a live one dead, so it is found by bisection. `ends` are the positions at which the logits are read,
    the last one where none are given.
    """
    ends = ends or (scores.edges.shape[0] - 1,)
    ranked = rank_edges(scores)
    low, high = 0, len(ranked)
    best = np.zeros(scores.edges.shape, dtype=bool)
    while low < high:
        middle = (low + high + 1) // 2
        mask = drop_dead_ends(keep_ranked(ranked[:middle], best.shape), scores.wiring, ends)
        if int(mask.sum()) <= count:
            low, best = middle, mask
        else:
            high = middle - 1
    return assemble(scores, best, count, attention)
