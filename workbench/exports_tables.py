"""A circuit's edges, nodes or parts as tables: CSV that no spreadsheet takes for formulas, Parquet, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from circuits.graph import split_node
from circuits.parts import PART_KINDS
from workbench.circuit_files import Traced
from workbench.views.describe import name_component, name_part
from workbench.views.memories import find_source

_PLACE = {"layer": int, "head": int, "block": int}
_MEASURED = {"unit": str, "method": str, "ablation": str, "metric": str}
EDGE_COLUMNS = {"writer": str, "reader": str, "role": str, "position": int, "token": str, "score": float, **_MEASURED}
NODE_COLUMNS = {
    "node": str,
    "kind": str,
    **_PLACE,
    "position": int,
    "token": str,
    "score": float,
    **_MEASURED,
    "label": str,
}
PART_COLUMNS = {
    "part": str,
    "kind": str,
    "reader": str,
    **_PLACE,
    "number": int,
    "position": int,
    "token": str,
    "source": str,
    "score": float,
    "contribution": float,
    "renormalised": float,
    **_MEASURED,
    "label": str,
}
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns, each of one type; None where a row has nothing."""

    columns: dict[str, type]
    rows: list[tuple[Any, ...]]

    def to_columns(self) -> dict[str, list[Any]]:
        """Values by column; half a character in a token becomes its escape, which every table can hold."""
        return {name: [clean_cell(row[place]) for row in self.rows] for place, name in enumerate(self.columns)}


def clean_cell(value: Any) -> Any:
    """A cell whose text UTF-8 can hold."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def find_token(tokens: Sequence[str], position: int) -> str:
    """Token at a position, nothing where the prompt has none."""
    return tokens[position] if 0 <= position < len(tokens) else ""


def list_edges(run: Traced) -> Table:
    """The circuit's edges, strongest first, one a row."""
    circuit, rows = run.circuit, []
    for edge in circuit.edges:
        position = split_node(edge.writer)[1]
        measured = edge.score, circuit.unit, circuit.method, circuit.ablation, circuit.metric
        rows.append((edge.writer, edge.reader, edge.role, position, find_token(run.tokens, position), *measured))
    return Table(EDGE_COLUMNS, rows)


def list_nodes(run: Traced) -> Table:
    """The circuit's nodes in their order, one a row; -1 where a kind of node has no head or block."""
    circuit, rows = run.circuit, []
    for node in circuit.nodes:
        part = node.component
        place = part.layer, part.head, part.block, node.position, find_token(run.tokens, node.position)
        measured = node.score, circuit.unit, circuit.method, circuit.ablation, circuit.metric
        rows.append((node.id, str(part.kind), *place, *measured, name_component(part)))
    return Table(NODE_COLUMNS, rows)


def list_parts(run: Traced) -> Table:
    """The kept parts, kind by kind, strongest first; no row for a run that kept none.

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
    return Table(PART_COLUMNS, rows)


TABLES: dict[str, Callable[[Traced], Table]] = {"edges": list_edges, "nodes": list_nodes, "parts": list_parts}


def protect_cell(value: object) -> object:
    """A cell as it is written: numbers as they are, text that could start a formula behind an apostrophe."""
    if not isinstance(value, str):
        return value
    text = clean_cell(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS) else text


def write_csv(table: Table) -> bytes:
    """Rows under a heading, in UTF-8, lines ended as RFC 4180 has them."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(table.columns)
    writer.writerows([protect_cell(value) for value in row] for row in table.rows)
    return buffer.getvalue().encode()


def write_parquet(table: Table) -> bytes:
    """An Arrow table as Parquet, types as the columns have them; equal tables give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in table.columns.items()])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pydict(table.to_columns(), schema=schema), buffer, compression="zstd")
    return buffer.getvalue()
