"""A circuit's table in LaTeX with booktabs rules, whatever its tokens hold."""

from __future__ import annotations

from typing import Any

from workbench.circuit_files import Traced
from workbench.exports_tables import TABLES, Table
from workbench.figures.captions import write_caption
from workbench.figures.tikz import SIGNS, escape_comment, escape_tex
from workbench.views.text import show_line

ROWS = 40
# Columns of a table that a reader of a paper needs; the caption says the rest.
SHOWN = {
    "edges": ("writer", "reader", "role", "token", "score"),
    "nodes": ("node", "kind", "token", "score"),
    "parts": ("part", "kind", "reader", "token", "source", "score"),
}


def write_cell(value: Any) -> str:
    """A cell: numbers with three decimals and a true minus, text escaped."""
    if value is None:
        return ""
    return escape_tex(f"{value:+.3f}".replace("-", "−")) if isinstance(value, float) else escape_tex(str(value))


def write_tabular(table: Table, names: tuple[str, ...]) -> list[str]:
    """The tabular with a heading; numbers to the right."""
    places = [list(table.columns).index(name) for name in names]
    form = "".join("r" if table.columns[name] is float else "l" for name in names)
    rows = [" & ".join(write_cell(row[place]) for place in places) + r" \\" for row in table.rows[:ROWS]]
    heading = " & ".join(escape_tex(name) for name in names) + r" \\"
    return [rf"\begin{{tabular}}{{{form}}}", r"\toprule", heading, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]


def write_latex(run: Traced, name: str) -> bytes:
    """A table environment with caption, to be read by `\\input` after `\\usepackage{booktabs}`."""
    table = TABLES[name](run)
    count = len(table.rows)
    which = f"The {min(count, ROWS)} first of {count} {name} of this circuit, one of many possible."
    lines = [
        f"% {escape_comment(show_line(run.title))}",
        r"% Needs \usepackage{booktabs}, and with pdflatex \usepackage[T1]{fontenc}.",
        SIGNS.rstrip(),
        r"\begin{table}[tb]",
        r"\centering\small",
        *write_tabular(table, SHOWN[name]),
        rf"\caption{{{escape_tex(write_caption(which, run, ''))}}}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines).encode("utf-8", "backslashreplace")
