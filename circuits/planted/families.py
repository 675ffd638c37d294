"""The table of planted circuits: what each is, and what of it no score of single edges can show.

No torch here, so that commands can list it; the functions that plant them stand in `circuits/planted/planting.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of circuit. `limit` says why ablating single edges cannot show all of it, where that is so."""

    name: str
    label: str
    explanation: str
    limit: str = ""


_RECORDS = (
    Family(
        "unit",
        "fact in an FFN unit",
        "At the subject one unit of layer 0 knows the answer; a head of layer 1 carries it to the end.",
    ),
    Family(
        "bank",
        "fact in a bank block",
        "The same, but the unit lies in a block of the bank, beside a block of another level.",
    ),
    Family(
        "explicit",
        "fact in explicit memory",
        "A head of layer 0 carries the subject to the end; there one head of layer 1 finds it among the keys of an "
        "explicit memory and reads the answer.",
    ),
    Family(
        "two-hop",
        "two-hop fact",
        "A unit knows the subject's mother, a head carries her to the end, a unit there knows where she lives.",
    ),
    Family(
        "induction",
        "induction pair",
        "A head tells each word which stood before it; a second head looks for the word that followed the present one "
        "before. The pair of prompts changes its query, its key and its value.",
    ),
    Family(
        "redundancy",
        "two redundant paths",
        "Two heads carry the same to the end, where an MLP writes the answer when either has.",
        "either path alone suffices, so ablating one edge of one path changes nothing: four of the five edges have no "
        "effect of their own",
    ),
    Family(
        "cancellation",
        "path that cancels another",
        "What one head carries makes an MLP write the answer and a later MLP write as much against it; a second head "
        "brings the answer by itself.",
        "what both paths share has no effect, because they cancel: one of the seven edges, the one into the head's "
        "value",
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _RECORDS}
