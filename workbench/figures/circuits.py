"""The picture of a circuit, and of what two circuits do not share, for paper: the same layout as on screen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from circuits.circuit import Circuit, Edge, mask_edges
from circuits.graph import split_node
from probes.errors import UserError
from workbench.circuit_files import Traced
from workbench.figures.axes import SMALL
from workbench.figures.reading import read_svg
from workbench.figures.scene import Label, Scene
from workbench.runs import Run
from workbench.views.drawing import View
from workbench.views.layout import lay_out
from workbench.views.svg import view_run, write_svg

# Labels on nodes are drawn at 10.5 to 12.5 pixels on screen; on paper at most this share of it.
LARGEST = SMALL / 11


def draw_circuit(source: Traced, width: float, view: View | None = None) -> Scene:
    """A circuit as the view shows it, at most `width` points wide."""
    drawing = replace(lay_out(source.circuit, source.tokens, view or view_run(source)), caption="")
    return fit(write_svg(drawing, " ", ""), width)


def fit(svg: str, width: float) -> Scene:
    """A picture at the largest scale that fits the column."""
    natural = read_svg(svg).width
    return read_svg(svg, min(LARGEST, width / natural), 2.0)


@dataclass(frozen=True, slots=True)
class Difference:
    """Edges of either circuit, scored by how much stronger they are in the first; counts of those shared or not."""

    circuit: Circuit
    both: int
    first: int
    second: int

    @property
    def jaccard(self) -> float:
        """Share of edges in both among those in either; 1 where there are none."""
        return self.both / ((self.both + self.first + self.second) or 1) if self.circuit.edges else 1.0


def subtract(first: Run, second: Run) -> Difference:
    """First minus second, edge by edge, from the scores of both whole graphs.

    Raises UserError when the two do not score the same thing: another graph, length, metric, method or ablation.
    """
    for name in ("plan", "method", "ablation", "metric", "unit"):
        one, two = getattr(first.circuit, name), getattr(second.circuit, name)
        if one != two:
            raise UserError(
                f"the two runs cannot be subtracted: {name} is {one!s:.120} in one, {two!s:.120} in the other"
            )
    if first.scores.edges.shape != second.scores.edges.shape:
        lengths = len(first.tokens), len(second.tokens)
        raise UserError(f"the two runs cannot be subtracted: they have {lengths[0]} and {lengths[1]} positions")
    wiring, positions = first.scores.wiring, first.scores.edges.shape[0]
    masks = [mask_edges(run.circuit, wiring, positions) for run in (first, second)]
    change = first.scores.edges.astype(float) - second.scores.edges.astype(float)
    edges = [
        Edge(
            f"{wiring.writers[writer].name}@{position}",
            f"{wiring.readers[reader].component.name}@{position}",
            wiring.readers[reader].role,
            float(change[position, writer, reader]),
        )
        for position, writer, reader in np.argwhere(masks[0] | masks[1]).tolist()
    ]
    edges.sort(key=lambda edge: (-abs(edge.score), edge.writer, edge.reader, edge.role))
    counts = [int(mask.sum()) for mask in (masks[0] & masks[1], masks[0] & ~masks[1], masks[1] & ~masks[0])]
    return Difference(join(first, second, edges, change), *counts)


def join(first: Run, second: Run, edges: list[Edge], change: np.ndarray) -> Circuit:
    """A circuit of these edges, nodes and moves of both, nodes scored by their difference."""
    wiring = first.scores.wiring
    writers = {writer.name: index for index, writer in enumerate(wiring.writers)}
    scores = first.scores.nodes.astype(float) - second.scores.nodes.astype(float)
    nodes = {}
    for node in (*first.circuit.nodes, *second.circuit.nodes):
        name, position = split_node(node.id)
        incoming = [i for i, reader in enumerate(wiring.readers) if reader.component == node.component]
        own = scores[position, writers[name]] if name in writers else change[position][:, incoming].sum()
        nodes[node.id] = replace(node, score=0.0 if name == "logits" else float(own))
    ordered = sorted(nodes.values(), key=lambda node: (node.position, node.component.layer, node.id))
    moves = {(move.source, move.target): move for move in (*second.circuit.moves, *first.circuit.moves)}
    return replace(
        first.circuit, nodes=tuple(ordered), edges=tuple(edges), moves=tuple(moves[key] for key in sorted(moves)),
        requested=len(edges),
    )  # fmt: skip


def draw_difference(first: Run, second: Run, width: float, edges: int | None) -> tuple[Scene, Difference]:
    """The picture of a difference: blue is stronger in the first run, orange-red in the second."""
    found = subtract(first, second)
    drawing = replace(lay_out(found.circuit, first.tokens, view_run(first, edges)), caption="")
    scene = fit(write_svg(drawing, " ", ""), width)
    words = {"helps the answer": "more in the first", "hurts the answer": "more in the second"}
    marks = tuple(
        replace(mark, text=words.get(mark.text, mark.text)) if isinstance(mark, Label) else mark for mark in scene.marks
    )
    return replace(scene, marks=marks, title="Difference of two circuits"), found
