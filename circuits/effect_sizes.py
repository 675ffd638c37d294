"""How far apart two groups of numbers lie: Cliff's delta and Hedges' g.

delta   Cliff 1993: P(first > second) - P(first < second) over all pairs, from -1 to 1; it needs no shape of the
        distributions, and no pair counts twice. In words by Romano et al. 2006: below 0.147 in size negligible, 0.33
        small, 0.474 medium, else large.
g       Hedges 1981: difference of the means over the pooled standard deviation, times 1 - 3 / (4 n - 9) for small
        groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

WORDS = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))


@dataclass(frozen=True, slots=True)
class Contrast:
    """Cliff's delta of `first` numbers against `second`, with an interval where resamples were given, and Hedges' g.

    `g` is None where it is not defined: fewer than two numbers a group, or no spread at all.
    """

    delta: float
    low: float | None
    high: float | None
    g: float | None
    first: int
    second: int

    @property
    def word(self) -> str:
        """How large the delta is called."""
        return next((word for bound, word in WORDS if abs(self.delta) < bound), "large")


def measure_delta(first: Float[np.ndarray, " one"], second: Float[np.ndarray, " other"]) -> float:
    """Cliff's delta; numbers that are none are left out. Not a number where a group is then empty."""
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    if not first.size or not second.size:
        return float("nan")
    return float(np.sign(first[:, None] - second[None]).mean())


def measure_g(first: Float[np.ndarray, " one"], second: Float[np.ndarray, " other"]) -> float | None:
    """Hedges' g; numbers that are none are left out."""
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    freedom = first.size + second.size - 2
    if min(first.size, second.size) < 2:
        return None
    pooled = ((first.size - 1) * first.var(ddof=1) + (second.size - 1) * second.var(ddof=1)) / freedom
    if pooled <= 0:
        return None
    return float((first.mean() - second.mean()) / np.sqrt(pooled) * (1 - 3 / (4 * (freedom + 2) - 9)))


def contrast(
    first: Float[np.ndarray, " one"],
    second: Float[np.ndarray, " other"],
    first_draws: Float[np.ndarray, "resample one"],
    second_draws: Float[np.ndarray, "resample other"],
) -> Contrast:
    """Both effect sizes; delta's interval is 1.96 standard deviations over resamples that both groups share."""
    draws = np.array([measure_delta(a, b) for a, b in zip(first_draws, second_draws, strict=True)])
    draws = draws[~np.isnan(draws)]
    delta, reach = measure_delta(first, second), 1.96 * float(draws.std()) if draws.size else None
    low, high = (None, None) if reach is None else (max(-1.0, delta - reach), min(1.0, delta + reach))
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    return Contrast(delta, low, high, measure_g(first, second), first.size, second.size)
