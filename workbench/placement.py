"""Where facts are by a table of ledgers, how often they are read, and what moving some of them costs and saves.

Nothing here needs a model: measured places come from a table that `memory-circuits attribute` wrote, or from none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.facts import Fact
from workbench.costs.formats import Formats
from workbench.ledgers.bulk import HEAD
from workbench.ledgers.placing import NOWHERE, PLACES, USAGE, Placement, weigh
from workbench.sweeps.parts import load_table

UNMEASURED = "not measured"
FORMATS = ("text", "explicit", "parameters")
KINDS = {"anchor": "anchor", "text": "text", "memory": "explicit", "level": "bank"}
# Rows of a table of usage that are read; more are refused, not cut off.
MOST_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """Where one fact lives: format, entry of the ledger, its share, the margin, the unit and whether it is known."""

    lives: str
    entry: str
    share: float
    margin: float
    unit: str
    known: bool
    reason: str = ""


def list_tables(runs: Path) -> dict[str, Path]:
    """Attribution tables by a name that a link may carry: in the folder of runs, and below the working directory."""
    found = {path.parent.name: path.parent for path in sorted(runs.glob(f"*/{HEAD}"))} if runs.is_dir() else {}
    for path in sorted({path.parent for depth in ("*/", "*/*/") for path in Path().glob(f"{depth}{HEAD}")}):
        if not any(part.startswith(".") for part in path.parts) and path.resolve() not in map(
            Path.resolve, found.values()
        ):
            found.setdefault(str(path), path)
    return found


def read_places(folder: Path) -> dict[str, Measured]:
    """Where each fact of an attribution table lives. Raises UserError for one that is none or damaged."""
    table = load_table(folder)
    names = ("fact", "row", "format", "share", "margin", "unit", "reason")
    try:
        columns = [table.column(name).to_pylist() for name in names]
    except KeyError as error:
        raise UserError(f"{folder} is no attribution table: it has no column {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{folder} is damaged: a text of it is not UTF-8 ({error.reason})") from None
    found: dict[str, Measured] = {}
    for fact, row, form, share, margin, unit, reason in zip(*columns, strict=True):
        if row == "reason":
            found.setdefault(fact, Measured(UNMEASURED, "", 0.0, 0.0, "", False, str(reason or "")))
        elif row == "format" and (fact not in found or share > found[fact].share):
            lives = PLACES[KINDS[str(form).split()[0]]] if share > 0 else NOWHERE
            found[fact] = Measured(lives, str(form), float(share), float(margin), str(unit), True)
    return found


def read_usage_rows(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, float]:
    """Reads of each fact of a table with the columns `id` and `usage`. Raises UserError for any other."""
    found: dict[str, float] = {}
    for number, row in enumerate(rows, start=1):
        value = next((row[column] for column in USAGE if row.get(column) not in (None, "")), None)
        if number > MOST_ROWS:
            raise UserError(f"{name} has more than {MOST_ROWS:,} rows: give fewer")
        if not row.get("id") or value is None:
            raise UserError(f"{name}, row {number} needs the columns id and usage")
        try:
            count = float(value)
        except (TypeError, ValueError, OverflowError):
            count = math.nan
        if not 0 <= count < math.inf:
            raise UserError(f"{name}, row {number} has the usage {str(value)[:40]!r}: give a number from 0")
        found[str(row["id"])] = count
    if not found:
        raise UserError(f"{name} has no rows: give each fact a row with id and usage")
    return found


def place_facts(
    facts: Sequence[Fact], usage: Mapping[str, float], places: Mapping[str, Measured], formats: Formats
) -> list[Placement]:
    """Placement of every fact that has a usage; where it lives is told for measured ones alone."""
    nothing = Measured(UNMEASURED, "", 0.0, 0.0, "", False)
    found = []
    for fact in facts:
        if fact.id in usage:
            own = places.get(fact.id, nothing)
            place, measured = (own.lives, own.entry, own.share), (own.margin, own.unit, own.known)
            found.append(weigh(fact.id, usage[fact.id], place, measured, formats))
    return found


def count_moves(placements: Sequence[Placement]) -> dict[tuple[str, str], int]:
    """Facts by where they live and where the cost model would keep them."""
    return dict(Counter((one.lives, one.recommended) for one in placements))


@dataclass(frozen=True, slots=True)
class Move:
    """What moving facts to one format does, in TFlops over their expected reads.

    `facts` of the selection lie elsewhere by measurement; `write` is paid once, `before` and `after` are their reads
    where they are and there; `saved` is what is gained when what is there stays paid for, below 0 a loss.
    """

    target: str
    facts: int
    skipped: int
    write: float
    before: float
    after: float

    @property
    def saved(self) -> float:
        """Reads before, less the write and the reads after."""
        return self.before - self.write - self.after


def price_move(placements: Sequence[Placement], target: str, formats: Formats) -> Move:
    """Cost of moving facts to a format; those already there, or of no known place, are skipped."""
    moved = [one for one in placements if one.lives in formats.read and one.lives != target]
    before = math.fsum(one.usage * formats.read[one.lives] for one in moved)
    after = math.fsum(one.usage * formats.read[target] for one in moved)
    return Move(target, len(moved), len(placements) - len(moved), len(moved) * formats.write[target], before, after)
