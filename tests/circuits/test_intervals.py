"""The bootstrap interval of a mean against the normal one, which it comes to for many values."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.intervals import draw_places, estimate_mean


def test_the_interval_holds_the_middle_95_percent_of_the_means_resamples() -> None:
    """Ends 1.96 standard errors from the mean; the average over samples keeps the resamples' own noise small."""
    reach = []
    for seed in range(40):
        values = np.random.default_rng(seed).normal(3.0, 2.0, size=400)
        found, error = estimate_mean(values, seed), values.std() / 20
        assert found.value == pytest.approx(values.mean()) and found.n == 400
        assert found.interval == [found.low, found.high]
        reach.append([(found.value - found.low) / error, (found.high - found.value) / error])
    assert np.mean(reach, axis=0) == pytest.approx([1.96, 1.96], abs=0.06)


def test_resamples_take_every_place_and_equal_seeds_the_same() -> None:
    places = draw_places(5, 0, resamples=300)
    assert places.shape == (300, 5) and set(places.ravel().tolist()) == set(range(5))
    assert np.array_equal(places, draw_places(5, 0, resamples=300))
    assert estimate_mean([2.0], 0).interval == [2.0, 2.0]
