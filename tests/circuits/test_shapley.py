"""Shapley values and interactions of games worked out on paper, and their laws on random ones."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.shapley import list_coalitions, measure_interactions, share_value, weigh_coalitions


def test_either_of_two_suffices() -> None:
    """Redundancy: both get half, and the interaction is minus the whole."""
    values = np.array([0.0, 1.0, 1.0, 1.0])
    assert share_value(values) == pytest.approx([0.5, 0.5])
    assert measure_interactions(values)[0, 1] == pytest.approx(-1.0)


def test_both_are_needed() -> None:
    """Synergy: both get half, and the interaction is the whole; a third that does nothing gets nothing."""
    values = list_coalitions(3)[:, :2].all(axis=1).astype(float)
    assert share_value(values) == pytest.approx([0.5, 0.5, 0.0])
    found = measure_interactions(values)
    assert found[0, 1] == pytest.approx(1.0)
    assert found[2] == pytest.approx(0.0)


def test_unanimity_of_three() -> None:
    """Three who are all needed share alike; any two of them interact by one half (Grabisch and Roubens)."""
    values = list_coalitions(3).all(axis=1).astype(float)
    assert share_value(values) == pytest.approx([1 / 3] * 3)
    assert measure_interactions(values)[0, 1] == pytest.approx(0.5)


@pytest.mark.parametrize("players", [1, 2, 4, 6])
def test_values_add_up_for_every_fact(players: int) -> None:
    """Random games: shares sum to all minus none, additive games give each player its own, weights sum to 1."""
    generator = np.random.default_rng(players)
    values = generator.normal(size=(2**players, 5))
    assert share_value(values).sum(axis=0) == pytest.approx(values[-1] - values[0], abs=1e-12)
    own = generator.normal(size=players)
    assert share_value(list_coalitions(players) @ own) == pytest.approx(own)
    assert weigh_coalitions(players, 0).sum() == pytest.approx(1.0)


def test_nobody_plays() -> None:
    """Without players there is nothing to share."""
    assert share_value(np.array([2.5])).shape == (0,)
