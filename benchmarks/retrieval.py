"""Finding 5 of a million memories, and opening a bank of as many: `python benchmarks/retrieval.py --memories 1000000`.

Search: vectors of 384 numbers at length 1 in nested clusters (100 topics of 100, sizes falling as 1 / rank, spread
falling over directions), as sentence vectors are; queries are drawn likewise. The index is the one that `memory search`
makes for that many; recall is the share of the exact five, found by comparing all. Query times are with the index open
and its file in the page cache; `first query` is the one before that. Bank: as many memories of a few numbers each, in
parts of 20,000; opened, five fetched; memory is what this process's resident size grows by.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from shapes import print_table

from probes.memory_bank import open_bank
from probes.memory_format import ENTRIES, HEAD, VERSION, Head
from workbench.memory import indexes
from workbench.memory.indexes import ExactIndex, Index, Vectors
from workbench.memory.store import write_tables
from workbench.storage import write_file

WIDTH, FOUND, QUERIES, PART = 384, 5, 200, 20_000
TOPICS = 100
MIB = 2**20


def draw_vectors(count: int, seed: int) -> Iterator[Vectors]:
    """`count` vectors, in arrays of at most `PART`."""
    fixed = np.random.default_rng(0)
    spread = (1 / np.sqrt(1 + np.arange(WIDTH) / 16)).astype(np.float32)
    topics = fixed.normal(size=(TOPICS, WIDTH)).astype(np.float32) * spread
    inner = topics[:, None] + 0.7 * fixed.normal(size=(TOPICS, TOPICS, WIDTH)).astype(np.float32) * spread
    share = 1 / (1 + np.arange(TOPICS**2))
    draw = np.random.default_rng(seed)
    for start in range(0, count, PART):
        size = min(PART, count - start)
        chosen = draw.choice(TOPICS**2, size=size, p=share / share.sum())
        noise = draw.normal(size=(size, WIDTH)).astype(np.float32)
        vectors = inner.reshape(-1, WIDTH)[chosen] + 0.6 * noise * spread
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def measure_resident() -> float:
    """Resident memory of this process in MiB, mapped files counted."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


def build_index(folder: Path, count: int) -> Index:
    """The index that a bank of `count` memories gets."""
    if count <= indexes.EXACT_LIMIT:
        return ExactIndex(np.concatenate(list(draw_vectors(count, 1))))
    indexes.write_lists(folder / "lists", lambda: draw_vectors(count, 1), count, 0, lambda *_: None)
    return indexes.read_lists(folder / "lists", count)


