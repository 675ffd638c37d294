"""Means with a bootstrap interval: what a number over facts, prompts or texts is reported with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` values, with the percentiles 2.5 and 97.5 of its bootstrap resamples."""

    value: float
    n: int
    low: float
    high: float

    @property
    def interval(self) -> list[float]:
        """Both ends, as they stand in a JSON row."""
        return [self.low, self.high]


def draw_places(count: int, seed: int | np.random.Generator, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Which of `count` values each resample takes, with replacement, [resample place]."""
    return np.random.default_rng(seed).integers(count, size=(resamples, count))


def estimate_mean(values: Sequence[float] | NDArray[np.float64], seed: int | np.random.Generator) -> Estimate:
    """Mean of values that were drawn independently. Needs one value or more; a generator goes on where it is."""
    array = np.asarray(values, dtype=np.float64)
    means = array[draw_places(len(array), seed)].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(array.mean()), len(array), float(low), float(high))
