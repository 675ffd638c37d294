"""From a circuit to what of it is drawn: strongest edges and pinned nodes, less what is hidden, supernodes folded.

A supernode stands in place of its members that are shown: edges between them go, edges from or to them become its own,
those with the same other end are added up. Its score is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from circuits.circuit import Circuit, Edge, Move, Node
from workbench.views.curation import Curation, Group
from workbench.views.drawing import Glyph, Line
from workbench.views.style import INK, pick_colour
from workbench.views.text import format_score, plural, shorten, show_line

LONGEST_LABEL = 28


@dataclass(frozen=True, slots=True)
class Arranged:
    """What is drawn: a circuit whose supernodes go by the id of their strongest member.

    `groups` gives the supernode behind such an id, `counts` how many of its members are shown, `labels` what is written
    on nodes that a reader named, `sums` how many edges stand behind one of a supernode, `edges` how many are shown.
    """

    circuit: Circuit
    edges: int
    groups: Mapping[str, Group] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    sums: Mapping[tuple[str, str], int] = field(default_factory=dict)


def arrange(circuit: Circuit, edges: int | None, curation: Curation) -> Arranged:
    """What is drawn of a circuit: its strongest `edges` (None: all) as a reader arranged them."""
    shown = circuit if edges is None else circuit.prune(edges)
    if curation == Curation():
        return Arranged(shown, len(shown.edges))
    shown = keep_nodes(circuit, shown, curation)
    labels = {one: shorten(show_line(name), LONGEST_LABEL) for one, name in curation.names}
    return fold(shown, curation.groups, labels)


def keep_nodes(circuit: Circuit, shown: Circuit, curation: Curation) -> Circuit:
    """The edges shown, and the pinned nodes whatever their edges, less what is hidden."""
    pinned = set(curation.spread(curation.pinned))
    wanted = {node.id for node in shown.nodes} | pinned
    if curation.alone:
        wanted &= pinned | {member for group in curation.groups for member in group.members}
    wanted -= set(curation.hidden)
    return replace(
        shown,
        nodes=tuple(node for node in circuit.nodes if node.id in wanted),
        edges=tuple(edge for edge in shown.edges if edge.writer in wanted and edge.reader in wanted),
        moves=tuple(move for move in circuit.moves if move.source in wanted and move.target in wanted),
    )


def fold(shown: Circuit, groups: Sequence[Group], labels: Mapping[str, str]) -> Arranged:
    """The circuit with each supernode's members in one node."""
    nodes = {node.id: node for node in shown.nodes}
    stands: dict[str, str] = {}
    behind: dict[str, Group] = {}
    for group in groups:
        present = [nodes[member] for member in group.members if member in nodes]
        if present:
            anchor = max(present, key=lambda node: (abs(node.score), node.id))
            stands |= dict.fromkeys((node.id for node in present), anchor.id)
            behind[anchor.id] = group
            nodes[anchor.id] = replace(anchor, score=sum(node.score for node in present))
    counts = {anchor: sum(place == anchor for place in stands.values()) for anchor in behind}
    edges, sums = merge_edges(shown.edges, stands)
    boxed = {
        anchor: f"{shorten(show_line(group.name), LONGEST_LABEL)} ({counts[anchor]})"
        for anchor, group in behind.items()
    }
    folded = replace(
        shown,
        nodes=tuple(list_folded(shown.nodes, nodes, stands)),
        edges=edges,
        moves=merge_moves(shown.moves, stands),
    )
    return Arranged(folded, len(shown.edges), behind, counts, {**labels, **boxed}, sums)


def list_folded(nodes: Sequence[Node], by_id: Mapping[str, Node], stands: Mapping[str, str]) -> Iterator[Node]:
    """Nodes in their order, of a supernode's members the one that it goes by."""
    for node in nodes:
        if stands.get(node.id, node.id) == node.id:
            yield by_id[node.id]


def merge_edges(
    edges: Sequence[Edge], stands: Mapping[str, str]
) -> tuple[tuple[Edge, ...], dict[tuple[str, str], int]]:
    """Edges between what is drawn, strongest first, and how many stand behind each that ends in a supernode."""
    merged: dict[tuple[str, str, str], Edge] = {}
    sums: dict[tuple[str, str], int] = {}
    for edge in edges:
        writer, reader = stands.get(edge.writer, edge.writer), stands.get(edge.reader, edge.reader)
        if writer == reader and edge.writer in stands:
            continue
        joined = edge.writer in stands or edge.reader in stands
        key = (writer, reader, "in" if joined else edge.role)
        before = merged[key].score if key in merged else 0.0
        merged[key] = Edge(writer, reader, key[2], before + edge.score)
        if joined:
            sums[writer, reader] = sums.get((writer, reader), 0) + 1
    return tuple(sorted(merged.values(), key=lambda edge: -abs(edge.score))), sums


