"""Finding memories by meaning: a sentence vector each, kept in the bank's folder, and an index of inner products.

Vectors lie in `search/ENCODER/` beside the parts they are of, and are made at the first search after a write. Few
memories are all compared; with more than `indexes.EXACT_LIMIT` only those near the query are, which misses some:
`benchmarks/retrieval.py` measures how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from probes.errors import UserError
from probes.memory_bank import MemoryBank
from probes.memory_format import Part, read_entries
from probes.progress import Tick, quiet
from workbench.demo.clusters import embed
from workbench.memory import indexes
from workbench.memory.indexes import ExactIndex, Index, Vectors, load_faiss, read_lists, write_lists
from workbench.storage import write_file

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
    """A memory that was found: its id, the cosine of its vector with the query's, its place among those searched."""

    id: str
    score: float
    place: int


def embed_part(bank: MemoryBank, part: Part, encoder: Encoder, tick: Tick) -> Path:
    """File of the vectors [row width] of a part's texts, made where it is not there or is of other texts."""
    path = bank.folder / "search" / encoder.name / part.shard
    if path.is_file() and read_source(path) == part.entries_sha256:
        return path
    texts = read_entries(bank.folder, part, ["text"]).column("text").to_pylist()
    if None in texts:
        raise UserError(f"{bank.folder} was compressed from a bank without texts, so there is nothing to search")
    pieces = []
    for start in range(0, len(texts), TEXTS):
        tick(f"embedding {part.name}", start, len(texts))
        pieces.append(encoder.encode(texts[start : start + TEXTS]))
    write_file(path, save({"vectors": np.concatenate(pieces)}, {"entries_sha256": part.entries_sha256}))
    return path


def explain_damage(path: Path, error: Exception) -> UserError:
    """The error to raise for vectors that cannot be read."""
    return UserError(f"{path} is damaged ({error}): remove it, the next search makes it again")


def read_source(path: Path) -> str:
    """Hash of the entries that a file of vectors was made from. Raises UserError when it is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            return str((file.metadata() or {}).get("entries_sha256", ""))
    except (OSError, SafetensorError) as error:
        raise explain_damage(path, error) from None


def read_vectors(path: Path, part: Part) -> Vectors:
    """Vectors of the memories of a part that were not deleted. Raises UserError when the file is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            vectors: Vectors = file.get_tensor("vectors")
    except (OSError, SafetensorError) as error:
        raise explain_damage(path, error) from None
    if len(vectors) != part.rows or vectors.dtype != np.float32 or vectors.ndim != 2:
        raise explain_damage(path, ValueError(f"{vectors.shape} numbers for {part.rows} memories"))
    return np.delete(vectors, part.deleted, axis=0) if part.deleted else vectors


@dataclass(frozen=True, slots=True)
class Searcher:
    """A bank that can be searched: `ids` of the memories that are there, in the order of the index."""

    ids: pa.ChunkedArray = field(repr=False)
    index: Index
    encoder: Encoder

    def search(self, query: str, count: int) -> list[Hit]:
        """The memories nearest to a text, best first, at most `count`."""
        return self.search_vector(self.encoder.encode([query])[0], count)

    def search_vector(self, query: Vectors, count: int) -> list[Hit]:
        """The memories nearest to a vector of length 1, best first, at most `count`."""
        rows, scores = self.index.find(query, count)
        return [Hit(self.ids[row].as_py(), float(score), row) for row, score in zip(rows.tolist(), scores, strict=True)]


def open_searcher(bank: MemoryBank, encoder: Encoder = DEFAULT_ENCODER, tick: Tick = quiet) -> Searcher:
    """Searcher of a bank; what is missing is embedded, and the lists of a large bank kept for the next time.

    Raises UserError for a bank without texts (version 1) or without memories, or when an extra is missing.
    """
    load_faiss()
    if bank.head.version == 1:
        raise UserError(f"{bank.folder} is a bank of version 1 and has no texts to search: write a new one")
    if not len(bank):
        raise UserError(f"{bank.folder} holds no memory: write some first")
    ids = bank.ids.drop_null() if bank.ids.null_count else bank.ids
    folder = bank.folder / "search" / encoder.name
    path = folder / f"lists-{bank.sha256[:16]}"
    if len(ids) > indexes.EXACT_LIMIT and path.with_suffix(".safetensors").is_file():
        return Searcher(ids, read_lists(path, len(ids)), encoder)
    files = [(embed_part(bank, part, encoder, tick), part) for part in bank.head.parts]

    def read() -> Iterator[Vectors]:
        return (read_vectors(file, part) for file, part in files)

    if len(ids) <= indexes.EXACT_LIMIT:
        return Searcher(ids, ExactIndex(np.concatenate(list(read()))), encoder)
    # Lists of what the bank was before.
    for old in folder.glob("lists-*"):
        old.unlink()
    write_lists(path, read, len(ids), 0, tick)
    return Searcher(ids, read_lists(path, len(ids)), encoder)
