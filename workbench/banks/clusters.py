"""Nested clusters of vectors: k-means again and again inside each cluster, held in balance while it is fitted.

Source: Pouransari et al. 2025, section 2.1 and appendix C: k-means++ start, 20 steps of expectation and maximisation on
6,400 samples each, vectors and centroids of length 1. A cluster that takes more than 1.5 / k of a step's samples is
split evenly at random with the smallest one, in fitting alone; afterwards every vector goes to its nearest centroid.
The k-means itself is scikit-learn's, one step at a time; what stands here is the sampling, the split and the nesting.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import UserError
from probes.progress import Tick, quiet
from workbench.banks.routing import Router, Vectors, measure_distances

STEPS, SAMPLES, BALANCE = 20, 6_400, 1.5


@dataclass(frozen=True, slots=True)
class Tree:
    """A fitted tree: its router, and how many vectors each cluster of each level took."""

    router: Router
    counts: tuple[NDArray[np.int64], ...]
    leaves: NDArray[np.int64]

    @property
    def empty(self) -> tuple[int, ...]:
        """Clusters of each level that no vector reached."""
        return tuple(int((count == 0).sum()) for count in self.counts)

    @property
    def largest_share(self) -> tuple[float, ...]:
        """Largest share that one child takes of its parent's vectors, by level, over parents of 100 vectors a child."""
        shares = []
        for count in self.counts:
            families = count.reshape(-1, self.router.branching)
            total = families.sum(axis=1)
            large = total >= 100 * self.router.branching
            shares.append(float((families[large].max(axis=1) / total[large]).max()) if large.any() else float("nan"))
        return tuple(shares)


def load_scikit() -> Any:
    """scikit-learn's clustering. Raises UserError naming the extra when it is not installed."""
    try:
        from sklearn import cluster
    except ImportError:
        raise UserError("clustering needs the extra: pip install 'memory-circuits[encoder]'") from None
    return cluster


def normalise(vectors: Vectors) -> Vectors:
    """Vectors of length 1."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), dtype=np.float32)


def balance_labels(
    labels: NDArray[np.int64], branching: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], bool]:
    """Labels with every oversize cluster split evenly at random with the smallest, and whether there was one."""
    labels, split = labels.copy(), False
    limit = BALANCE / branching * len(labels)
    for _ in range(branching):
        counts = np.bincount(labels, minlength=branching)
        large, small = int(counts.argmax()), int(counts.argmin())
        if counts[large] <= limit:
            break
        own = np.flatnonzero(labels == large)
        labels[own[generator.random(len(own)) < 0.5]] = small
        split = True
    return labels, split


def fit_children(vectors: Vectors, branching: int, generator: np.random.Generator) -> Vectors:
    """Centroids [branching, width] of one cluster's children."""
    scikit = load_scikit()
    whole = len(vectors) <= SAMPLES
    sample = vectors if whole else vectors[generator.integers(len(vectors), size=SAMPLES)]
    seed = int(generator.integers(2**31 - 1))
    centroids: Vectors = scikit.kmeans_plusplus(sample, branching, random_state=seed)[0]
    for step in range(STEPS):
        if not whole and step:
            sample = vectors[generator.integers(len(vectors), size=SAMPLES)]
        # Steps on one and the same sample are the library's own iterations; on fresh samples it makes one at a time.
        fitted = scikit.KMeans(branching, init=centroids, n_init=1, max_iter=STEPS if whole else 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Fewer different vectors than clusters: some stay empty, and are counted.
            labels = fitted.fit_predict(sample).astype(np.int64)
        labels, split = balance_labels(labels, branching, generator)
        centroids = normalise(average_members(sample, labels, fitted.cluster_centers_))
        if whole and not split:
            break
    return centroids


def average_members(vectors: Vectors, labels: NDArray[np.int64], otherwise: Vectors) -> Vectors:
    """Mean of each cluster's members; a cluster without any keeps the centroid it had."""
    members = np.eye(len(otherwise), dtype=np.float32)[labels]
    counts = members.sum(axis=0)
    means = members.T @ vectors / np.maximum(counts, 1.0)[:, None]
    kept: Vectors = np.where(counts[:, None] > 0, means, otherwise).astype(np.float32)
    return kept


def grow_tree(vectors: Vectors, branching: int = 16, depth: int = 4, seed: int = 0, tick: Tick = quiet) -> Tree:
    """Nested k-means of vectors, [vector, width], which are brought to length 1 first.

    A cluster with no more vectors than children is not split: its children repeat its centroid, the first of them takes
    all it has, and the others stay empty. Raises UserError where there is nothing to split, or not a tree to grow.
    """
    if branching < 2 or depth < 1 or branching**depth > 1 << 24:
        raise UserError(
            f"branching {branching} and depth {depth} make no tree: 2 or more, 1 or more, 16 million leaves"
        )
    if len(vectors) <= branching:
        raise UserError(
            f"{len(vectors)} windows of text cannot be split into {branching} clusters: give more documents"
        )
    if not np.isfinite(vectors).all():
        raise UserError("the encoder gave numbers that are not finite")
    vectors = normalise(vectors)
    members = [np.arange(len(vectors))]
    levels: list[Vectors] = []
    counts: list[NDArray[np.int64]] = []
    for level in range(depth):
        centroids, parts = [], []
        for number, own in enumerate(members):
            if number % 64 == 0:
                tick(f"level {level + 1} of {depth}", number, len(members))
            if len(own) <= branching:
                middle = levels[-1][number] if not len(own) else normalise(vectors[own].mean(axis=0))
                centroids.append(np.repeat(middle[None], branching, axis=0))
                parts += [own, *[own[:0]] * (branching - 1)]
                continue
            # A stream of random numbers a cluster: subtrees do not depend on one another.
            generator = np.random.default_rng((seed, level, number))
            held = vectors if level == 0 else vectors[own]
            fitted = fit_children(held, branching, generator)
            labels = measure_distances(held, fitted).argmin(axis=1)
            centroids.append(fitted)
            parts += [own[labels == child] for child in range(branching)]
        levels.append(np.concatenate(centroids))
        counts.append(np.array([len(part) for part in parts], dtype=np.int64))
        members = parts
    leaves = np.empty(len(vectors), dtype=np.int64)
    for leaf, own in enumerate(members):
        leaves[own] = leaf
    return Tree(Router(tuple(levels), branching), tuple(counts), leaves)
