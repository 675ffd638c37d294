"""A page that needs nothing else: the picture, its caption and the tables, no script, no address outside."""

from __future__ import annotations

from html import escape

from workbench.circuit_files import Traced
from workbench.exports_tables import TABLES, Table
from workbench.figures.captions import describe_circuit, write_caption
from workbench.views.svg import draw_run
from workbench.views.text import show_line

# The page may load nothing, from anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = (
    "body{font:15px/1.5 Helvetica,Arial,sans-serif;color:#1f2933;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "svg{max-width:100%;height:auto}figure{margin:0;overflow-x:auto}figcaption{color:#52606d;margin:.8rem 0}"
    "table{border-collapse:collapse;font-size:13px}th,td{padding:.2rem .6rem;text-align:left;border-bottom:1px solid "
    "#d9dee5}td.n{text-align:right;font-variant-numeric:tabular-nums}"
    "summary{cursor:pointer;font-weight:600;margin:1rem 0}"
)


def write_html_table(table: Table, hidden: frozenset[str] = frozenset()) -> str:
    """A table of HTML; every text in it is escaped."""
    names = [name for name in table.columns if name not in hidden]
    places = [list(table.columns).index(name) for name in names]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join("<tr>" + "".join(write_html_cell(row[place]) for place in places) + "</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def write_html_cell(value: object) -> str:
    """One cell."""
    if isinstance(value, float):
        return f'<td class="n">{value:+.4g}</td>'
    return f"<td>{'' if value is None else escape(show_line(str(value)))}</td>"


def write_page(title: str, picture: str, caption: str, body: str = "") -> bytes:
    """A whole document around an SVG picture."""
    drawing = picture.split("?>\n", 1)[-1]
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(show_line(title))}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(show_line(title))}</h1>\n<figure>\n{drawing}<figcaption>{escape(show_line(caption))}</figcaption>\n"
        f"</figure>\n{body}\n</body>\n</html>\n"
    )
    return text.encode("utf-8", "backslashreplace")


def write_run_page(run: Traced) -> bytes:
    """The page of a run or circuit: its picture and all its tables."""
    tables = {name: make(run) for name, make in TABLES.items()}
    hidden = frozenset(("unit", "method", "ablation", "metric"))
    body = "\n".join(
        f"<details><summary>{len(table.rows)} {name}</summary>{write_html_table(table, hidden)}</details>"
        for name, table in tables.items()
        if table.rows
    )
    caption = write_caption(describe_circuit(run, len(run.circuit.edges)), run, "")
    return write_page(run.title, draw_run(run), caption, body)
