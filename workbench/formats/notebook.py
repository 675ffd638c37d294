"""What a notebook shows of a run, a circuit file and a ledger: picture, caption, table; all text escaped."""

from __future__ import annotations

from html import escape

from workbench.circuit_files import Traced
from workbench.exports_tables import Table
from workbench.figures.axes import COLUMNS
from workbench.figures.captions import describe_circuit, write_caption
from workbench.figures.charts import draw_waterfall
from workbench.figures.vector import write_scene
from workbench.formats.page import write_html_table
from workbench.ledgers.table import Ledger, list_rows
from workbench.views.svg import draw_run
from workbench.views.text import show_line

LEDGER_COLUMNS = {"row": str, "format": str, "component": str, "token": str, "share": float}


def show_run(run: Traced) -> str:
    """The circuit's picture with its caption."""
    caption = write_caption(describe_circuit(run, len(run.circuit.edges)), run, "")
    return show_figure(draw_run(run), caption)


def show_figure(svg: str, caption: str) -> str:
    """An SVG file's text and a caption as a figure of HTML."""
    return f"<figure>{svg.split('?>', 1)[-1]}<figcaption>{escape(show_line(caption))}</figcaption></figure>"


def show_ledger(ledger: Ledger) -> str:
    """The waterfall and all rows."""
    known = "" if ledger.known else f" (the model says {ledger.said} instead)"
    caption = f"{ledger.prompt} → {ledger.answer}{known}: {ledger.metric}, in {ledger.unit}; {ledger.method}."
    rows = [tuple(row.get(name) for name in LEDGER_COLUMNS) for row in list_rows(ledger)]
    picture = show_figure(write_scene(draw_waterfall(ledger, COLUMNS[2])), caption)
    return picture + write_html_table(Table(LEDGER_COLUMNS, rows))
