"""Where facts live and where they should: ledgers beside the cost model of Yang et al. 2024 (equation 1 and 2).

A fact lives in the format with the largest share of its margin, by its ledger: its own parameters (the anchor) or a
bank level, both `parameters`, `explicit` memory, or `text`; in none where no share is above 0. For its expected number
of reads n the cost model recommends `argmin over formats of write + n . read`, in TFlops of the loaded model. Two
savings are told, as costs now less costs then: `saving` as if both were written anew (equation 1), and `saving_moved`,
where what is there is written already and only the new place has still to be. A reference is as long as the usage says
for every fact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.facts import read_records
from probes.progress import Tick, quiet
from workbench.costs.formats import Formats
from workbench.engine import Engine
from workbench.ledgers.bulk import Refused, plan
from workbench.ledgers.measuring import measure_batch
from workbench.ledgers.table import Ledger
from workbench.settings import Settings

USAGE = ("usage", "n", "reads", "count")
# Where each kind of entry is kept, in the words of the cost model.
PLACES = {"anchor": "parameters", "bank": "parameters", "explicit": "explicit", "text": "text"}
NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Placement:
    """One fact: the format it lives in (`entry` is the ledger's row) with its share, and where it should be.

    Costs are in TFlops for `usage` reads; None where the fact lives nowhere. `known` says whether the model answers.
    """

    fact: str
    usage: float
    lives: str
    entry: str
    share: float
    margin: float
    unit: str
    known: bool
    recommended: str
    cost: float | None
    cost_recommended: float
    saving: float | None
    saving_moved: float | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def read_usage(path: Path, given: float | None) -> dict[str, float]:
    """Expected reads of each fact: from the column, else the one number given.

    Raises UserError where neither says how often a fact is read, or a count is no number from 0.
    """
    usage = dict[str, float]()
    for number, row in enumerate(read_records(path), start=1):
        value = next((row[name] for name in USAGE if row.get(name) not in (None, "")), given)
        if value is None:
            raise UserError(f"row {number} of {path} has no usage: fill in the column `usage`, or give --usage N")
        try:
            count = float(value)
        except (TypeError, ValueError, OverflowError):
            count = math.nan
        if not 0 <= count < math.inf:
            raise UserError(f"row {number} of {path} has the usage {str(value)[:40]!r}: give a number from 0")
        usage.setdefault(str(row.get("id") or f"row {number}"), count)
    return usage


def find_place(ledger: Ledger) -> tuple[str, str, float]:
    """Where a fact lives, by which entry of its ledger, with what share."""
    best = max(ledger.entries, key=lambda entry: entry.share)
    return (PLACES[best.kind] if best.share > 0 else NOWHERE), best.name, best.share


def place_fact(ledger: Ledger, usage: float, formats: Formats) -> Placement:
    """Placement of one measured fact."""
    lives, entry, share = find_place(ledger)
    return weigh(ledger.fact, usage, (lives, entry, share), (ledger.margin, ledger.unit, ledger.known), formats)


def weigh(
    fact: str,
    usage: float,
    place: tuple[str, str, float],
    measured: tuple[float, str, bool],
    formats: Formats,
) -> Placement:
    """Placement of a fact that lives in a place (format, entry, share), with its margin, unit and whether it is known.

    A fact that lives nowhere, or of which nothing is known, has no cost and nothing to save.
    """
    lives, wanted = place[0], formats.place(usage)
    there = formats.cost(wanted, usage)
    cost = saving = moved = None
    if lives in formats.read:
        cost = formats.cost(lives, usage)
        saving = cost - there
        moved = 0.0 if wanted == lives else usage * formats.read[lives] - there
    return Placement(fact, usage, *place, *measured, wanted, cost, there, saving, moved)


def place(
    engine: Engine,
    path: Path,
    usage: Mapping[str, float],
    formats: Formats,
    settings: Settings,
    chunk: int = 32,
    tick: Tick = quiet,
) -> tuple[list[Placement], tuple[Refused, ...]]:
    """Placements of the facts of a table, in its order, and those that cannot be measured, with the reason."""
    planned = plan(engine, path, settings, chunk)
    found = dict[str, Placement]()
    for done, batch in enumerate(planned.chunks):
        tick("facts", done * chunk, planned.total)
        for ledger in measure_batch(engine, batch, "renormalised", settings.metric, 0, 0.0, describe=False):
            found[ledger.fact] = place_fact(ledger, usage[ledger.fact], formats)
    return [found[name] for name in usage if name in found], planned.refused


def sum_savings(placements: Sequence[Placement]) -> dict[str, float]:
    """Both savings over the facts for which moving saves anything, in TFlops."""
    return {name: sum(max(0.0, getattr(one, name) or 0.0) for one in placements) for name in ("saving", "saving_moved")}
