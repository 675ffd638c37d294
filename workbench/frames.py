"""Runs, circuits and ledgers as pandas or polars frames and networkx graphs, in one call from Python.

to_pandas(load_run(folder))                 the circuit's edges
to_pandas(run, "nodes")                     its nodes; "parts" where the run kept them
to_polars(ledger)                           rows of a ledger
to_networkx(run)                            a directed multigraph
"""

from __future__ import annotations

from typing import Any

from probes.errors import UserError
from workbench.circuit_files import Traced
from workbench.exports_graphml import build_graph
from workbench.exports_tables import TABLES
from workbench.ledgers.table import Ledger, list_rows


def list_columns(source: Traced | Ledger, table: str) -> dict[str, list[Any]]:
    """Columns of a table of a run or circuit (`edges`, `nodes`, `parts`), or of a ledger's rows.

    Raises UserError for a table that there is not.
    """
    if isinstance(source, Ledger):
        rows = list_rows(source)
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: [row.get(name) for row in rows] for name in names}
    if table not in TABLES:
        raise UserError(f"there is no table {table[:80]!r}: choose {', '.join(TABLES)}")
    return TABLES[table](source).to_columns()


def to_pandas(source: Traced | Ledger, table: str = "edges") -> Any:
    """pandas.DataFrame of a table. Raises UserError for a table that there is not."""
    import pandas

    return pandas.DataFrame(list_columns(source, table))


def to_polars(source: Traced | Ledger, table: str = "edges") -> Any:
    """polars.DataFrame of a table. Raises UserError for a table that there is not, or where polars is not installed."""
    try:
        import polars
    except ImportError:
        raise UserError("polars is not installed: pip install 'memory-circuits[polars]', or use to_pandas") from None
    return polars.DataFrame(list_columns(source, table), infer_schema_length=None)


def to_networkx(source: Traced) -> Any:
    """networkx.MultiDiGraph of a circuit with its attention and its kept parts."""
    return build_graph(source)
