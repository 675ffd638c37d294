"""Sentences about nodes, edges and circuits, the same on screen, in figures and for screen readers."""

from __future__ import annotations

from collections.abc import Sequence

from circuits.circuit import UNITS, Circuit, Edge, Move, Node
from circuits.graph import Component, Kind
from circuits.parts import KeptPart
from workbench.settings import ABLATIONS, METHODS, METRICS
from workbench.views.text import format_score, format_share, shorten, show_token

# A token of any length is named by its beginning: it stands in every description of its position.
LONGEST_TOKEN = 80

ROLES = {"q": "query", "k": "key", "v": "value", "in": "input"}


def name_component(component: Component) -> str:
    """A component in words: `Head 1 of layer 3`.

    Layers and heads count from 0 as in its id, memories and levels from 1 as in ledgers and banks.
    """
    layer = f"of layer {component.layer}"
    match component.kind:
        case Kind.EMBEDDING:
            return "Token embedding"
        case Kind.HEAD:
            return f"Head {component.head} {layer}"
        case Kind.KEY_VALUE:
            return f"Key-value head {component.head} {layer}"
        case Kind.EXPLICIT:
            return f"Head {component.head} {layer} reading explicit memory {component.block + 1}"
        case Kind.MLP:
            return f"MLP {layer}" if component.block < 0 else f"Expert {component.block} {layer}"
        case Kind.BANK:
            return f"Memory-bank block of level {component.block + 1} at layer {component.layer}"
        case Kind.LEARNED:
            return f"Learned key-values of bank level {component.block + 1} at layer {component.layer}"
        case Kind.LOGITS:
            return "Output logits"


def name_part(component: Component) -> str:
    """A part in words: `FFN unit 17 of layer 3`, `Slot 4 of explicit memory 1, as read by head 1 of layer 3`."""
    match component.kind:
        case Kind.BANK:
            return f"Unit {component.part} of the bank block of level {component.block + 1} at layer {component.layer}"
        case Kind.EXPLICIT:
            reader = f"head {component.head} of layer {component.layer}"
            return f"Slot {component.part} of explicit memory {component.block + 1}, as read by {reader}"
        case Kind.HEAD:
            return f"What head {component.head} of layer {component.layer} brings from position {component.part}"
        case _:
            return f"FFN unit {component.part} of layer {component.layer}"


def show_position(position: int, tokens: Sequence[str]) -> str:
    """A position with its token: `position 7 ·Paris`."""
    token = f" {shorten(show_token(tokens[position]), LONGEST_TOKEN)}" if position < len(tokens) else ""
    return f"position {position}{token}"


def describe_node(node: Node, tokens: Sequence[str], unit: str) -> str:
    """One line about a node: what, where, score with its unit."""
    score = "" if node.component.kind is Kind.LOGITS else f", score {format_score(node.score, unit)}"
    return f"{name_component(node.component)}, {show_position(node.position, tokens)}{score}"


def describe_part(part: KeptPart, tokens: Sequence[str], source: str, unit: str) -> str:
    """One line about a kept part: what, the token it brings, where, for which reader, score with its unit."""
    brings = f" {show_token(source)}" if source else ""
    into = f" for {part.reader} alone" if part.reader else ""
    place = show_position(part.position, tokens)
    return f"{name_part(part.component)}{brings}, at {place}{into}, score {format_score(part.score, unit)}"


def describe_edge(edge: Edge, unit: str) -> str:
    """One line about an edge: ends, the reader's input, score with its unit."""
    return f"{edge.writer} → {edge.reader} ({ROLES.get(edge.role, edge.role)}): {format_score(edge.score, unit)}"


def describe_move(move: Move) -> str:
    """One line about attention from a source position to a head."""
    return f"{move.source} ⇢ {move.target}: attention {format_share(move.weight)}"


def describe_circuit(circuit: Circuit, shown: int) -> str:
    """Caption of a circuit's picture: edges, method, ablation, metric with unit, and that it is one of many."""
    method = METHODS[circuit.method].label if circuit.method in METHODS else circuit.method
    ablation = ABLATIONS[circuit.ablation].label if circuit.ablation in ABLATIONS else circuit.ablation
    metric = METRICS[circuit.metric].label if circuit.metric in METRICS else circuit.metric
    unit = UNITS.get(circuit.metric, circuit.unit)
    scored = "" if unit == circuit.unit else f"Scores are each a {circuit.unit} of being kept. "
    return (
        f"{shown:,} strongest of {len(circuit.edges):,} edges of this circuit ({circuit.total:,} in the whole graph). "
        f"Method {method}, {ablation.lower()} ablation, metric {metric[:1].lower() + metric[1:]} in {unit}. {scored}"
        "Line width grows with the square root of the score; blue helps the answer, orange-red hurts it; "
        "grey dashes are attention. One of many possible circuits."
    )
