"""From a circuit to exact coordinates: layers upwards, token positions across, memories in a lane of their own.

1. Rows. A layer has, from below, its key-value heads, its heads and memory reads, its MLP and bank blocks; rows
   without nodes shrink, so that a deep model with a small circuit stays readable.
2. Columns. One a token, as wide as its fullest cell or its label.
3. Nodes sit side by side in their cell, in the order of their ids; lines are routed around them (`routing`).
4. Memories (explicit blocks, bank levels) are drawn once each, left of the tokens, joined to what reads them.
5. A supernode stands where its strongest member stands, as wide as its name (`folding`).

Pure and deterministic: the same circuit, tokens and view give the same drawing, bit for bit.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from circuits.circuit import Circuit, Node
from circuits.graph import Kind
from workbench.views.describe import describe_circuit, describe_node
from workbench.views.drawing import Band, Drawing, Glyph, Text, View
from workbench.views.folding import arrange, finish_glyphs, finish_lines, list_notes
from workbench.views.routing import connect_memories, measure_crowds, route_edges, route_moves
from workbench.views.style import BAND, FAINT, INK, STYLES, pick_colour
from workbench.views.text import measure_width, shorten, show_line, show_token

__all__ = ["Drawing", "View", "lay_out"]

MARGIN = 14.0
LAYER_LABEL = 56.0
MEMORY_LANE = 184.0
GAP = 9.0
PADDING = 13.0
SPREAD = 24.0
ROW = 42.0
FLAT_ROW = 9.0
LABEL_SIZE = 12.5
LONGEST_LABEL = 22
SLANT_FROM = 1500.0

_ORDER = {kind: place for place, kind in enumerate(Kind)}
_ROW_OF = dict.fromkeys((Kind.HEAD, Kind.EXPLICIT, Kind.LEARNED), "attention") | {
    Kind.KEY_VALUE: "kv",
    Kind.MLP: "mlp",
    Kind.BANK: "mlp",
}

Row = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Column:
    """One token position: left edge, width, space between its nodes."""

    x: float
    width: float
    gap: float

    @property
    def middle(self) -> float:
        """Where its label and its single nodes stand."""
        return self.x + self.width / 2


def find_row(node: Node) -> Row:
    """Row of a node: name and layer."""
    kind = node.component.kind
    if kind is Kind.EMBEDDING:
        return ("tokens", -1)
    return ("output", node.component.layer) if kind is Kind.LOGITS else (_ROW_OF[kind], node.component.layer)


def label_node(node: Node, tokens: Sequence[str], view: View) -> str:
    """The few characters drawn on a node, or the name that a reader gave it."""
    component = node.component
    if (own := view.labels.get(node.id)) is not None:
        return own
    match component.kind:
        case Kind.EMBEDDING:
            return label_token(tokens, node.position)
        case Kind.LOGITS:
            return shorten(show_line(view.output), 30)
        case Kind.MLP:
            return "m" if component.block < 0 else f"e{component.block}"
        case Kind.BANK | Kind.LEARNED:
            return f"l{component.block}"
        case Kind.KEY_VALUE:
            return f"k{component.head}"
        case _:
            return f"h{component.head}"


def label_token(tokens: Sequence[str], position: int) -> str:
    """Label of a token's column."""
    return shorten(show_token(tokens[position]), LONGEST_LABEL) if position < len(tokens) else "?"


def measure_node(node: Node, label: str, slanted: bool, view: View) -> float:
    """Width of a node's shape in pixels."""
    style = STYLES[node.component.kind]
    if node.id in view.boxes:
        return measure_width(label, LABEL_SIZE) + 18
    if node.id in view.labels and style.shape != "box":
        room = 1.6 if style.shape == "diamond" else 1.2
        return max(style.width, measure_width(label, 10.5) * room + 8)
    if style.shape != "box" or (slanted and node.component.kind is Kind.EMBEDDING and node.id not in view.labels):
        return style.width
    return max(style.width, measure_width(label, LABEL_SIZE) + 14)


