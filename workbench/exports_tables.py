"""A circuit's edges, nodes or parts as comma-separated values that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from circuits.graph import split_node
from circuits.parts import PART_KINDS
from workbench.runs import Run
from workbench.views.describe import name_component, name_part
from workbench.views.memories import find_source

EDGE_COLUMNS = ("writer", "reader", "role", "position", "token", "score", "unit", "method", "ablation", "metric")
NODE_COLUMNS = (
    "node",
    "kind",
    "layer",
    "head",
    "block",
    "position",
    "token",
    "score",
    "unit",
    "method",
    "ablation",
    "metric",
    "label",
)
PART_COLUMNS = (
    "part",
    "kind",
    "reader",
    "layer",
    "head",
    "block",
    "number",
    "position",
    "token",
    "source",
    "score",
    "contribution",
    "renormalised",
    "unit",
    "method",
    "ablation",
    "metric",
    "label",
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def find_token(tokens: Sequence[str], position: int) -> str:
    """Token at a position, nothing where the prompt has none."""
    return tokens[position] if 0 <= position < len(tokens) else ""


def protect_cell(value: object) -> object:
    """A cell as it is written: numbers as they are, text that could start a formula behind an apostrophe."""
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS) else text


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """Rows under a heading, in UTF-8, lines ended as RFC 4180 has them."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(columns)
    writer.writerows([protect_cell(value) for value in row] for row in rows)
    return buffer.getvalue().encode()


def write_edges(run: Run) -> bytes:
    """The circuit's edges, strongest first, one a row."""
    circuit, rows = run.circuit, []
    for edge in circuit.edges:
        position = split_node(edge.writer)[1]
        measured = edge.score, circuit.unit, circuit.method, circuit.ablation, circuit.metric
        rows.append((edge.writer, edge.reader, edge.role, position, find_token(run.tokens, position), *measured))
    return write_table(EDGE_COLUMNS, rows)


def write_nodes(run: Run) -> bytes:
    """The circuit's nodes in their order, one a row; -1 where a kind of node has no head or block."""
    circuit, rows = run.circuit, []
    for node in circuit.nodes:
        part = node.component
        place = part.layer, part.head, part.block, node.position, find_token(run.tokens, node.position)
        measured = node.score, circuit.unit, circuit.method, circuit.ablation, circuit.metric
        rows.append((node.id, str(part.kind), *place, *measured, name_component(part)))
    return write_table(NODE_COLUMNS, rows)


def write_parts(run: Run) -> bytes:
    """The kept parts, kind by kind, strongest first; the heading alone for a run that kept none.

    `number` is the unit, slot or source position; `reader` is empty where all readers lose the part.
    """
    kept, rows = run.parts, []
    for part in kept.parts if kept is not None else ():
        component, source = part.component, find_source(run, part.component)
        place = component.layer, component.head, component.block, component.part, part.position
        texts = find_token(run.tokens, part.position), source
        scores = part.score, part.contribution, part.renormalised
        assert kept is not None
        measured = kept.unit, kept.method, kept.ablation, kept.metric
        row = (part.id, PART_KINDS[component.kind], part.reader, *place, *texts, *scores, *measured)
        rows.append((*row, name_part(component)))
    return write_table(PART_COLUMNS, rows)
