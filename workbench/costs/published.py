"""A paper's figure beside ours: one row a claim, and whether they agree to the digits that were published."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["exact", "direction", "inferred"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure. `published` is kept as printed, so that its digits count; `ours` is computed here.

    `exact`: follows from the paper alone. `inferred`: needs a configuration that the paper does not give. `note` says
    what a reader should know, such as why the two differ.
    """

    name: str
    published: str
    ours: float
    unit: str
    kind: Kind
    source: str
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether ours, rounded to the digits that were printed, is what was printed."""
        return abs(float(self.published) - self.ours) <= self.margin

    @property
    def margin(self) -> float:
        """Half a unit of the last printed digit; trailing zeros of a whole number may be rounding."""
        number = self.published.lower().partition("e")
        exponent = int(number[2] or 0)
        digits = number[0].lstrip("-")
        if "." in digits:
            return float(0.5 * 10.0 ** (exponent - len(digits.partition(".")[2])))
        zeros = len(digits) - len(digits.rstrip("0"))
        return float(0.5 * 10.0 ** (exponent + zeros))

    def to_json(self) -> dict[str, Any]:
        """Row {name, published, ours, unit, kind, source, note, ok}."""
        return {**asdict(self), "published": float(self.published), "ok": self.ok}


def list_notes(claims: list[Claim]) -> list[str]:
    """Every distinct note, in the order of the claims."""
    return list(dict.fromkeys(claim.note for claim in claims if claim.note))


def render_claims(claims: list[Claim]) -> str:
    """A Markdown table of claims, with their notes below."""
    notes = list_notes(claims)
    lines = ["| figure | published | ours | unit | kind | source | agrees |", "|---|---|---|---|---|---|---|"]
    for claim in claims:
        mark = f" ({notes.index(claim.note) + 1})" if claim.note else ""
        agrees = "yes" if claim.ok else "**no**"
        cells = (claim.name, claim.published, format_number(claim.ours), claim.unit, claim.kind, claim.source)
        lines.append(f"| {' | '.join(cells)} | {agrees}{mark} |")
    return "\n".join([*lines, *(f"\n({number}) {note}" for number, note in enumerate(notes, 1))])


def format_number(value: float) -> str:
    """Whole numbers whole, others with six significant digits."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"
