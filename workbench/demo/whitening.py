"""Within-topic whitening of sentence embeddings: our declared departure from the paper's plain router.

A short question is nearer to other questions of the same wording than to the document that answers it. Directions
along which texts about one entity differ (wording, relation) are shrunk; those that tell entities apart remain. It uses
the corpus's entity labels, which a web corpus does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.demo.clusters import Vectors


@dataclass(frozen=True, slots=True)
class Whitening:
    """`(x - mean) @ transform`, then length 1: mean `[width]`, transform `[width, width]`."""

    mean: NDArray[np.float32]
    transform: NDArray[np.float32]

    def apply(self, vectors: Vectors) -> Vectors:
        """Whitened vectors of length 1, `[text, width]`."""
        moved = (vectors - self.mean) @ self.transform
        scaled: Vectors = (moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)).astype(np.float32)
        return scaled


def fit_whitening(vectors: Vectors, labels: Sequence[str], shrinkage: float) -> Whitening:
    """Fit on texts labelled by what they are about; `shrinkage` adds that share of the mean variance everywhere."""
    names = {name: number for number, name in enumerate(dict.fromkeys(labels))}
    number = np.array([names[label] for label in labels])
    sums = np.zeros((len(names), vectors.shape[1]))
    np.add.at(sums, number, vectors)
    means = sums / np.bincount(number)[:, None]
    within = np.cov((vectors - means[number]).T)
    width = vectors.shape[1]
    smooth = within + (shrinkage * np.trace(within) / width + 1e-9) * np.eye(width)
    values, directions = np.linalg.eigh(smooth)
    transform = (directions * values**-0.5) @ directions.T
    # An overall scale changes nothing after normalising; this one keeps the numbers of ordinary size.
    transform /= np.sqrt(np.mean(transform**2) * width)
    return Whitening(means.mean(0).astype(np.float32), transform.astype(np.float32))
