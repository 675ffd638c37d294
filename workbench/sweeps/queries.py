"""SQL over the parts of all sweeps of a folder, by DuckDB in memory: one view, `sweeps`, a row a row of any part.

Only the parts can be read: external access is off but for their paths, extensions and Python's variables are out of
reach, the settings are locked, and only a single query is run, so nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.parquet_tables import require_file
from workbench.sweeps.plans import HEAD

if TYPE_CHECKING:
    import duckdb

VIEW = "sweeps"
# Columns by which the page filters, and of which it lists the values.
CHOICES = ("sweep", "condition", "method", "row", "relation")
BINS = 60


def find_tables(folder: Path) -> list[Path]:
    """Folders of sweeps: the folder itself, or those in it, by name."""
    if (folder / HEAD).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{HEAD}"))


def list_files(folder: Path) -> dict[str, list[Path]]:
    """Parts of every sweep of a folder that has some. Raises UserError where there are none."""
    found = {table.name: sorted(table.resolve().glob("part-*.parquet")) for table in find_tables(folder)}
    found = {name: parts for name, parts in found.items() if parts}
    if not found:
        raise UserError(f"there are no sweeps in {folder}: `memory-circuits sweep --out {folder}/NAME` writes one")
    return found


def quote(text: object) -> str:
    """A text as SQL has it."""
    return "'" + str(text).replace("'", "''") + "'"


def open_sweeps(folder: Path, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """A connection to the sweeps of a folder, which can read their parts and nothing else.

    Raises UserError where there are none, or a part is damaged.
    """
    import duckdb

    found = list_files(folder)
    lists = {name: f"[{', '.join(map(quote, parts))}]" for name, parts in found.items()}
    tables = [f"SELECT {quote(name)} AS sweep, * FROM read_parquet({parts})" for name, parts in lists.items()]
    for part in (part for parts in found.values() for part in parts):
        require_file(part)
    paths = ", ".join(quote(part) for parts in found.values() for part in parts)
    connection = duckdb.connect(":memory:", config={} if threads is None else {"threads": threads})
    try:
        for statement in (
            "SET temp_directory = ''",
            "SET parquet_metadata_cache = true",
            f"SET allowed_paths = [{paths}]",
            "SET enable_external_access = false",
            "SET python_enable_replacements = false",
            f"CREATE VIEW {VIEW} AS {' UNION ALL BY NAME '.join(tables)}",
            "SET lock_configuration = true",
        ):
            connection.execute(statement)
    except duckdb.Error as error:
        connection.close()
        raise explain(error) from None
    return connection


def explain(error: Exception) -> UserError:
    """What DuckDB says, on one line."""
    return UserError(" ".join(str(error).split())[:400])


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows of a query, at most as many as were asked for; `more` says whether there are others."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: numbers and texts as they are, all else as text."""
        rows = [[plain(cell) for cell in row] for row in self.rows]
        return {"columns": list(self.columns), "rows": rows, "more": self.more}


def plain(cell: Any) -> Any:
    """A cell as JSON can hold it."""
    if cell is None or isinstance(cell, str | int | bool) or (isinstance(cell, float) and math.isfinite(cell)):
        return cell
    return str(cell)


def ask(connection: duckdb.DuckDBPyConnection, sql: str, limit: int = 1000) -> Answered:
    """Answer one query in SQL. Raises UserError for what is no single query, or what DuckDB refuses."""
    import duckdb

    readable = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type not in readable:
            raise UserError(f"give one query that reads, such as SELECT count(*) FROM {VIEW}")
        found = connection.cursor().execute(statements[0])
        rows = found.fetchmany(limit + 1)
    except (duckdb.Error, RuntimeError, UnicodeDecodeError) as error:
        raise explain(error) from None
    columns = tuple(str(column[0]) for column in found.description or ())
    return Answered(columns, tuple(map(tuple, rows[:limit])), len(rows) > limit)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows: those whose columns of `CHOICES` have one of the given values (any where none is given), and whose
    component starts with `component`.
    """

    chosen: tuple[tuple[str, tuple[str, ...]], ...] = ()
    component: str = ""

    def build(self) -> tuple[str, list[object]]:
        """SQL condition with its parameters. Raises UserError for a column that is not offered."""
        parts, values = ["row <> 'reason'"], list[object]()
        for column, some in self.chosen:
            if column not in CHOICES:
                raise UserError(f"{column!r} is no column to filter by: {', '.join(CHOICES)}")
            if some:
                parts.append(f"{column} IN ({', '.join('?' * len(some))})")
                values += some
        if self.component:
            parts.append("starts_with(component, ?)")
            values.append(self.component)
        return " AND ".join(parts), values


Rows = list[tuple[Any, ...]]


def fetch(connection: duckdb.DuckDBPyConnection, sql: str, values: Sequence[object] = ()) -> Rows:
    """Rows of a query of our own. Raises UserError when a part has gone or is damaged."""
    import duckdb

    try:
        rows: Rows = connection.cursor().execute(sql, list(values)).fetchall()
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise explain(error) from None
    return rows


def list_values(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Values of every column to filter by, in order."""
    (lists,) = fetch(connection, f"SELECT {', '.join(f'list(DISTINCT {name})' for name in CHOICES)} FROM {VIEW}")
    pairs = zip(CHOICES, lists, strict=True)
    return {name: sorted(value for value in some or () if value) for name, some in pairs}


