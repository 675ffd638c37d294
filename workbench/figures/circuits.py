"""The picture of a circuit, and of what two circuits do not share, for paper: the same layout as on screen."""

from __future__ import annotations

from dataclasses import replace

from workbench.circuit_files import Traced
from workbench.figures.axes import SMALL
from workbench.figures.reading import read_svg
from workbench.figures.scene import Scene
from workbench.runs import Run
from workbench.views.comparing import Comparison, compare_runs, mark_difference
from workbench.views.drawing import Drawing, View
from workbench.views.layout import lay_out
from workbench.views.svg import view_run, write_svg

# Labels on nodes are drawn at 10.5 to 12.5 pixels on screen; on paper at most this share of it.
LARGEST = SMALL / 11


def draw_circuit(source: Traced, width: float, view: View | None = None) -> Scene:
    """A circuit as the view shows it, at most `width` points wide."""
    drawing = lay_out(source.circuit, source.tokens, view or view_run(source))
    return replace(fit(drawing, width), title=source.title)


def fit(drawing: Drawing, width: float) -> Scene:
    """A drawing at the largest scale that fits the column; its heading and caption belong to the paper's text."""
    svg = write_svg(replace(drawing, caption=""), " ", "")
    return read_svg(svg, min(LARGEST, width / read_svg(svg).width), 2.0)


def draw_difference(first: Run, second: Run, width: float, edges: int | None) -> tuple[Scene, Comparison]:
    """The picture of a difference, second minus first. Raises UserError for runs that cannot be subtracted."""
    found = compare_runs(first, second)
    shown = None if edges is None else min(edges, len(found.circuit.edges))
    drawing = mark_difference(lay_out(found.circuit, found.tokens, view_run(first, shown)), found)
    return replace(fit(drawing, width), title="Difference of two circuits"), found
