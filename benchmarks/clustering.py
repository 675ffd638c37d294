"""Nested clusters of a million vectors, and one text routed down them: `python benchmarks/clustering.py`.

Random clustered vectors of length 1 (384 wide) stand for sentence embeddings. Printed are seconds of growing the tree
(16 children, 4 levels), the peak of this process's memory beside the vectors' own, how even the clusters are, and the
milliseconds of routing one vector (median; embedding the text not counted).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

import numpy as np

from workbench.banks.clusters import grow_tree
from workbench.banks.routing import Vectors

WIDTH, CENTRES, TEXTS = 384, 2000, 500


def draw_vectors(count: int) -> Vectors:
    """Vectors around random centres, some of which are far more common than others."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(CENTRES, WIDTH)).astype(np.float32) / WIDTH**0.5
    weights = np.arange(1, CENTRES + 1) ** -0.5
    chosen = generator.choice(CENTRES, size=count, p=weights / weights.sum())
    vectors = np.empty((count, WIDTH), dtype=np.float32)
    for start in range(0, count, 50_000):
        part = centres[chosen[start : start + 50_000]]
        part = part + generator.normal(size=part.shape).astype(np.float32) * 0.03
        vectors[start : start + 50_000] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def measure_memory() -> float:
    """Peak memory of this process so far, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--branching", type=int, default=16)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    options = parser.parse_args()
    vectors = draw_vectors(options.vectors)
    before, start, processor = measure_memory(), time.perf_counter(), time.process_time()
    tree = grow_tree(vectors, options.branching, options.depth)
    row: dict[str, object] = {
        "vectors": len(vectors),
        "grow s": time.perf_counter() - start,
        "grow processor s": time.process_time() - processor,
        "vectors GB": vectors.nbytes / 1e9,
        "added peak GB": measure_memory() - before,
        "largest child's share": [round(share, 4) for share in tree.largest_share],
        "empty clusters": list(tree.empty),
    }
    seconds = []
    for vector in vectors[:TEXTS]:
        start = time.perf_counter()
        tree.router.route(vector[None])
        seconds.append(time.perf_counter() - start)
    row["route one ms"] = 1000 * statistics.median(seconds)
    if options.json:
        print(json.dumps(row, indent=1))
    else:
        for name, value in row.items():
            print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    main()
