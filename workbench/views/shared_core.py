"""Several circuits in one picture: the part that all of them share, and each one's own.

Edges of all circuits are joined by their ends and the reader's input. Where the prompts differ in length, positions
mean nothing in common, so nodes stand for all positions together; else, on request, they keep their position.
Thick lines and filled nodes are in every circuit, thin lines and hollow nodes in one alone.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from circuits.circuit import Circuit, Edge, Node, build_node
from circuits.graph import Kind, Plan, split_node
from probes.errors import UserError
from workbench.runs import EVERYWHERE, Run
from workbench.views.drawing import Drawing, Glyph, Line, View
from workbench.views.layout import lay_out
from workbench.views.style import INK
from workbench.views.tables import Columns
from workbench.views.text import format_score, shorten, show_line

Key = tuple[str, str, str]
SHARES = {
    "all": "in every circuit",
    "most": "in more than half",
    "some": "in two or more",
    "one": "in one alone",
}
WIDTHS = {"all": 5.0, "most": 3.2, "some": 2.0, "one": 1.1}
MOST_RUNS = 12


@dataclass(frozen=True, slots=True)
class Overlay:
    """Circuits laid over each other. `circuit` is their union, an edge's and a node's score the mean over those that
    have it; `owners` are the places (in `names`) of the circuits that have an edge, `holders` those that have a node.
    """

    names: tuple[str, ...]
    circuit: Circuit
    tokens: tuple[str, ...]
    owners: dict[Key, tuple[int, ...]]
    holders: dict[str, tuple[int, ...]]

    def name_share(self, owners: Sequence[int]) -> str:
        """Which of `SHARES` this many circuits are."""
        count, whole = len(owners), len(self.names)
        if count == whole:
            return "all"
        return "one" if count == 1 else "most" if 2 * count > whole else "some"

    def count_shares(self) -> dict[str, int]:
        """How many edges are in every circuit, in most, in some, in one."""
        counts = dict.fromkeys(SHARES, 0)
        for owners in self.owners.values():
            counts[self.name_share(owners)] += 1
        return counts

    @property
    def overlap(self) -> float:
        """Mean over pairs of circuits of the Jaccard index of their edges."""
        sets = [{key for key, owners in self.owners.items() if place in owners} for place in range(len(self.names))]
        return fmean(len(a & b) / len(a | b) if a | b else 1.0 for a, b in itertools.combinations(sets, 2))


def merge_plans(plans: Sequence[Plan]) -> Plan:
    """One plan that holds the nodes of all. Raises UserError for plans of different models."""
    first = plans[0]
    for plan in plans:
        if (plan.layers, plan.heads, plan.kv_heads) != (first.layers, first.heads, first.kv_heads):
            raise UserError("these runs are of models of different shapes: choose runs of one model")

    def join(name: str) -> tuple[int, ...]:
        return tuple(sorted({layer for plan in plans for layer in getattr(plan, name)}))

    lists = ("explicit_layers", "bank_layers", "expert_layers", "learned_layers")
    merged: dict[str, Any] = {name: join(name) for name in lists}
    merged |= {name: max(getattr(plan, name) for plan in plans) for name in ("blocks", "levels", "experts", "learned")}
    return replace(first, **merged)


def overlay(named: Sequence[tuple[str, Run]], by_position: bool = False) -> Overlay:
    """Circuits of several runs laid over each other.

    Raises UserError for fewer than two or too many, for different models, or scores that cannot be averaged.
    """
    if not 2 <= len(named) <= MOST_RUNS:
        raise UserError(f"{len(named)} runs are chosen: choose two to {MOST_RUNS}")
    runs = [run for _, run in named]
    first = runs[0].circuit
    for run in runs:
        if (run.circuit.unit, run.circuit.metric) != (first.unit, first.metric):
            raise UserError(
                f"these runs are scored in different ways ({first.metric} in {first.unit}, {run.circuit.metric} in "
                f"{run.circuit.unit}): choose runs of one metric and method"
            )
    if by_position and len({len(run.tokens) for run in runs}) > 1:
        raise UserError("these prompts differ in their number of tokens: positions cannot be compared")
    plan = merge_plans([run.circuit.plan for run in runs])
    edges: dict[Key, dict[int, float]] = defaultdict(dict)
    nodes: dict[str, dict[int, float]] = defaultdict(dict)
    for place, run in enumerate(runs):
        for edge in run.circuit.edges:
            key = (find_end(edge.writer, by_position), find_end(edge.reader, by_position), edge.role)
            edges[key][place] = edges[key].get(place, 0.0) + edge.score
        for node in run.circuit.nodes:
            name = find_end(node.id, by_position)
            nodes[name][place] = nodes[name].get(place, 0.0) + node.score
    joined = [Edge(*key, score=fmean(scores.values())) for key, scores in edges.items()]
    # What more circuits share is drawn first, so that a limit on the edges keeps the core.
    joined.sort(key=lambda edge: (-len(edges[edge.writer, edge.reader, edge.role]), -abs(edge.score), edge.writer))
    circuit = Circuit(
        plan=plan,
        nodes=tuple(build_node(name, fmean(scores.values()), plan) for name, scores in sorted(nodes.items())),
        edges=tuple(joined),
        moves=(),
        method=first.method,
        ablation=first.ablation,
        metric=first.metric,
        unit=first.unit,
        requested=len(joined),
        total=max(run.circuit.total for run in runs),
    )
    return Overlay(
        names=tuple(name for name, _ in named),
        circuit=circuit,
        tokens=tuple(join_tokens(runs)) if by_position else (EVERYWHERE,),
        owners={key: tuple(sorted(scores)) for key, scores in edges.items()},
        holders={name: tuple(sorted(scores)) for name, scores in nodes.items()},
    )


def find_end(node: str, by_position: bool) -> str:
    """Id of a node, without its own position where these are put together."""
    return node if by_position else f"{split_node(node)[0]}@0"


def join_tokens(runs: Sequence[Run]) -> list[str]:
    """Token at each position: itself where all runs agree, else an ellipsis."""
    columns = zip(*(run.tokens for run in runs), strict=True)
    return [column[0] if len(set(column)) == 1 else "…" for column in columns]


def choose_part(found: Overlay, shares: Sequence[str], only: int | None = None) -> Circuit:
    """Edges of these shares; with `only`, those of that circuit alone (its own part and what it shares)."""
    kept = [
        edge
        for edge in found.circuit.edges
        if found.name_share(owners := found.owners[edge.writer, edge.reader, edge.role]) in shares
        and (only is None or only in owners)
    ]
    used = {end for edge in kept for end in (edge.writer, edge.reader)}
    return replace(
        found.circuit, edges=tuple(kept), nodes=tuple(node for node in found.circuit.nodes if node.id in used)
    )


def draw_overlay(found: Overlay, circuit: Circuit, edges: int, selected: str) -> Drawing:
    """Drawing of the first `edges` edges of a part, by how many circuits share them."""
    drawing = lay_out(circuit, found.tokens, View(edges=edges, selected=selected, output="answer − foil"))
    return replace(
        drawing,
        lines=tuple(mark_line(line, found) for line in drawing.lines),
        glyphs=tuple(mark_glyph(glyph, found) for glyph in drawing.glyphs),
        caption=describe_overlay(found, drawing.shown),
    )


def mark_line(line: Line, found: Overlay) -> Line:
    """An edge as wide as its share, and with whose it is."""
    owners = found.owners.get((line.source, line.target, line.role))
    if owners is None:
        return line
    return replace(line, width=WIDTHS[found.name_share(owners)], title=f"{line.title}; {name_owners(found, owners)}")


def mark_glyph(glyph: Glyph, found: Overlay) -> Glyph:
    """A node filled where every circuit has it, hollow where one alone does."""
    holders = found.holders.get(glyph.id)
    if holders is None or glyph.kind is Kind.LOGITS:
        return glyph
    title, share = f"{glyph.title}; {name_owners(found, holders)}", found.name_share(holders)
    if share == "all":
        return replace(glyph, title=title)
    pale = {"most": "#c3cfdd", "some": "#e4e9f0", "one": "#ffffff"}[share]
    return replace(glyph, title=title, fill=pale, ink=INK)


def name_owners(found: Overlay, owners: Sequence[int]) -> str:
    """Which circuits something is in, in words."""
    if len(owners) == len(found.names):
        return f"in all {len(owners)}"
    names = ", ".join(shorten(show_line(found.names[place]), 40) for place in owners[:4])
    return f"in {len(owners)} of {len(found.names)}: {names}{' …' if len(owners) > 4 else ''}"


def describe_overlay(found: Overlay, shown: int) -> str:
    """Caption of the picture."""
    circuit, counts = found.circuit, found.count_shares()
    parts = ", ".join(f"{count:,} {SHARES[share]}" for share, count in counts.items())
    return (
        f"{shown:,} of {len(circuit.edges):,} edges of {len(found.names)} circuits laid over each other: {parts}. "
        "Thick lines and filled nodes are in every circuit, thin lines and hollow nodes in one alone; blue helps "
        "the answer, "
        f"orange-red hurts it, by the mean score ({circuit.method}, {circuit.ablation} ablation, {circuit.metric} in "
        f"{circuit.unit}). Each is one of many possible circuits."
    )


def tabulate_overlay(found: Overlay, circuit: Circuit) -> Columns:
    """One row an edge: how many circuits have it, and its mean score in those."""
    owners = [found.owners[edge.writer, edge.reader, edge.role] for edge in circuit.edges]
    return {
        "writer": [edge.writer for edge in circuit.edges],
        "reader": [edge.reader for edge in circuit.edges],
        "input": [edge.role for edge in circuit.edges],
        "circuits": [len(own) for own in owners],
        "share": [SHARES[found.name_share(own)] for own in owners],
        f"mean score ({circuit.unit})": [edge.score for edge in circuit.edges],
        "of": [", ".join(show_line(found.names[place]) for place in own) for own in owners],
    }


def tabulate_own(found: Overlay) -> Columns:
    """One row a circuit: its edges, those it shares with every other, and those that no other has."""
    rows = []
    for place in range(len(found.names)):
        own = [owners for owners in found.owners.values() if place in owners]
        rows.append((len(own), sum(len(o) == len(found.names) for o in own), sum(len(o) == 1 for o in own)))
    return {
        "run": [show_line(name) for name in found.names],
        "edges": [edges for edges, _, _ in rows],
        "shared with all": [core for _, core, _ in rows],
        "its own": [alone for _, _, alone in rows],
    }


def explain_node(found: Overlay, node: Node) -> str:
    """One sentence about a node: in which circuits, with what mean score."""
    return (
        f"{node.component.name} is {name_owners(found, found.holders[node.id])}; mean score "
        f"{format_score(node.score, found.circuit.unit)}."
    )