def fill_cells(circuit: Circuit) -> dict[tuple[Row, int], list[Node]]:
    """Nodes by row and position, each cell in drawing order."""
    cells: dict[tuple[Row, int], list[Node]] = defaultdict(list)
    for node in circuit.nodes:
        cells[find_row(node), node.position].append(node)
    for nodes in cells.values():
        nodes.sort(key=lambda n: (_ORDER[n.component.kind], n.component.head, n.component.block))
    return cells


def place_rows(circuit: Circuit, cells: Iterable[tuple[Row, int]]) -> tuple[dict[Row, float], list[tuple[int, float]]]:
    """Height of every row's centre above the token row, and of every layer's lower edge (the last is the top)."""
    used = {row for row, _ in cells}
    heights: dict[Row, float] = {("tokens", -1): 0.0}
    edges: list[tuple[int, float]] = []
    top = 26.0
    for layer in range(circuit.plan.layers):
        edges.append((layer, top))
        if ("kv", layer) in used:
            heights["kv", layer] = top + ROW / 2
            top += ROW
        for name in ("attention", "mlp"):
            size = ROW if (name, layer) in used else FLAT_ROW
            heights[name, layer] = top + size / 2
            top += size
    edges.append((circuit.plan.layers, top))
    heights["output", circuit.plan.layers] = top + 26.0
    return heights, edges


def place_columns(
    circuit: Circuit,
    cells: dict[tuple[Row, int], list[Node]],
    tokens: Sequence[str],
    left: float,
    view: View,
    slanted: bool,
) -> list[Column]:
    """All token columns; those crowded with edges are stretched, so that their lines spread."""
    crowds = measure_crowds(circuit)
    gaps = [GAP * (1 + 0.9 * crowds.get(position, 0.0)) for position in range(len(tokens))]
    widths = [20.0 if slanted else measure_width(label_token(tokens, p), LABEL_SIZE) + 16 for p in range(len(tokens))]
    for (_, position), nodes in cells.items():
        if position < len(widths):
            inner = sum(measure_node(node, label_node(node, tokens, view), slanted, view) for node in nodes)
            inner += gaps[position] * (len(nodes) - 1)
            padding = PADDING + SPREAD * crowds.get(position, 0.0)
            widths[position] = max(widths[position], inner + 2 * padding)
    columns = []
    for width, gap in zip(widths, gaps, strict=True):
        columns.append(Column(left, width, gap))
        left += width
    return columns


def draw_glyph(
    node: Node, x: float, y: float, width: float, tokens: Sequence[str], view: View, unit: str, slanted: bool
) -> Glyph:
    """A node's shape at its place."""
    style = STYLES[node.component.kind]
    bare = slanted and node.component.kind is Kind.EMBEDDING and node.id not in view.labels
    label = "" if bare else label_node(node, tokens, view)
    return Glyph(
        id=node.id,
        kind=node.component.kind,
        shape=style.shape,
        x=round(x, 2),
        y=round(y, 2),
        width=round(width, 2),
        height=style.height,
        label=label,
        title=describe_node(node, tokens, unit),
        fill=style.fill,
        ink=style.ink,
        stroke=INK if node.component.kind in (Kind.EMBEDDING, Kind.LOGITS) else pick_colour(node.score),
        score=node.score,
    )


def place_nodes(
    circuit: Circuit,
    cells: dict[tuple[Row, int], list[Node]],
    columns: list[Column],
    rows: dict[Row, float],
    tokens: Sequence[str],
    view: View,
    slanted: bool,
) -> list[Glyph]:
    """Every node of the circuit, side by side in the middle of its cell."""
    glyphs = []
    for (row, position), nodes in sorted(cells.items(), key=lambda item: (-rows[item[0][0]], item[0][1])):
        if position >= len(columns):
            continue
        widths = [measure_node(node, label_node(node, tokens, view), slanted, view) for node in nodes]
        gap = columns[position].gap
        x = columns[position].middle - (sum(widths) + gap * (len(widths) - 1)) / 2
        for node, width in zip(nodes, widths, strict=True):
            glyphs.append(draw_glyph(node, x + width / 2, rows[row], width, tokens, view, circuit.unit, slanted))
            x += width + gap
    return glyphs


