"""Paths of lines: residual-stream edges inside a column, attention across columns, memories to what reads them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt

from circuits.circuit import Circuit, Node
from circuits.graph import Kind, split_node
from workbench.views.describe import describe_edge, describe_move
from workbench.views.drawing import Glyph, Line, Text, View
from workbench.views.style import FAINT, HURTS, INK, MOVE, STYLES, pick_colour
from workbench.views.text import shorten, show_line

THINNEST, THICKEST = 0.7, 5.0
_SHIFT = {"q": 0.0, "k": -3.5, "v": 3.5, "in": 0.0}


def measure_crowds(circuit: Circuit) -> dict[int, float]:
    """How crowded each position is with edges, from 0 (few) to 2 (fifty and more); it stretches the column.

    In steps of five edges, so that one edge more or fewer seldom moves all columns to the right of it.
    """
    counts = Counter(split_node(edge.writer)[1] for edge in circuit.edges)
    return {position: min(count // 5 / 5, 2.0) for position, count in counts.items()}


def bend_edge(source: Glyph, target: Glyph, role: str, negative: bool, crowd: float) -> str:
    """An upward curve; one that passes other rows bows out, to the right when positive, to the left when negative."""
    x0, y0 = source.x, source.y - source.height / 2
    x1, y1 = target.x + _SHIFT.get(role, 0.0), target.y + target.height / 2
    rise = y0 - y1
    bow = 0.0 if rise < 45 else min(4 + rise * 0.09, 30.0) * (1 + crowd)
    bow = -bow if negative else bow
    pull = max(rise * 0.42, 6.0)
    return f"M{x0:.1f} {y0:.1f}C{x0 + bow:.1f} {y0 - pull:.1f} {x1 + bow:.1f} {y1 + pull:.1f} {x1:.1f} {y1:.1f}"


def route_edges(circuit: Circuit, glyphs: Mapping[str, Glyph], strongest: float) -> list[Line]:
    """One line an edge, the weakest first so that strong ones lie on top."""
    lines = []
    crowds = measure_crowds(circuit)
    for edge in reversed(circuit.edges):
        if edge.writer not in glyphs or edge.reader not in glyphs:
            continue
        width = THINNEST + (THICKEST - THINNEST) * sqrt(min(abs(edge.score) / strongest, 1.0))
        lines.append(
            Line(
                edge.writer,
                edge.reader,
                edge.role,
                bend_edge(
                    glyphs[edge.writer],
                    glyphs[edge.reader],
                    edge.role,
                    edge.score < 0,
                    crowds[split_node(edge.writer)[1]],
                ),
                pick_colour(edge.score),
                round(width, 2),
                describe_edge(edge, circuit.unit),
                HURTS if edge.score < 0 else "",
            )
        )
    return lines


def bend_move(source: Glyph, target: Glyph) -> str:
    """A curve that leaves a key-value head upwards and comes into the head from below."""
    x0, y0 = source.x, source.y - source.height / 2
    x1, y1 = target.x, target.y + target.height / 2
    rise = max(y0 - y1, 8.0)
    side = x1 - x0
    return (
        f"M{x0:.1f} {y0:.1f}C{x0 + 0.12 * side:.1f} {y0 - 0.9 * rise:.1f} "
        f"{x1 - 0.12 * side:.1f} {y1 + 0.9 * rise:.1f} {x1:.1f} {y1:.1f}"
    )


def route_moves(circuit: Circuit, glyphs: Mapping[str, Glyph]) -> list[Line]:
    """One dashed line for every position a head attends to through a key-value head of the circuit."""
    return [
        Line(
            move.source,
            move.target,
            "move",
            bend_move(glyphs[move.source], glyphs[move.target]),
            MOVE,
            round(0.7 + 1.7 * sqrt(min(max(move.weight, 0.0), 1.0)), 2),
            describe_move(move),
        )
        for move in circuit.moves
        if move.source in glyphs and move.target in glyphs
    ]


def spread(wanted: Sequence[float], low: float, high: float, gap: float) -> list[float]:
    """Heights close to the wanted ones, `gap` apart and inside the range as far as it holds them."""
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    placed = [0.0] * len(wanted)
    floor = low
    for index in order:
        placed[index] = max(wanted[index], floor)
        floor = placed[index] + gap
    ceiling = high
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def name_source(kind: Kind, block: int, view: View) -> str:
    """Name of a memory in its lane."""
    names = view.blocks if kind is Kind.EXPLICIT else view.levels
    if block < len(names) and names[block]:
        return names[block]
    return f"memory {block + 1}" if kind is Kind.EXPLICIT else f"level {block + 1}"


def bend_connector(lane: tuple[float, float], y: float, reader: Glyph, offset: float) -> str:
    """From a memory along the gutter under the reader's row, then up into the reader."""
    start, end = lane[0] + lane[1] - 46, lane[0] + lane[1]
    gutter = reader.y + 17.5 + offset
    x, foot = reader.x, reader.y + reader.height / 2
    return (
        f"M{start:.1f} {y:.1f}C{start + 30:.1f} {y:.1f} {end - 30:.1f} {gutter:.1f} {end:.1f} {gutter:.1f}"
        f"L{x - 6:.1f} {gutter:.1f}Q{x:.1f} {gutter:.1f} {x:.1f} {foot:.1f}"
    )