def merge_moves(moves: Sequence[Move], stands: Mapping[str, str]) -> tuple[Move, ...]:
    """Moves between what is drawn; of several between the same two the one of most attention."""
    kept: dict[tuple[str, str], Move] = {}
    for move in moves:
        ends = stands.get(move.source, move.source), stands.get(move.target, move.target)
        if ends[0] != ends[1] and (ends not in kept or kept[ends].weight < move.weight):
            kept[ends] = Move(*ends, move.weight)
    return tuple(kept.values())


def finish_glyphs(glyphs: Sequence[Glyph], arranged: Arranged, curation: Curation, unit: str) -> list[Glyph]:
    """Glyphs under their own ids: supernodes as boxes, pins, the names and numbered notes of a reader."""
    numbers = {one: str(place) for place, (one, _) in enumerate(curation.notes, start=1)}
    finished = []
    for glyph in glyphs:
        group = arranged.groups.get(glyph.id)
        if group is not None:
            glyph = box_group(glyph, group, arranged.counts[glyph.id], unit)
        elif name := curation.name_of(glyph.id):
            glyph = replace(glyph, title=f"{show_line(name)}: {glyph.title}")
        if note := curation.note_of(glyph.id):
            glyph = replace(glyph, title=f"{glyph.title}. Note: {show_line(note)}", mark=numbers[glyph.id])
        finished.append(replace(glyph, pinned=glyph.id in curation.pinned))
    return finished


def box_group(glyph: Glyph, group: Group, count: int, unit: str) -> Glyph:
    """The box of a supernode in place of the member that it goes by."""
    title = (
        f"Supernode {show_line(group.name)}, {plural(count, 'node')}, sum of scores {format_score(glyph.score, unit)}"
    )
    return replace(
        glyph,
        id=group.id,
        shape="box",
        height=22.0,
        title=title,
        fill="#ffffff",
        ink=INK,
        stroke=pick_colour(glyph.score),
        members=count,
    )


def finish_lines(lines: Sequence[Line], arranged: Arranged, unit: str) -> Iterator[Line]:
    """Lines under the ids of the supernodes that they join; a sum of edges says so."""
    names = {anchor: group.id for anchor, group in arranged.groups.items()}
    scores = {(edge.writer, edge.reader): edge.score for edge in arranged.circuit.edges}
    for line in lines:
        ends = line.source, line.target
        title = line.title
        if ends in arranged.sums and not line.dashed:
            one, two = (show_line(arranged.groups[end].name) if end in names else end for end in ends)
            title = f"{one} → {two}: {format_score(scores[ends], unit)}, sum of {plural(arranged.sums[ends], 'edge')}"
        yield replace(line, source=names.get(ends[0], ends[0]), target=names.get(ends[1], ends[1]), title=title)


def list_notes(glyphs: Sequence[Glyph], curation: Curation) -> Iterator[str]:
    """Notes on what is drawn, each with the number that stands at its node."""
    drawn = {glyph.id: glyph.mark for glyph in glyphs if glyph.mark}
    for one, note in curation.notes:
        if one in drawn:
            name = curation.name_of(one)
            label = name if one.startswith("group:") else f"{one} ({name})" if name else one
            yield show_line(f"{drawn[one]}. {label}: {note}")


def find_rank(circuit: Circuit) -> dict[str, int]:
    """How many of the strongest edges it takes until each node is drawn."""
    ranks: dict[str, int] = {}
    for place, edge in enumerate(circuit.edges, start=1):
        ranks.setdefault(edge.writer, place)
        ranks.setdefault(edge.reader, place)
    return ranks


def drop_rings(circuit: Circuit, edges: int, curation: Curation) -> Curation:
    """The curation without the pins that change nothing in a drawing of so many edges but the ring around a node."""
    if curation.alone or not curation.pinned:
        return curation
    ranks = find_rank(circuit)
    beyond = (one for one in curation.pinned if any(ranks.get(n, edges + 1) > edges for n in curation.spread((one,))))
    return replace(curation, pinned=tuple(beyond))
