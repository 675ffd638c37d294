"""Writing memories beside bare forwards, search by graph beside exact search: `python -m benchmarks.memory`.

Writing: random weights, references of 128 tokens, float32, the first half of the layers, 8 slots; *bare* is a forward
pass with logits over the same tokens in the same batches; `writing speed / bare` above 1 is faster than bare. Search:
random clustered vectors of length 1 (384 wide), queries near some of them; recall is the share of the exact five.
Both sides run in this process in turn; medians of `--repeats`. Read the ratios: seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.attribution import measure, write_checkpoint
from probes.models import Model, load_model
from probes.writing import Recipe, choose_first_half, write_batch
from workbench.memory import search

LENGTH, FIRST, FOUND = 128, 2, 5
WIDTH, CLUSTERS, QUERIES = 384, 1000, 200


def compare_writing(model: Model, batch: int, repeats: int) -> dict[str, float]:
    """Seconds of one batch, bare and written, and the speed of writing beside that of the bare pass."""
    tokens = torch.randint(2, 2000, (batch, LENGTH), generator=torch.Generator().manual_seed(0))
    references = tokens.tolist()
    recipe = Recipe(choose_first_half(model))

    def run_bare() -> None:
        with torch.no_grad():
            model.run(tokens)

    row = measure({"bare": run_bare, "writing": lambda: write_batch(model, recipe, references, FIRST)}, repeats)
    return row | {"writing speed / bare": row["bare"] / row["writing"]}


def draw_vectors(count: int, seed: int, centres: search.Vectors) -> search.Vectors:
    """Vectors of length 1 around random centres."""
    generator = np.random.default_rng(seed)
    vectors = centres[generator.integers(len(centres), size=count)]
    vectors = vectors + generator.normal(size=vectors.shape).astype(np.float32) * 0.04
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def compare_search(count: int, threads: int) -> dict[str, float]:
    """Milliseconds a query (median), seconds to build, and recall against exact search."""
    faiss = search.load_faiss()
    faiss.omp_set_num_threads(threads)
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, WIDTH)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors, queries = draw_vectors(count, 1, centres), draw_vectors(QUERIES, 2, centres)
    start = time.perf_counter()
    index = search.build_index(vectors)
    built = time.perf_counter() - start
    exact = faiss.IndexFlatIP(WIDTH)
    exact.add(vectors)
    seconds, hits = [], 0
    for query in queries:
        start = time.perf_counter()
        _, found = index.search(query[None], FOUND)
        seconds.append(time.perf_counter() - start)
        _, wanted = exact.search(query[None], FOUND)
        hits += len(set(found[0].tolist()) & set(wanted[0].tolist()))
    return {
        "build s": built,
        "query ms": 1000 * statistics.median(seconds),
        "recall": hits / (FOUND * len(queries)),
    }


def main() -> None:
    """Print one row a shape and batch size, and one a number of memories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[16])
    parser.add_argument("--memories", type=int, nargs="*", default=[20_000, 100_000], help="sizes of the search")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        write_checkpoint("llama", Path(temporary) / "llama")
        model = load_model(str(Path(temporary) / "llama"), device="cpu")
        for batch in options.batches:
            rows.append({"shape": "llama", "batch": batch, **compare_writing(model, batch, options.repeats)})
    rows += [{"memories": count, **compare_search(count, options.threads)} for count in options.memories]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
