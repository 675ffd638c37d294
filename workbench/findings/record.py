"""A finding at rest: its numbers, what was expected, and whether it is so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from circuits.intervals import Estimate

AS_EXPECTED, NOT_SO, DESCRIBED, UNMEASURED = "as expected", "not so", "described", "not measured"


@dataclass(frozen=True, slots=True)
class Row:
    """One number with its bootstrap 95% interval (None: none was taken), over `n` of what `counted` says."""

    name: str
    value: float | None
    n: int
    counted: str
    unit: str
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        numbers = {name: getattr(self, name) for name in ("value", "low", "high")}
        return {"row": self.name, **numbers, "n": self.n, "counted": self.counted, "unit": self.unit}


@dataclass(frozen=True, slots=True)
class Method:
    """How the rows of a finding were measured."""

    method: str
    ablation: str
    metric: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One question with its rows. `expected` says what theory expects and by which rule it counts as so.

    `notes` are sentences made from the numbers. Without anything expected the finding is `described`.
    """

    name: str
    title: str
    expected: str
    how: Method
    verdict: str
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self, seed: int) -> list[dict[str, Any]]:
        """One JSON object a row, each with everything that a number needs; one without numbers where there are none."""
        shared = {
            "finding": self.name,
            "expected": self.expected,
            "verdict": self.verdict,
            "method": self.how.method,
            "ablation": self.how.ablation,
            "metric": self.how.metric,
            "seed": seed,
        }
        rows = [row.to_json() for row in self.rows] or [{"row": " ".join(self.notes), "value": None, "n": 0}]
        return [shared | row for row in rows]


def judge(holds: bool) -> str:
    """Verdict on something that was expected."""
    return AS_EXPECTED if holds else NOT_SO


def make_row(name: str, found: Estimate, counted: str, unit: str) -> Row:
    """Row of a mean with its interval."""
    return Row(name, found.value, found.n, counted, unit, found.low, found.high)


def format_number(value: float | None) -> str:
    """A number as it stands in a table; a count stays whole."""
    if value is None or math.isnan(value):
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def format_interval(row: Row) -> str:
    """A number with its interval."""
    bounds = "" if row.low is None else f" [{format_number(row.low)}, {format_number(row.high)}]"
    return f"{format_number(row.value)}{bounds}"


def list_names(names: Sequence[str], most: int = 12) -> str:
    """Names in a sentence: `none` where there are none, the rest counted where there are many."""
    if not names:
        return "none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
