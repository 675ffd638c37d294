"""A circuit at rest: selected edges with scores, the nodes they join, and attention between positions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from circuits.display import show_circuit
from circuits.graph import Component, Plan, Wiring, parse_component, split_node

# Unit of each metric, and so of every score under it.
UNITS = {"logit-diff": "logits", "log-prob": "nats", "prob": "probability", "kl": "nats"}


@dataclass(frozen=True, slots=True)
class EdgeScores:
    """Scores of every edge at every position, and of every writer.

    `edges[pos, writer, reader]` is the estimated (or exact) drop of the metric when that one edge is ablated, in
    `unit`; positive helps the answer. Edges that do not exist score 0. `nodes[pos, writer]` is the same for ablating
    the writer's whole output at that position. `method`, `ablation` and `metric` name how it was measured.
    """

    wiring: Wiring
    edges: Float[np.ndarray, "pos writer reader"]
    nodes: Float[np.ndarray, "pos writer"]
    method: str
    ablation: str
    metric: str
    unit: str


@dataclass(frozen=True, slots=True)
class Node:
    """One component at one position.

    `score` is the drop of the metric when its output is ablated there; for a key-value head, which writes nothing
    itself, the sum over its incoming edges of the whole graph; for the logits 0.
    """

    component: Component
    position: int
    score: float

    @property
    def id(self) -> str:
        """Stable id, position included: `a3.h1@7`."""
        return f"{self.component.name}@{self.position}"


@dataclass(frozen=True, slots=True)
class Edge:
    """One selected edge: `writer` and `reader` are node ids, `role` the reader's input, `score` signed, in the unit."""

    writer: str
    reader: str
    role: str
    score: float


@dataclass(frozen=True, slots=True)
class Move:
    """Attention inside a head, from a key-value head to a head at a later position; `weight` is a probability."""

    source: str
    target: str
    weight: float


@dataclass(frozen=True, slots=True)
class Circuit:
    """A selection of edges under one method, ablation and metric; one of many possible, never *the* circuit.

    `edges` come strongest first. `requested` is the number asked for; every edge lies on a path to the logits.
    `total` is the number of edges of the whole graph (all positions).
    """

    plan: Plan
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    moves: tuple[Move, ...]
    method: str
    ablation: str
    metric: str
    unit: str
    requested: int
    total: int

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return show_circuit(self)

    def find_node(self, node: str) -> Node | None:
        """The node of an id, or None when the circuit has none."""
        return next((candidate for candidate in self.nodes if candidate.id == node), None)

    def list_edges_of(self, node: str) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
        """Edges into and out of a node."""
        return (
            tuple(edge for edge in self.edges if edge.reader == node),
            tuple(edge for edge in self.edges if edge.writer == node),
        )

    def prune(self, edges: int) -> Circuit:
        """The `edges` strongest edges of this circuit and what they join (dead ends may remain)."""
        kept = self.edges[:edges]
        used = {end for edge in kept for end in (edge.writer, edge.reader)}
        moves = tuple(move for move in self.moves if move.source in used and move.target in used)
        return replace(self, edges=kept, nodes=tuple(n for n in self.nodes if n.id in used), moves=moves)


def mask_edges(circuit: Circuit, wiring: Wiring, positions: int) -> Bool[np.ndarray, "pos writer reader"]:
    """Which edges of the whole graph the circuit keeps, as a mask."""
    mask = np.zeros((positions, len(wiring.writers), len(wiring.readers)), dtype=bool)
    writers = {writer.name: index for index, writer in enumerate(wiring.writers)}
    readers = {(reader.component.name, reader.role): index for index, reader in enumerate(wiring.readers)}
    for edge in circuit.edges:
        writer, position = split_node(edge.writer)
        reader, _ = split_node(edge.reader)
        mask[position, writers[writer], readers[reader, edge.role]] = True
    return mask


def build_node(node: str, score: float, plan: Plan) -> Node:
    """Node from an id. Raises UserError when the id is malformed."""
    name, position = split_node(node)
    return Node(parse_component(name, plan.layers), position, score)
