"""The picture of a circuit for paper: PDF, PNG and TikZ at the width of two columns."""

from __future__ import annotations

from workbench.circuit_files import Traced
from workbench.figures.axes import COLUMNS
from workbench.figures.captions import describe_circuit, write_caption
from workbench.figures.circuits import draw_circuit
from workbench.figures.tikz import write_tikz
from workbench.figures.vector import typeset
from workbench.views.drawing import View


def write_pdf(run: Traced, view: View | None = None) -> bytes:
    """Vector PDF with its fonts. Raises UserError when Typst is not installed."""
    return typeset(draw_circuit(run, COLUMNS[2], view), "pdf")


def write_png(run: Traced, view: View | None = None) -> bytes:
    """Pixels, 300 to the inch. Raises UserError when Typst is not installed."""
    return typeset(draw_circuit(run, COLUMNS[2], view), "png")


def write_tex(run: Traced, view: View | None = None) -> bytes:
    """A `standalone` document, its caption as a comment."""
    caption = write_caption(describe_circuit(run, len(run.circuit.edges)), run, "")
    return write_tikz(draw_circuit(run, COLUMNS[2], view), caption).encode("utf-8", "backslashreplace")
