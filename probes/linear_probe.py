"""Linear probes with control tasks: from which layer on something can be read off the stream by a linear map.

A logistic regression on the standardised stream predicts a label. A probe that is strong enough can learn any labels by
heart, so it is held against a *control task* (Hewitt and Liang 2019, arXiv 1909.03368): every type (here the fact) gets
a label drawn at random with the frequencies of the true ones. *Selectivity* is accuracy less accuracy on the control.
As there, types of the test may be types of the training (folds part the wordings of a fact): then a control of 1 says
that facts can be told apart, and no more. Where folds part the facts, the control falls to chance, and accuracy says
that a label is read off facts that the probe never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from probes.errors import UserError

CONTROLS = 3


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """Accuracy of the probe and of its control (mean over draws), and the difference; `majority` guesses one label."""

    accuracy: float
    control: float
    selectivity: float
    majority: float
    labels: int
    items: int


def draw_control(types: Sequence[str], labels: Sequence[str], generator: np.random.Generator) -> list[str]:
    """A label for every type, drawn with the frequencies of the labels of types, and given to all items of the type."""
    label_of = dict(zip(types, labels, strict=True))
    drawn = generator.choice(list(label_of.values()), size=len(label_of))
    control = dict(zip(label_of, map(str, drawn), strict=True))
    return [control[name] for name in types]


def fit(
    train: Float[np.ndarray, "item width"],
    labels: NDArray[Any],
    test: Float[np.ndarray, "item2 width"],
    strength: float,
) -> NDArray[Any]:
    """Labels that a regularised logistic regression predicts for the test."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise UserError("linear probes need scikit-learn: pip install 'memory-circuits[probes]'") from None
    if len(set(labels.tolist())) == 1:
        return np.repeat(labels[:1], len(test))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    found: NDArray[Any] = probe.fit(train, labels).predict(test)
    return found


def measure_accuracy(
    features: Float[np.ndarray, "item width"], labels: Sequence[str], folds: Sequence[int], strength: float
) -> float:
    """Share of items whose label is predicted when their fold is left out of the training."""
    wanted, places = np.array(labels), np.array(folds)
    hits = 0
    for fold in sorted(set(folds)):
        out = places == fold
        hits += int((fit(features[~out], wanted[~out], features[out], strength) == wanted[out]).sum())
    return hits / len(wanted)


def probe_labels(
    features: Float[np.ndarray, "item width"],
    labels: Sequence[str],
    types: Sequence[str],
    folds: Sequence[int],
    seed: int,
    strength: float = 1.0,
) -> ProbeScore:
    """Probe and control on the same items and folds.

    Raises UserError when all labels are one, or all folds: there is nothing to tell, or nothing left to train on.
    """
    if len(set(labels)) < 2:
        raise UserError(f"a probe needs two labels or more, and all {len(labels)} items have the same one")
    if len(set(folds)) < 2:
        raise UserError("a probe is tested on what it was not trained on: give two wordings of a fact or two facts")
    generator = np.random.default_rng(seed)
    accuracy = measure_accuracy(features, labels, folds, strength)
    draws = [
        measure_accuracy(features, draw_control(types, labels, generator), folds, strength) for _ in range(CONTROLS)
    ]
    control = float(np.mean(draws))
    counts = np.unique(np.array(labels), return_counts=True)[1]
    majority = float(counts.max() / counts.sum())
    return ProbeScore(accuracy, control, accuracy - control, majority, len(counts), len(labels))
