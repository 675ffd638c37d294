"""How much of a reference a text already holds: the windowed longest common subsequence of Memory^3's filter.

Source: Yang et al. 2024, equation 6 and section 4.4 (evaluation drops references above 2/3).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def measure_overlap(text: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """Length of the longest common subsequence whose items lie at most `2 |reference|` apart in the text, over
    `|reference|`: 0 nothing in common, 1 the whole reference is there in order. 0 for an empty reference.
    """
    if not reference:
        return 0.0
    places = list_places(reference)
    span = 2 * len(reference) + 1
    starts = range(max(1, len(text) - span + 1))
    return max(count_common(text[start : start + span], places, len(reference)) for start in starts) / len(reference)


def holds_reference(text: Sequence[Hashable], reference: Sequence[Hashable], share: float) -> bool:
    """Whether the overlap is above `share`; quick where the whole text, without windows, has too little in common."""
    places = list_places(reference)
    if share >= 1 or count_common(text, places, len(reference)) <= share * len(reference):
        return False
    return measure_overlap(text, reference) > share


def list_places(reference: Sequence[Hashable]) -> dict[Hashable, int]:
    """For each item of a reference the bits where it stands."""
    places: dict[Hashable, int] = {}
    for place, item in enumerate(reference):
        places[item] = places.get(item, 0) | 1 << place
    return places


def count_common(text: Sequence[Hashable], places: dict[Hashable, int], length: int) -> int:
    """Length of the longest common subsequence, a bit an item of the reference (Hyyrö 2004).

    `places` has for each item of the reference the bits where it stands.
    """
    whole = (1 << length) - 1
    open_bits = whole
    for item in text:
        matched = open_bits & places.get(item, 0)
        open_bits = ((open_bits + matched) | (open_bits - matched)) & whole
    return length - open_bits.bit_count()
