"""What a paper found, and whether a small model that was measured shows the same: one row a comparison, as found.

Rows come from the files that lie beside the shipped model: `evaluation.json` (`memory-circuits demo evaluate --card`,
with the rows of `demo experiments`) and `heads.json` (`make docs`). No row is chosen by its outcome: one that goes
against the paper is `ok: false`, one whose measurement is missing is not listed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from probes.descriptions import hash_file
from probes.errors import UserError

Relation = Literal["above", "alike"]
EVALUATION, HEADS = "evaluation.json", "heads.json"
# Two accuracies that a paper finds alike: ours are called so within this many points.
ALIKE = 5.0


@dataclass(frozen=True, slots=True)
class Direction:
    """One comparison: the difference as we measured it, its 95% interval, and the sign that the paper found.

    `above`: it should be greater than nothing, and counts as shown where the whole interval is. `alike`: there should
    be none, and it counts as shown within `ALIKE` points. `n` is what stands in `of`: questions of each side, seeds or
    heads; of seeds, `low` and `high` are the smallest and the largest difference of a seed.
    """

    name: str
    published: str
    relation: Relation
    ours: float
    low: float
    high: float
    n: int
    of: str
    source: str
    unit: str = "points"
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether ours has the paper's direction."""
        return self.low > 0 if self.relation == "above" else abs(self.ours) <= ALIKE

    def to_json(self) -> dict[str, Any]:
        """Row {name, published, ours, unit, kind, ok, low, high, n, of, source, note, relation}."""
        return {**asdict(self), "kind": "direction", "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Share:
    """A share of right answers among `n` questions."""

    value: float
    n: int


def subtract(plus: Sequence[Share], minus: Sequence[Share]) -> tuple[float, float, float]:
    """Sum of shares less sum of others, in points, with the normal 95% interval of independent samples.

    Where both sides were asked the same questions the true interval is narrower.
    """
    value = 100 * (sum(share.value for share in plus) - sum(share.value for share in minus))
    variance = sum(share.value * (1 - share.value) / share.n for share in (*plus, *minus))
    margin = 196 * math.sqrt(variance)
    return round(value, 2), round(value - margin, 2), round(value + margin, 2)


class Evaluation:
    """The rows of a demo's evaluation, found by what they say."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows

    def find(
        self, experiment: str, condition: str, bucket: int | None = None, paraphrase: str | None = "seen"
    ) -> Share:
        """One share. Raises `LookupError` where it was not measured."""
        wanted = {"experiment": experiment, "condition": condition, "bucket": bucket, "paraphrase": paraphrase}
        for row in self.rows:
            if all(value is None or row[key] == value for key, value in wanted.items()):
                return Share(float(row["accuracy"]), int(row["n"]))
        raise LookupError(f"no row {wanted}")

    def list_values(self, column: str, experiment: str) -> list[Any]:
        """Distinct values of a column among the rows whose experiment begins so, in order of appearance."""
        own = [row for row in self.rows if str(row["experiment"]).startswith(experiment)]
        return list(dict.fromkeys(row[column] for row in own))

    def compare(
        self,
        name: str,
        published: str,
        relation: Relation,
        source: str,
        *,
        plus: Sequence[Share],
        minus: Sequence[Share],
        note: str = "",
    ) -> Direction:
        """A direction from the shares of both sides."""
        value, low, high = subtract(plus, minus)
        n = min(share.n for share in (*plus, *minus))
        return Direction(name, published, relation, value, low, high, n, "questions", source, note=note)


def list_measured(listing: Sequence[Callable[[], Direction]]) -> list[Direction]:
    """The directions whose measurements are there."""
    found = []
    for make in listing:
        try:
            found.append(make())
        except LookupError:
            continue
    return found


def read_evaluation(folder: Path) -> Evaluation:
    """Rows of a demo's folder, none where it was not evaluated. Raises `UserError` for a damaged file."""
    path = folder / EVALUATION
    if not path.is_file():
        return Evaluation([])
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not all({"experiment", "condition", "bucket", "paraphrase", "accuracy", "n"} <= row.keys() for row in rows):
            raise ValueError("a row lacks a column")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} holds no evaluation ({error}): make it with `memory-circuits demo evaluate`") from None
    return Evaluation(rows)


def hash_weights(folder: Path) -> str:
    """Hash of a demo model's weights."""
    return hash_file(folder / "model" / "model.safetensors")


def read_heads(folder: Path) -> list[dict[str, Any]]:
    """Comparisons of finders of heads that were kept; none where there are none or they are of other weights."""
    path = folder / HEADS
    if not path.is_file():
        return []
    about = json.loads(path.read_text(encoding="utf-8"))
    return list(about["comparisons"]) if about["weights_sha256"] == hash_weights(folder) else []


def render_directions(directions: Sequence[Direction]) -> str:
    """A Markdown table of directions, with their notes below."""
    notes = list(dict.fromkeys(direction.note for direction in directions if direction.note))
    lines = ["| direction | published | ours | 95% | unit | n | source | shown |", "|---|---|---|---|---|---|---|---|"]
    for one in directions:
        mark = f" ({notes.index(one.note) + 1})" if one.note else ""
        shown = "yes" if one.ok else "**no**"
        cells = (one.name, one.published, f"{one.ours:+g}", f"{one.low:+g} to {one.high:+g}", one.unit)
        lines.append(f"| {' | '.join(cells)} | {one.n} {one.of} | {one.source} | {shown}{mark} |")
    return "\n".join([*lines, *(f"\n({number}) {note}" for number, note in enumerate(notes, 1))])
