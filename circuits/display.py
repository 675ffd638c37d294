"""A circuit as a small table of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.circuit import Circuit

SHOWN = 10


def show_circuit(circuit: Circuit) -> str:
    """How it was measured, and its strongest edges."""
    head = (
        f"{len(circuit.edges)} edges of {circuit.total} and {len(circuit.nodes)} nodes; method {circuit.method}, "
        f"ablation {circuit.ablation}, metric {circuit.metric}, in {circuit.unit}; positive helps the answer"
    )
    rows = [(edge.writer, edge.reader, edge.role, f"{edge.score:+.4g}") for edge in circuit.edges[:SHOWN]]
    return f"<p>{escape(head)}</p>{show_rows(('writer', 'reader', 'input', circuit.unit), rows)}"


def show_rows(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of HTML, its texts escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