def find_exactly(count: int, queries: Vectors) -> list[set[int]]:
    """Rows of the five vectors nearest to each query, array by array, all compared."""
    best = np.zeros((len(queries), 0), dtype=np.float32)
    rows = np.zeros((len(queries), 0), dtype=np.int64)
    done = 0
    for vectors in draw_vectors(count, 1):
        best = np.concatenate([best, queries @ vectors.T], axis=1)
        rows = np.concatenate(
            [rows, np.broadcast_to(np.arange(done, done + len(vectors)), (len(queries), len(vectors)))], axis=1
        )
        kept = np.argpartition(-best, FOUND - 1, axis=1)[:, :FOUND]
        best, rows = np.take_along_axis(best, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
        done += len(vectors)
    return [set(row.tolist()) for row in rows]


def take_time(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare_search(folder: Path, count: int) -> dict[str, object]:
    """Build time, latency of a query and recall of the index for `count` memories."""
    queries = next(draw_vectors(QUERIES, 2))
    start = time.perf_counter()
    index = build_index(folder, count)
    built = time.perf_counter() - start
    before = measure_resident()
    first = take_time(lambda: index.find(queries[0], FOUND))
    found = [set(index.find(query, FOUND)[0].tolist()) for query in queries]
    grown = measure_resident() - before
    seconds = [take_time(lambda query=query: index.find(query, FOUND)) for query in queries]  # type: ignore[misc]
    exact = find_exactly(count, queries)
    return {
        "memories": count,
        "index": "all compared"
        if isinstance(index, ExactIndex)
        else f"{len(index.centroids)} lists, {index.probes} read",
        "build s": built,
        "file MiB": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / MIB,
        "first query ms": 1000 * first,
        "query ms (median)": 1000 * statistics.median(seconds),
        "query ms (95 %)": 1000 * float(np.percentile(seconds, 95)),
        f"resident MiB after {QUERIES} queries": grown,
        f"recall@{FOUND}": sum(len(a & b) for a, b in zip(found, exact, strict=True)) / (FOUND * QUERIES),
    }


def write_bank(folder: Path, count: int) -> None:
    """A bank of `count` memories of 2 x 2 x 8 numbers, a short text each."""
    shape = {"layers": (0,), "kv_heads": 1, "slots": 2, "d_head": 8}
    head = Head(
        VERSION, "0" * 64, offset=128, prefix="", scoring="softmax", pooling="sum", precision="bfloat16",
        first_token=0, next_part=0, **shape,
    )  # type: ignore[arg-type]  # fmt: skip
    parts = []
    for number, start in enumerate(range(0, count, PART)):
        rows = np.arange(start, min(start + PART, count))
        texts = [f"memory number {row} of a synthetic bank" for row in rows.tolist()]
        columns = {
            "id": [f"{row:016x}" for row in rows.tolist()],
            "document": ["synthetic"] * len(rows),
            "chunk": rows,
            "start": rows,
            "end": rows,
            "text": texts,
            "sha256": ["0" * 64] * len(rows),
            "token_starts": [[0]] * len(rows),
        }
        tensors = torch.zeros(2, len(rows), *head.shape)
        entries = pa.Table.from_pydict(columns, schema=ENTRIES)
        numbered = replace(head, next_part=number)
        positions = torch.zeros(len(rows), *head.shape[:-1], dtype=torch.int32)
        parts.append(write_tables(folder, numbered, entries, tensors[0], tensors[1], positions))
    whole = replace(head, parts=tuple(parts), next_part=len(parts))
    write_file(folder / HEAD, whole.to_bytes())


def measure_bank(folder: Path, count: int) -> dict[str, object]:
    """What opening a bank and fetching five of its memories takes."""
    write_bank(folder, count)
    before = measure_resident()
    start = time.perf_counter()
    bank = open_bank(folder)
    opened = time.perf_counter() - start
    grown = measure_resident() - before
    draw = np.random.default_rng(0)
    names = [tuple(f"{row:016x}" for row in draw.integers(count, size=FOUND)) for _ in range(20)]
    seconds = [take_time(lambda ids=ids: bank.select(ids)) for ids in names]  # type: ignore[misc]
    return {
        "memories": count,
        "bank MiB": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / MIB,
        "open s": opened,
        "resident MiB after opening": grown,
        "five fetched ms (median)": 1000 * statistics.median(seconds),
        "resident MiB after 100 fetched": measure_resident() - before,
    }


def main() -> None:
    """Print one row a number of memories, of search and of the bank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--threads", type=int, default=2, help="of torch and FAISS; numpy's are OMP_NUM_THREADS")
    parser.add_argument("--parts", nargs="+", choices=["search", "bank"], default=["search", "bank"])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    indexes.load_faiss().omp_set_num_threads(options.threads)
    work = {"search": compare_search, "bank": measure_bank}
    tables: dict[str, list[dict[str, object]]] = {part: [] for part in options.parts}
    for part, rows in tables.items():
        for count in options.memories:
            with tempfile.TemporaryDirectory() as temporary:
                rows.append(work[part](Path(temporary), count))
    if options.json:
        print(json.dumps(tables, indent=1))
        return
    for rows in tables.values():
        print_table(rows)
        print()


if __name__ == "__main__":
    main()
