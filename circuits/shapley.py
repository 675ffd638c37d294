"""Shapley values and pairwise interactions of a game whose every coalition was measured.

A coalition of n players is a number below 2^n: bit i says whether player i is on. Values of coalitions stand on the
first axis, further axes (facts) are carried along.

Sources: Shapley (1953), `phi_i = sum over S without i of |S|! (n-|S|-1)! / n! . [v(S+i) - v(S)]`; Grabisch and Roubens
(1999) for the interaction of two, `sum over S without i, j of |S|! (n-|S|-2)! / (n-1)! . [v(S+ij) - v(S+i) - v(S+j) +
v(S)]`. The values add up to `v(all) - v(none)`. An interaction below 0 is redundancy (each is worth less beside the
other), above 0 synergy.
"""

from __future__ import annotations

from math import factorial

import numpy as np
from jaxtyping import Bool, Float


def list_coalitions(players: int) -> Bool[np.ndarray, "coalition player"]:
    """Who is on in each coalition, in the order of their numbers."""
    return (np.arange(2**players)[:, None] >> np.arange(players)[None, :] & 1).astype(bool)


def count_players(values: Float[np.ndarray, "coalition ..."]) -> int:
    """Number of players of a table of all coalitions."""
    players = int(values.shape[0]).bit_length() - 1
    assert values.shape[0] == 2**players
    return players


def weigh_coalitions(players: int, player: int) -> Float[np.ndarray, " coalition"]:
    """Shapley's weight of every coalition without the player, 0 for those with it; they sum to 1."""
    on = list_coalitions(players)
    sizes = on.sum(axis=1)
    weights = np.array([factorial(size) * factorial(max(players - size - 1, 0)) for size in sizes], dtype=np.float64)
    return np.where(on[:, player], 0.0, weights / factorial(players))


def share_value(values: Float[np.ndarray, "coalition ..."]) -> Float[np.ndarray, "player ..."]:
    """Shapley value of every player; over the players they sum to the last value minus the first."""
    players, numbers = count_players(values), np.arange(values.shape[0])
    shares = np.zeros((players, *values.shape[1:]))
    for player in range(players):
        without = numbers[~list_coalitions(players)[:, player]]
        gains = values[without | 1 << player].astype(np.float64) - values[without]
        shares[player] = np.tensordot(weigh_coalitions(players, player)[without], gains, axes=1)
    return shares


def measure_interactions(values: Float[np.ndarray, "coalition ..."]) -> Float[np.ndarray, "player player ..."]:
    """Shapley interaction of every two players, symmetric, 0 on the diagonal."""
    players, numbers = count_players(values), np.arange(values.shape[0])
    found = np.zeros((players, players, *values.shape[1:]))
    wide = values.astype(np.float64)
    for first in range(players):
        for second in range(first):
            one, two = 1 << first, 1 << second
            rest = numbers[numbers & (one | two) == 0]
            sizes = [int(number).bit_count() for number in rest]
            weights = np.array([factorial(size) * factorial(players - size - 2) for size in sizes], dtype=np.float64)
            gains = wide[rest | one | two] - wide[rest | one] - wide[rest | two] + wide[rest]
            found[first, second] = np.tensordot(weights / factorial(players - 1), gains, axes=1)
            found[second, first] = found[first, second]
    return found