def connect_memories(
    circuit: Circuit, glyphs: Mapping[str, Glyph], view: View, lane: tuple[float, float], span: tuple[float, float]
) -> tuple[list[Glyph], list[Line], list[Text]]:
    """Memories in their lane (left edge and width), their connectors and names; `span` is from top to bottom."""
    readers: dict[tuple[Kind, int], list[Node]] = defaultdict(list)
    for node in circuit.nodes:
        if node.component.kind in (Kind.EXPLICIT, Kind.BANK, Kind.LEARNED) and node.id in glyphs:
            readers[node.component.kind, node.component.block].append(node)
    keys = sorted(readers, key=lambda key: (key[0] is not Kind.EXPLICIT, key[1]))
    wanted = [sum(glyphs[node.id].y for node in readers[key]) / len(readers[key]) for key in keys]
    heights = spread(wanted, span[0] + 20, span[1] - 20, 40.0)
    sources, lines, texts = [], [], []
    for place, (key, y) in enumerate(zip(keys, heights, strict=True)):
        kind, block = key
        name = name_source(kind, block, view)
        source = draw_source(kind, block, name, lane[0] + lane[1] - 62, y)
        sources.append(source)
        texts.append(Text(lane[0] + lane[1] - 84, y, shorten(show_line(name), 20), 10.5, INK, "end"))
        lines += [
            Line(
                source.id,
                node.id,
                "memory",
                bend_connector(lane, y, glyphs[node.id], 2.5 * (place % 3)),
                STYLES[kind].fill,
                1.2,
                f"{show_line(name)} ⇢ {node.id}",
            )
            for node in sorted(readers[key], key=lambda node: node.id)
        ]
    if sources:
        texts.append(Text(lane[0] + lane[1] - 62, span[0] - 12, "memories", 11, FAINT))
    return sources, lines, texts


def draw_source(kind: Kind, block: int, name: str, x: float, y: float) -> Glyph:
    """A memory in its lane; its id, `memory:…`, is that of no node."""
    style = STYLES[kind]
    letter = "b" if kind is Kind.EXPLICIT else "l"
    title = f"Explicit memory {block + 1}: {name}" if kind is Kind.EXPLICIT else f"Memory bank, {name}"
    return Glyph(
        f"memory:{letter}{block}",
        kind,
        style.shape,
        x,
        round(y, 2),
        style.width,
        style.height,
        f"{letter}{block}",
        show_line(title),
        style.fill,
        style.ink,
        style.fill,
        0.0,
    )