def list_kinds(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Kinds of rows of every method that measured something: what one method has need not be what another has."""
    found = fetch(
        connection,
        f"""SELECT method, list(DISTINCT row ORDER BY row) FROM {VIEW}
            WHERE row <> 'reason' AND method IS NOT NULL GROUP BY method ORDER BY method""",
    )
    return {method: list(rows) for method, rows in found}


def count_outcomes(connection: duckdb.DuckDBPyConnection) -> Rows:
    """Of every sweep: facts by condition and method that were measured, and those that were not by reason.

    Columns: sweep, condition, method, reason (empty where measured), count.
    """
    return fetch(
        connection,
        f"""SELECT sweep, coalesce(condition, ''), coalesce(method, ''),
                   CASE WHEN row = 'reason' THEN left(split_part(reason, ':', 1), 60) ELSE '' END AS why,
                   count(DISTINCT fact)
            FROM {VIEW} GROUP BY ALL ORDER BY ALL""",
    )


def rank_components(connection: duckdb.DuckDBPyConnection, chosen: Filter, count: int = 30) -> Rows:
    """Components (and edges, as `writer → reader`) by the mean size of their value over facts.

    Columns: name, mean value, mean absolute value, rows, standard deviation of the value (None of one row).
    """
    where, values = chosen.build()
    return fetch(
        connection,
        f"""SELECT component || coalesce(' → ' || reader, '') AS name, avg(value), avg(abs(value)) AS size, count(*),
                   stddev_samp(value)
            FROM {VIEW} WHERE {where} AND component IS NOT NULL
            GROUP BY component, reader ORDER BY size DESC, name LIMIT ?""",
        [*values, count],
    )


def count_values(connection: duckdb.DuckDBPyConnection, chosen: Filter) -> Rows:
    """Histogram of the values. Columns: left end of the bin, its width, rows; none where no row is left."""
    where, values = chosen.build()
    ((low, high),) = fetch(connection, f"SELECT min(value), max(value) FROM {VIEW} WHERE {where}", values)
    if low is None:
        return []
    width = (high - low) / BINS or 1.0
    found = fetch(
        connection,
        f"""SELECT least(floor((value - ?) / ?), ?)::INTEGER AS bin, count(*)
            FROM {VIEW} WHERE {where} AND value IS NOT NULL GROUP BY bin ORDER BY bin""",
        [low, width, BINS - 1, *values],
    )
    return [(low + place * width, width, count) for place, count in found]


def average_formats(connection: duckdb.DuckDBPyConnection, chosen: Filter) -> Rows:
    """Mean value of whole formats (rows `format`) by relation; none where no ledger is chosen.

    Columns: relation, format, mean value, rows.
    """
    where, values = chosen.build()
    return fetch(
        connection,
        f"""SELECT relation, format, avg(value), count(*) FROM {VIEW}
            WHERE {where} AND row = 'format' GROUP BY ALL ORDER BY ALL""",
        values,
    )


def count_sources(connection: duckdb.DuckDBPyConnection, chosen: Filter) -> tuple[int, int]:
    """Over how many sweeps and how many conditions the chosen rows go."""
    where, values = chosen.build()
    ((sweeps, conditions),) = fetch(
        connection, f"SELECT count(DISTINCT sweep), count(DISTINCT condition) FROM {VIEW} WHERE {where}", values
    )
    return sweeps, conditions


def summarise(connection: duckdb.DuckDBPyConnection, chosen: Filter) -> tuple[int, int, list[str]]:
    """How many rows and facts are chosen, and what their values are: metric, ablation where there is one, unit."""
    where, values = chosen.build()
    rows = fetch(
        connection,
        f"""SELECT count(*), count(DISTINCT fact),
                   list(DISTINCT concat_ws(', ', metric, 'ablation ' || ablation, 'in ' || unit))
            FROM {VIEW} WHERE {where}""",
        values,
    )
    ((count, facts, kinds),) = rows
    return count, facts, sorted(kinds or ())
