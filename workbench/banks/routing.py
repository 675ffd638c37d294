"""Greedy routing of texts down a tree of clusters: the nearest of the children, level by level.

Source: Pouransari et al. 2025, section 2.1: `branching x depth` comparisons by squared distance. Cluster ids are flat
along each level, so that the cluster of level l is `deepest // branching ** (depth - l)`. A router may move vectors
before it compares them (`whitening`, the shipped model's departure from the paper).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from probes.bank_format import ROUTER
from probes.errors import UserError

Vectors = NDArray[np.float32]
Paths = NDArray[np.int64]

# Texts routed at a time: the centroids of their children are gathered, and must fit in memory.
ROWS = 4096


@dataclass(frozen=True, slots=True)
class Router:
    """Centroids of each level, [branching ** level, width], of length 1, and how vectors are moved before.

    `mean` [width] and `transform` [width, width] are None where vectors are compared as they are.
    """

    centroids: tuple[Vectors, ...]
    branching: int
    mean: Vectors | None = None
    transform: Vectors | None = None

    @property
    def depth(self) -> int:
        """Number of levels."""
        return len(self.centroids)

    def prepare(self, vectors: Vectors) -> Vectors:
        """Vectors as they are compared. Raises UserError for another width than the centroids'."""
        if vectors.shape[1] != self.centroids[0].shape[1]:
            raise UserError(
                f"the router compares vectors of width {self.centroids[0].shape[1]} and the encoder gives "
                f"{vectors.shape[1]}: use the encoder that it was made with"
            )
        if self.mean is None or self.transform is None:
            return vectors
        moved = (vectors - self.mean) @ self.transform
        return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9), dtype=np.float32)

    def route(self, vectors: Vectors, blocked: Paths | None = None) -> Paths:
        """Flat cluster ids from the root down, [text, level].

        `blocked` [text] names for each text the cluster of level 1 that it may not enter: it takes the next best.
        """
        prepared = self.prepare(vectors)
        pieces = [
            self._descend(prepared[start : start + ROWS], None if blocked is None else blocked[start : start + ROWS])
            for start in range(0, len(prepared), ROWS)
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, self.depth), dtype=np.int64)

    def _descend(self, vectors: Vectors, blocked: Paths | None) -> Paths:
        paths = np.zeros((len(vectors), self.depth), dtype=np.int64)
        rows, parent = np.arange(len(vectors)), np.zeros(len(vectors), dtype=np.int64)
        for level in range(self.depth):
            distances = self.compare(vectors, level, parent)
            if level == 0 and blocked is not None:
                distances[rows, blocked] = np.inf
            parent = parent * self.branching + distances.argmin(axis=1)
            paths[:, level] = parent
        return paths

    def compare(self, vectors: Vectors, level: int, parent: Paths) -> Vectors:
        """Squared distances less the vector's own square [text, branching] to the children of each text's cluster.

        The only place where vectors meet centroids: `branching` comparisons a text and level.
        """
        children = self.centroids[level].reshape(-1, self.branching, vectors.shape[1])
        if level == 0:
            return measure_distances(vectors, children[0])
        distances = np.empty((len(vectors), self.branching), dtype=np.float32)
        # Texts in one cluster are compared together: one product a cluster, however many texts.
        order = np.argsort(parent, kind="stable")
        starts = np.flatnonzero(np.diff(parent[order], prepend=-1))
        for own in np.split(order, starts[1:]):
            distances[own] = measure_distances(vectors[own], children[parent[own[0]]])
        return distances


def measure_distances(vectors: Vectors, centroids: Vectors) -> Vectors:
    """Squared distances [text, centroid], less the text's own square, which is the same for all centroids."""
    squares = np.einsum("cw,cw->c", centroids, centroids)
    return np.asarray(squares - 2 * (vectors @ centroids.T), dtype=np.float32)


def load_router(folder: Path, branching: int, depth: int) -> Router:
    """Router in a bank's or tree's folder. Raises UserError when there is none, or it does not fit the levels."""
    path = folder / ROUTER
    if depth < 1:
        raise UserError(f"{folder} has a router of {depth} levels: there is nothing to route to")
    try:
        tensors = load_file(path)
        centroids = tuple(tensors[f"level{level}.centroids"] for level in range(1, depth + 1))
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {ROUTER}: prompts cannot be routed there, choose --reading generic or none"
        ) from None
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error})") from None
    for level, level_centroids in enumerate(centroids, start=1):
        if level_centroids.ndim != 2 or len(level_centroids) != branching**level:
            raise UserError(
                f"{path}: level {level} has shape {level_centroids.shape}, not {branching**level} centroids"
            )
    mean, transform = (tensors.get(f"whitening.{name}") for name in ("mean", "transform"))
    check_widths(path, centroids, mean, transform)
    return Router(centroids, branching, mean, transform)


def check_widths(path: Path, centroids: Sequence[Vectors], mean: Vectors | None, transform: Vectors | None) -> None:
    """Raise UserError unless all tensors of a router are finite floats and meet vectors of one width."""
    width = {level.shape[1] for level in centroids}
    if mean is not None and transform is not None:
        width |= {transform.shape[1] if transform.ndim == 2 else -1}
        if mean.ndim != 1 or transform.shape[:1] != mean.shape:
            raise UserError(f"{path}: its whitening has shapes {mean.shape} and {transform.shape}")
    if len(width) != 1:
        raise UserError(f"{path}: its centroids have widths {sorted(width)}, and texts have one")
    for array in (*centroids, mean, transform):
        if array is not None and not (array.dtype.kind == "f" and np.isfinite(array).all()):
            raise UserError(f"{path} holds {array.dtype} numbers that are not all finite floats")


def list_tensors(router: Router) -> Mapping[str, Vectors]:
    """Tensors of a router, as they lie in its file."""
    tensors = {f"level{level}.centroids": centroids for level, centroids in enumerate(router.centroids, start=1)}
    if router.mean is not None and router.transform is not None:
        tensors |= {"whitening.mean": router.mean, "whitening.transform": router.transform}
    return tensors
