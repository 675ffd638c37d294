"""Indexes of vectors by inner product: all compared, or the nearest of many lists, read from disk as they are needed.

Above `EXACT_LIMIT` vectors lie in lists, one around each of some `2 sqrt(n)` centroids (an inverted file), sorted by
list, so that a query reads a few stretches of a memory-mapped file and nothing else: opening a million costs nothing.
FAISS finds the centroids. Its own files are never written or read: they are parsed by C++ code that trusts them, and a
bank may come from a stranger. Ours are a plain .npy and safetensors, whose shapes and ranges are checked.
"""

from __future__ import annotations

import os
import tempfile
import tokenize
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from probes.errors import UserError
from probes.progress import Tick
from workbench.storage import lock, remove_leftovers, sync_folder, write_file

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
# What reading a damaged index raises; numpy takes an array's header for an expression of Python.
DAMAGED = (
    OSError, SafetensorError, KeyError, ValueError, EOFError, tokenize.TokenError, RecursionError, MemoryError
)  # fmt: skip
# Most vectors that are all compared with a query.
EXACT_LIMIT = 50_000
# Lists read for a query, vectors a centroid is fitted on, and rounds of fitting.
PROBES, FITTED, ROUNDS = 16, 32, 10
# Vectors given their list at a time.
BLOCK = 1 << 15


def load_faiss() -> Any:
    """The search library. Raises UserError naming the extra when it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
    except ImportError:
        raise UserError("searching needs the extra: pip install 'memory-circuits[retrieval]'") from None
    return faiss


def keep_best(scores: Vectors, count: int) -> Rows:
    """Places of the `count` largest scores, best first; equal ones in order."""
    places = np.sort(np.argpartition(scores, -count)[-count:]) if count < len(scores) else np.arange(len(scores))
    best: Rows = places[np.argsort(-scores[places], kind="stable")]
    return best


@dataclass(frozen=True, slots=True)
class ExactIndex:
    """Every vector [row width] is compared with the query."""

    vectors: Vectors = field(repr=False)

    def find(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """Rows of the vectors with the largest inner product with a query [width], best first, and these products."""
        scores = self.vectors @ query
        best = keep_best(scores, count)
        return best, scores[best]


@dataclass(frozen=True, slots=True)
class ListIndex:
    """Vectors in lists: those of list i are `starts[i]` to before `starts[i + 1]`; `rows` says which row each is of."""

    centroids: Vectors = field(repr=False)
    starts: Rows = field(repr=False)
    rows: NDArray[np.int32] = field(repr=False)
    vectors: Vectors = field(repr=False)
    probes: int = PROBES

    def find(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """As `ExactIndex.find`; a vector that lies in none of the nearest `probes` lists is missed."""
        nearest = np.sort(keep_best(self.centroids @ query, self.probes))
        stretches = [(int(self.starts[place]), int(self.starts[place + 1])) for place in nearest]
        scores = np.concatenate([self.vectors[start:end] @ query for start, end in stretches])
        rows = np.concatenate([self.rows[start:end] for start, end in stretches])
        best = keep_best(scores, count)
        return rows[best].astype(np.int64), scores[best]


Index = ExactIndex | ListIndex


def fit_centroids(sample: Vectors, lists: int, seed: int) -> Vectors:
    """Centres of length 1 of `lists` clusters of vectors of length 1."""
    faiss = load_faiss()
    fit = faiss.Kmeans(
        sample.shape[1], lists, niter=ROUNDS, spherical=True, seed=seed + 1, min_points_per_centroid=1,
        max_points_per_centroid=FITTED,
    )  # fmt: skip
    fit.train(sample)
    centroids: Vectors = fit.centroids
    return centroids


def assign_lists(vectors: Vectors, centroids: Vectors) -> NDArray[np.int32]:
    """The nearest centroid of each vector."""
    faiss = load_faiss()
    _, nearest = faiss.knn(vectors, centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)
    lists: NDArray[np.int32] = nearest[:, 0].astype(np.int32)
    return lists


def cut_blocks(stream: Iterator[Vectors]) -> Iterator[Vectors]:
    """Arrays of a stream in pieces of at most `BLOCK` vectors."""
    for array in stream:
        for start in range(0, len(array), BLOCK):
            yield array[start : start + BLOCK]


def write_lists(path: Path, read: Callable[[], Iterator[Vectors]], count: int, seed: int, tick: Tick) -> None:
    """Write the index of `count` vectors as `path`.npy and `path`.safetensors; `read` streams them, three times over.

    No more than a block of vectors and a sample is held. Raises UserError when the disk refuses.
    """
    lists = round(2 * count**0.5)
    wanted = np.zeros(count, dtype=bool)
    wanted[np.random.default_rng(seed).choice(count, min(count, lists * FITTED), replace=False)] = True
    sample, done = [], 0
    for block in cut_blocks(read()):
        sample.append(block[wanted[done : done + len(block)]])
        done += len(block)
    tick(f"fitting {lists} lists", 0, 0)
    centroids = fit_centroids(np.concatenate(sample), lists, seed)
    nearest, done = np.empty(count, dtype=np.int32), 0
    for block in cut_blocks(read()):
        tick("vectors into lists", done, count)
        nearest[done : done + len(block)] = assign_lists(block, centroids)
        done += len(block)
    rows = np.argsort(nearest, kind="stable").astype(np.int32)
    places = np.empty(count, dtype=np.int32)
    places[rows] = np.arange(count, dtype=np.int32)
    starts = np.searchsorted(nearest[rows], np.arange(lists + 1)).astype(np.int64)
    write_sorted(path.with_suffix(".npy"), read, places, centroids.shape[1])
    write_file(path.with_suffix(".safetensors"), save({"centroids": centroids, "starts": starts, "rows": rows}))


def write_sorted(path: Path, read: Callable[[], Iterator[Vectors]], places: NDArray[np.int32], width: int) -> None:
    """Write streamed vectors to their places in a .npy file, whole or not at all."""
    temporary: Path | None = None
    try:
        remove_leftovers(path.parent, path.name)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "r+b") as file:
            lock(file.fileno())
            out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(len(places), width))
            # A disk that fills up under a mapped file ends the process: take all the space now.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
            done = 0
            for block in cut_blocks(read()):
                out[places[done : done + len(block)]] = block
                done += len(block)
            out.flush()
            del out
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_lists(path: Path, count: int) -> ListIndex:
    """Index of `count` vectors that `write_lists` wrote; vectors stay on disk. Raises UserError when it is damaged."""
    try:
        tensors = load_file(path.with_suffix(".safetensors"))
        centroids, starts, rows = (tensors[name] for name in ("centroids", "starts", "rows"))
        vectors = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        whole = (
            [str(array.dtype) for array in (centroids, starts, rows, vectors)]
            == ["float32", "int64", "int32", "float32"]
            and vectors.shape == (count, *centroids.shape[1:])
            and centroids.ndim == 2
            and starts.shape == (len(centroids) + 1,)
            and (starts[0], starts[-1]) == (0, count)
            and bool((np.diff(starts) >= 0).all())
            and rows.shape == (count,)
            and 0 <= int(rows.min()) <= int(rows.max()) < count
        )
        if not whole:
            raise ValueError("shapes or ranges do not fit")
    except DAMAGED as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise UserError(f"{path}.* is damaged ({line}): remove it, the next search makes it again") from None
    return ListIndex(centroids, starts, rows, vectors)
