"""Finding memories by meaning: a sentence vector each, kept in the bank's folder, and an inner-product index.

Vectors lie in `search/ENCODER/` beside the parts they are of, and are made at the first search after a write. Up to
`EXACT_LIMIT` memories are all compared; above that a graph of neighbours (HNSW) is searched, which misses some:
`benchmarks/memory.py` measures how many.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from probes.errors import UserError
from probes.memory_bank import MemoryBank
from probes.memory_format import Part, read_entries
from probes.progress import Tick, quiet
from workbench.demo.clusters import embed
from workbench.storage import read_bytes, write_file

Vectors = NDArray[np.float32]
# Most memories whose vectors are all compared with a query.
EXACT_LIMIT = 50_000
# Neighbours a memory has in the graph, and candidates kept while it is built and searched.
NEIGHBOURS, BUILD_CANDIDATES, SEARCH_CANDIDATES = 32, 80, 128
# Texts embedded between two ticks.
TEXTS = 256


@dataclass(frozen=True, slots=True)
class Encoder:
    """A sentence encoder: its name, which becomes a folder's, and a function from texts to vectors of length 1."""

    name: str
    encode: Callable[[Sequence[str]], Vectors]


DEFAULT_ENCODER = Encoder("all-MiniLM-L6-v2", embed)


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that was found: its id and the cosine of its vector with the query's."""

    id: str
    score: float


def load_faiss() -> Any:
    """The search library. Raises UserError naming the extra when it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
    except ImportError:
        raise UserError("searching needs the extra: pip install 'memory-circuits[retrieval]'") from None
    return faiss


def read_vectors(bank: MemoryBank, part: Part, encoder: Encoder, tick: Tick) -> Vectors:
    """Vectors of a part's texts, [row, width]; made and kept where they are not there yet."""
    path = bank.folder / "search" / encoder.name / part.shard
    if not path.is_file():
        texts = read_entries(bank.folder, part, ["text"]).column("text").to_pylist()
        if None in texts:
            raise UserError(f"{bank.folder} was compressed from a bank without texts, so there is nothing to search")
        pieces = []
        for start in range(0, len(texts), TEXTS):
            tick(f"embedding {part.name}", start, len(texts))
            pieces.append(encoder.encode(texts[start : start + TEXTS]))
        write_file(path, save({"vectors": np.concatenate(pieces)}, {"shard_sha256": part.shard_sha256}))
    try:
        vectors: Vectors = load_file(path)["vectors"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it, the next search makes it again") from None
    if len(vectors) != part.rows:
        raise UserError(f"{path} has {len(vectors)} vectors for {part.rows} memories: remove it")
    return vectors


def build_index(vectors: Vectors) -> Any:
    """Index of vectors by inner product: exact up to `EXACT_LIMIT`, HNSW above."""
    faiss = load_faiss()
    if len(vectors) <= EXACT_LIMIT:
        index = faiss.IndexFlatIP(vectors.shape[1])
    else:
        index = faiss.IndexHNSWFlat(vectors.shape[1], NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_CANDIDATES, SEARCH_CANDIDATES
    index.add(vectors)
    return index


@dataclass(frozen=True, slots=True)
class Searcher:
    """A bank that can be searched: `ids` in the order of the index."""

    ids: tuple[str, ...]
    index: Any
    encoder: Encoder

    def search(self, query: str, count: int) -> list[Hit]:
        """The memories nearest to a text, best first, at most `count`."""
        scores, rows = self.index.search(self.encoder.encode([query]), min(count, len(self.ids)))
        return [Hit(self.ids[row], float(score)) for score, row in zip(scores[0], rows[0], strict=True) if row >= 0]


def open_searcher(bank: MemoryBank, encoder: Encoder = DEFAULT_ENCODER, tick: Tick = quiet) -> Searcher:
    """Searcher of a bank; what is missing is embedded, and a graph of neighbours kept for the next time.

    Raises UserError for a bank without texts (version 1) or without memories, or when an extra is missing.
    """
    load_faiss()
    if bank.head.version == 1:
        raise UserError(f"{bank.folder} is a bank of version 1 and has no texts to search: write a new one")
    names = bank.ids.to_pylist()
    kept = np.array([row for row, name in enumerate(names) if name is not None], dtype=np.int64)
    if not len(kept):
        raise UserError(f"{bank.folder} holds no memory: write some first")
    ids = tuple(names[row] for row in kept)
    path = bank.folder / "search" / encoder.name / f"{bank.sha256[:16]}.faiss"
    if path.is_file():
        return Searcher(ids, read_index(path), encoder)
    vectors = np.concatenate([read_vectors(bank, part, encoder, tick) for part in bank.head.parts])[kept]
    tick("building the index", 0, 0)
    index = build_index(vectors)
    if len(kept) > EXACT_LIMIT:
        keep_index(path, index)
    return Searcher(ids, index, encoder)


def keep_index(path: Path, index: Any) -> None:
    """Keep the graph of a bank as it is now, in place of those of what it was before."""
    for old in path.parent.glob("*.faiss"):
        old.unlink()
    write_file(path, load_faiss().serialize_index(index).tobytes())


def read_index(path: Path) -> Any:
    """A graph that was kept. Raises UserError when it is damaged."""
    try:
        return load_faiss().deserialize_index(np.frombuffer(read_bytes(path), dtype=np.uint8))
    except RuntimeError:
        raise UserError(f"{path} is damaged: remove it, the next search makes it again") from None
