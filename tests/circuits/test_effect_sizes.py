"""Effect sizes against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.effect_sizes import contrast, measure_delta, measure_g


def test_delta_counts_pairs() -> None:
    """Of six pairs four are larger, one is equal, one smaller; what is no number is left out."""
    first, second = np.array([3.0, 2.0, np.nan]), np.array([0.0, 2.0, 2.5])
    assert measure_delta(first, second) == pytest.approx((4 - 1) / 6)
    assert measure_delta(second, first) == pytest.approx(-3 / 6)
    assert np.isnan(measure_delta(first, np.array([np.nan])))


def test_g_is_the_small_sample_form() -> None:
    """Means one standard deviation apart, corrected for four numbers; undefined without spread."""
    found = measure_g(np.array([1.0, 3.0]), np.array([1.0 - 2**0.5, 3.0 - 2**0.5]))
    assert found == pytest.approx(1 - 3 / (4 * 4 - 9))
    # Groups of unequal size: (2 * 7/3 + 1 * 1/2) / 3 is the pooled variance.
    uneven = measure_g(np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0]))
    assert uneven == pytest.approx((7 / 3 - 1 / 2) / (31 / 18) ** 0.5 * (1 - 3 / (4 * 5 - 9)))
    assert measure_g(np.ones(3), np.zeros(3)) is None
    assert measure_g(np.ones(1), np.zeros(3)) is None


def test_an_interval_is_of_both_groups_together() -> None:
    """Resamples in which a group is empty say nothing."""
    draws = np.array([[1.0, 1.0, np.nan], [0.0, 0.0, np.nan], [np.nan] * 3])
    found = contrast(np.array([0.9, 0.8, np.nan]), np.array([0.1]), draws, np.full((3, 1), 0.5))
    # The deltas of two resamples are 1 and -1, so their standard deviation is 1.
    assert (found.delta, found.low, found.high, found.word) == (1.0, pytest.approx(-0.96), 1.0, "large")
    assert (found.first, found.second) == (2, 1)
