"""Formats in which a circuit leaves the workbench, and what each of them loses; writing imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from workbench.circuit_files import Traced
from workbench.exports_graphml import write_graphml
from workbench.exports_json import write_json
from workbench.exports_tables import TABLES, write_csv, write_parquet
from workbench.formats.attribution_graph import write_attribution_files, write_attribution_graph
from workbench.formats.eap import write_eap, write_eap_files
from workbench.formats.graphs import write_dot, write_gexf, write_mermaid, write_node_link
from workbench.formats.latex import write_latex
from workbench.formats.page import write_run_page
from workbench.formats.pictures import write_pdf, write_png, write_tex
from workbench.views.drawing import View
from workbench.views.layout import lay_out
from workbench.views.svg import view_run
from workbench.views.svg import write_svg as draw_svg


@dataclass(frozen=True, slots=True)
class Export:
    """One format: `suffix` with its dot, `drops` says in words what of a run the file does not hold.

    `write` gives the file's bytes; the same run gives the same bytes. A format of several files has `write_files`: all
    of them by name, for a file name without suffix, the one of that name first. With `shows_view` both take a `view`
    too (None: all edges, nothing arranged).
    """

    name: str
    label: str
    suffix: str
    mime: str
    drops: str
    write: Callable[..., bytes]
    write_files: Callable[..., dict[str, bytes]] | None = None
    shows_view: bool = False


def write_svg(run: Traced, view: View | None = None) -> bytes:
    """Picture of the circuit, as the Circuit page draws it."""
    drawing = lay_out(run.circuit, run.tokens, view or view_run(run))
    return draw_svg(drawing, run.title).encode()


def write_table(run: Traced, name: str, kind: str) -> bytes:
    """One of the circuit's tables as `csv`, `parquet` or `latex`."""
    if kind == "latex":
        return write_latex(run, name)
    return (write_csv if kind == "csv" else write_parquet)(TABLES[name](run))


PICTURE = "a picture: scores are line widths and colours, not numbers; units, slots and attention edges are not drawn"
GRAPH = "leaves out settings, hashes and versions; control characters in tokens become pictures of themselves"
FORMULAS = "; text that a spreadsheet would take for a formula starts with an apostrophe"
OF_TABLES = {
    "edges": "edges alone, no nodes or parts",
    "nodes": "nodes alone, no edges or parts",
    "parts": "parts alone (FFN and bank units, memory slots, attention edges), those that the run kept",
}
KINDS = {
    "csv": ("CSV", ".csv", "text/csv", FORMULAS),
    "parquet": ("Parquet", ".parquet", "application/vnd.apache.parquet", ""),
    "latex": ("LaTeX", ".tex", "application/x-tex", "; the first 40 rows and the columns that a paper needs"),
}


def name_table(kind: str, table: str) -> str:
    """Name of a table in a format: `csv` for edges, `csv-nodes` for nodes."""
    return kind if table == "edges" else f"{kind}-{table}"


def list_tables() -> list[Export]:
    """Every table in every format of tables."""
    found = []
    for kind, (label, suffix, mime, more) in KINDS.items():
        for table, drops in OF_TABLES.items():
            own = suffix if table == "edges" else f".{table}{suffix}"
            write = partial(write_table, name=table, kind=kind)
            found.append(Export(name_table(kind, table), f"{table.title()} ({label})", own, mime, drops + more, write))
    return found


_LOSSY = (
    Export(
        "json",
        "Circuit (JSON)",
        ".json",
        "application/json",
        "leaves out the scores of edges outside the circuit and the attention patterns",
        write_json,
    ),
    Export("svg", "Figure (SVG)", ".svg", "image/svg+xml", PICTURE, write_svg, None, True),
    Export("pdf", "Figure (PDF)", ".pdf", "application/pdf", PICTURE, write_pdf, None, True),
    Export("png", "Figure (PNG)", ".png", "image/png", PICTURE, write_png, None, True),
    Export("tikz", "Figure (TikZ)", ".tikz.tex", "application/x-tex", PICTURE, write_tex, None, True),
    Export(
        "html",
        "Page (HTML)",
        ".html",
        "text/html",
        "the picture and the tables; leaves out scores of edges outside the circuit",
        write_run_page,
    ),
    Export("graphml", "Graph (GraphML)", ".graphml", "application/graphml+xml", GRAPH, write_graphml),
    Export(
        "gexf",
        "Graph (GEXF)",
        ".gexf",
        "application/gexf+xml",
        f"leaves out prompt and answer; {GRAPH}",
        write_gexf,
    ),
    Export("dot", "Graph (DOT)", ".dot", "text/vnd.graphviz", "nodes and edges alone, no parts or settings", write_dot),
    Export(
        "mermaid",
        "Graph (Mermaid)",
        ".mmd",
        "text/plain",
        "the 500 strongest edges at most, scores to three decimals, no parts or settings",
        write_mermaid,
    ),
    Export("node-link", "Graph (node-link JSON)", ".node-link.json", "application/json", GRAPH, write_node_link),
    Export(
        "attribution-graph",
        "Attribution graph (circuit-tracer, Neuronpedia)",
        ".attribution.json",
        "application/json",
        "roles of edges are added up and attention shares out the score of its key-value head (our whole circuit "
        "stands in its generation settings); leaves out scores of edges outside the circuit and attention patterns",
        write_attribution_graph,
        write_attribution_files,
        True,
    ),
    Export(
        "eap",
        "Circuit (EAP-IG, MIB)",
        ".eap.json",
        "application/json",
        "sums over positions; memories, bank blocks and attention have no place there and are listed in a file beside; "
        "parts are left out",
        write_eap,
        write_eap_files,
    ),
)
EXPORTS: dict[str, Export] = {export.name: export for export in (*_LOSSY, *list_tables())}
