"""From documents to a tree of clusters on disk: windows of text, their vectors, nested clusters, who lies where.

A tree is a folder:

    tree.json              how it was made: encoder, window, branching, depth, seed, counts, hashes
    router.safetensors     centroids of each level (`workbench/banks/routing.py`)
    windows.parquet        a row a window: document, first and last character, deepest cluster
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from probes.bank_format import ROUTER
from probes.descriptions import read_description
from probes.errors import UserError
from probes.parquet_tables import read_table
from probes.progress import Tick, quiet
from workbench.banks.clusters import Tree, grow_tree
from workbench.banks.routing import Router, list_tensors, load_router
from workbench.memory.documents import Document, read_documents
from workbench.memory.search import Encoder
from workbench.storage import write_folder

FORMAT = "memory-circuits/clusters"
HEAD, WINDOWS = "tree.json", "windows.parquet"
# The paper's windows have 2,048 tokens; that a token is about four characters of English is inferred.
WINDOW = 8192
TEXTS = 256


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a document: characters from `start` to `end`."""

    document: str
    start: int
    end: int
    text: str


def cut_windows(documents: Iterator[Document], length: int = WINDOW) -> Iterator[Window]:
    """Windows of at most `length` characters, one after the other without overlap; one of spaces alone is left out."""
    for document in documents:
        rest, start = "", 0
        for block in document.blocks:
            rest += block
            while len(rest) > length:
                if rest[:length].strip():
                    yield Window(document.name, start, start + length, rest[:length])
                rest, start = rest[length:], start + length
        if rest.strip():
            yield Window(document.name, start, start + len(rest), rest)


def embed_windows(
    windows: Iterator[Window], encoder: Encoder, tick: Tick
) -> tuple[list[Window], np.ndarray[Any, np.dtype[np.float32]]]:
    """Windows without their texts, and their vectors [window, width]; texts are held a batch at a time."""
    kept: list[Window] = []
    pieces: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    batch: list[str] = []
    for window in windows:
        kept.append(Window(window.document, window.start, window.end, ""))
        batch.append(window.text)
        if len(batch) == TEXTS:
            tick("embedding windows", len(kept), 0)
            pieces.append(encoder.encode(batch))
            batch = []
    if batch:
        pieces.append(encoder.encode(batch))
    return kept, np.concatenate(pieces) if pieces else np.zeros((0, 1), np.float32)


def cluster_documents(
    files: Sequence[tuple[Path, str]],
    out: Path,
    encoder: Encoder,
    branching: int = 16,
    depth: int = 4,
    window: int = WINDOW,
    seed: int = 0,
    tick: Tick = quiet,
) -> tuple[Tree, dict[str, Any]]:
    """Cluster documents and write the tree to a new folder, whole or not at all; returns it with its description.

    Raises UserError for documents that cannot be read, a single one, or too few windows to be split.
    """
    if window < 1:
        raise UserError(f"--window is {window}: give 1 character or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: choose another --out, or remove it first")
    kept, vectors = embed_windows(cut_windows(read_documents(files), window), encoder, tick)
    documents = len({one.document for one in kept})
    if documents < 2:
        raise UserError(f"{documents} document is no corpus: clusters are of several documents, give more")
    tree = grow_tree(vectors, branching, depth, seed, tick)
    table = pa.table(
        {
            "document": [one.document for one in kept],
            "start": pa.array([one.start for one in kept], pa.int64()),
            "end": pa.array([one.end for one in kept], pa.int64()),
            "leaf": pa.array(tree.leaves, pa.int64()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = {ROUTER: save(dict(list_tensors(tree.router))), WINDOWS: buffer.getvalue()}
    about: dict[str, Any] = {
        "format": FORMAT,
        "version": 1,
        "encoder": encoder.name,
        "branching": branching,
        "depth": depth,
        "window": window,
        "seed": seed,
        "documents": documents,
        "windows": len(kept),
        "empty": list(tree.empty),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in data.items()},
    }
    write_folder(out, {**data, HEAD: (json.dumps(about, indent=1) + "\n").encode()})
    return tree, about


def load_tree(folder: Path) -> tuple[Router, dict[str, Any], pa.Table]:
    """Router, description and windows of a tree. Raises UserError when it is missing or damaged."""
    about = read_description(folder / HEAD, FORMAT)
    try:
        router = load_router(folder, int(about["branching"]), int(about["depth"]))
        windows = read_table(folder / WINDOWS)
        if windows.column_names != ["document", "start", "end", "leaf"] or windows.num_rows != about["windows"]:
            raise ValueError(f"{windows.num_rows} windows, {about['windows']} promised")
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{folder} is not a whole tree of clusters ({' '.join(str(error).split())[:160]})") from None
    return router, about, windows