def label_tokens(columns: list[Column], tokens: Sequence[str], y: float, drawn: set[int], slanted: bool) -> list[Text]:
    """Token labels (those not already on an embedding node) and the position numbers under them."""
    texts = []
    for position, column in enumerate(columns):
        if slanted:
            x, label = column.middle + 3, label_token(tokens, position)
            texts.append(Text(x, y + 18, label, 11, INK if position in drawn else FAINT, "end", -55))
            continue
        if position not in drawn:
            texts.append(Text(column.middle, y, label_token(tokens, position), LABEL_SIZE, FAINT))
        texts.append(Text(column.middle, y + 23, str(position), 10, FAINT))
    return texts


def lay_out(circuit: Circuit, tokens: Sequence[str], view: View) -> Drawing:
    """The drawing of a circuit's strongest edges; `tokens` label the columns."""
    arranged = arrange(circuit, view.edges, view.curation)
    shown, view = arranged.circuit, replace(view, labels=arranged.labels, boxes=frozenset(arranged.groups))
    cells = fill_cells(shown)
    remembers = any(node.component.kind in (Kind.EXPLICIT, Kind.BANK, Kind.LEARNED) for node in shown.nodes)
    left = MARGIN + LAYER_LABEL + (MEMORY_LANE if remembers else 0.0)
    slanted = place_columns(shown, cells, tokens, left, view, False)[-1].x > SLANT_FROM if tokens else False
    columns = place_columns(shown, cells, tokens, left, view, slanted)
    heights, edges = place_rows(circuit, cells)
    base = heights["output", circuit.plan.layers] + MARGIN + 14
    rows = {row: base - height for row, height in heights.items()}
    layers = [(layer, base - height) for layer, height in edges]
    glyphs = place_nodes(shown, cells, columns, rows, tokens, view, slanted)
    by_id = {glyph.id: glyph for glyph in glyphs}
    strongest = max((abs(edge.score) for edge in circuit.edges), default=1.0) or 1.0
    lines = [*route_moves(shown, by_id), *route_edges(shown, by_id, strongest)]
    lane = (MARGIN + LAYER_LABEL, MEMORY_LANE)
    sources, connectors, names = connect_memories(shown, by_id, view, lane, (layers[-1][1], layers[0][1]))
    finished = finish_glyphs(glyphs, arranged, view.curation, circuit.unit)
    right = (columns[-1].x + columns[-1].width if columns else left) + MARGIN
    embedded = {node.position for node in shown.nodes if node.component.kind is Kind.EMBEDDING}
    longest = max((measure_width(label_token(tokens, p), 11) for p in range(len(tokens))), default=0.0)
    owner = view.curation.find_owner(view.selected)
    selected = view.selected if owner is None else owner.id
    return Drawing(
        width=round(right, 2),
        height=round(base + (18 + longest * 0.82 + 12 if slanted else 38.0), 2),
        bands=tuple(draw_bands(layers, right)),
        lines=tuple(finish_lines([*connectors, *lines], arranged, circuit.unit)),
        glyphs=(*sources, *finished),
        texts=(*label_layers(layers), *names, *label_tokens(columns, tokens, base, embedded, slanted)),
        selected=selected if any(glyph.id == selected for glyph in finished) else "",
        shown=arranged.edges,
        kept=len(circuit.edges),
        total=circuit.total,
        caption=describe_circuit(circuit, arranged.edges),
        notes=tuple(list_notes(finished, view.curation)),
    )


def draw_bands(layers: list[tuple[int, float]], right: float) -> list[Band]:
    """A background for every second layer."""
    return [
        Band(MARGIN, above, round(right - 2 * MARGIN, 2), below - above, BAND)
        for (layer, below), (_, above) in itertools.pairwise(layers)
        if layer % 2 == 0
    ]


def label_layers(layers: list[tuple[int, float]]) -> list[Text]:
    """The layer's number beside its band; flat layers stay unnamed."""
    return [
        Text(MARGIN + 8, (below + above) / 2, f"layer {layer}", 11, FAINT, "start")
        for (layer, below), (_, above) in itertools.pairwise(layers)
        if below - above > 2 * FLAT_ROW + 1
    ]
