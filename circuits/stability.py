"""Which edges do not depend on which pairs were asked: bootstrap over prompt pairs.

Each resample draws as many pairs as there are, with replacement; the edges are ranked by the absolute value of their
mean score over the draw. An edge is stable in a resample when it is among the strongest and keeps its sign. Idea:
bootstrap-consistent edges, arXiv 2510.25786; the rule is ours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from circuits.graph import Wiring


def draw_weights(pairs: int, resamples: int, seed: int) -> Float[np.ndarray, "resample pair"]:
    """How often each pair is drawn, as a share of the draw: every row adds up to 1."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(pairs, np.full(pairs, 1 / pairs), size=resamples) / pairs


def count_stable(
    pairs: Float[np.ndarray, "pair pos writer reader"], wiring: Wiring, count: int, resamples: int, seed: int
) -> Float[np.ndarray, "pos writer reader"]:
    """Share of resamples in which an edge is among the `count` strongest and has the sign of its mean over all pairs.

    Edges that do not exist have share 0.
    """
    visible = np.broadcast_to(wiring.visible, pairs.shape[1:]).ravel()
    scores = pairs.reshape(len(pairs), -1)[:, visible].astype(np.float64)
    sign = np.sign(scores.mean(axis=0))
    held = np.zeros(scores.shape[1])
    for weights in draw_weights(len(pairs), resamples, seed):
        mean = weights @ scores
        strongest = np.argsort(-np.abs(mean), kind="stable")[:count]
        held[strongest] += np.sign(mean[strongest]) == sign[strongest]
    shares = np.zeros(visible.shape)
    shares[visible] = held / resamples
    return shares.reshape(pairs.shape[1:])
