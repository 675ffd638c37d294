"""Formats in which a circuit leaves the workbench, and what each of them loses; writing imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.exports_graphml import write_graphml
from workbench.exports_json import write_json
from workbench.exports_tables import write_edges, write_nodes, write_parts
from workbench.runs import Run
from workbench.views.svg import draw_run


@dataclass(frozen=True, slots=True)
class Export:
    """One format: `suffix` with its dot, `drops` says in words what of a run the file does not hold.

    `write` gives the file's bytes; the same run gives the same bytes.
    """

    name: str
    label: str
    suffix: str
    mime: str
    drops: str
    write: Callable[[Run], bytes]


def write_svg(run: Run) -> bytes:
    """Picture of the circuit, as the Circuit page draws it before anything is filtered."""
    return draw_run(run).encode()


EXPORTS: dict[str, Export] = {
    "json": Export(
        "json",
        "Circuit (JSON)",
        ".json",
        "application/json",
        "leaves out the scores of edges outside the circuit and the attention patterns",
        write_json,
    ),
    "graphml": Export(
        "graphml",
        "Graph (GraphML)",
        ".graphml",
        "application/graphml+xml",
        "leaves out settings, hashes and versions; control characters in tokens become pictures of themselves",
        write_graphml,
    ),
    "svg": Export(
        "svg",
        "Figure (SVG)",
        ".svg",
        "image/svg+xml",
        "a picture: scores are line widths and colours, not numbers; units, slots and attention edges are not drawn",
        write_svg,
    ),
    "csv": Export(
        "csv",
        "Edges (CSV)",
        ".csv",
        "text/csv",
        "edges alone, no nodes or parts; text that a spreadsheet would take for a formula starts with an apostrophe",
        write_edges,
    ),
    "csv-nodes": Export(
        "csv-nodes",
        "Nodes (CSV)",
        ".nodes.csv",
        "text/csv",
        "nodes alone, no edges or parts; text that a spreadsheet would take for a formula starts with an apostrophe",
        write_nodes,
    ),
    "csv-parts": Export(
        "csv-parts",
        "Parts (CSV)",
        ".parts.csv",
        "text/csv",
        "parts alone (FFN and bank units, memory slots, attention edges), those that the run kept; text that a "
        "spreadsheet would take for a formula starts with an apostrophe",
        write_parts,
    ),
}
