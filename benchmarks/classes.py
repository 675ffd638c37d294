"""Matching subgraphs of many texts to circuits: `python benchmarks/classes.py`.

Random subgraphs of a model of 12 layers of 12 heads over 32 positions, drawn from a fixed number of shapes and put at
random positions, so that most have a partner. *Grouped* is `classify_subgraphs`; *every pair* compares each with the
classes found so far, without canonical forms, at the sizes where that is bearable. Grouping grows with the number of
subgraphs times E log E of their edges; comparing pairs with subgraphs times classes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence

from shapes import print_table

from circuits.homomorphism import Subgraph, are_equivalent, classify_subgraphs
from circuits.text_graph import TextEdge

LAYERS, HEADS, POSITIONS = 12, 12, 32
BEARABLE = 2000


def draw_shape(generator: random.Random, edges: int) -> Subgraph:
    """A random subgraph on a quarter of the positions."""
    found = set()
    while len(found) < edges:
        layer, head, source = generator.randrange(LAYERS), generator.randrange(HEADS), generator.randrange(8)
        found.add(TextEdge(layer, False, head, source, generator.randrange(source, 8)))
    return frozenset(found)


def draw_subgraphs(count: int, edges: int, shapes: int, seed: int) -> list[Subgraph]:
    """Subgraphs of a number of shapes, each at positions of its own, in their order."""
    generator = random.Random(seed)
    drawn = [draw_shape(generator, edges) for _ in range(shapes)]
    found = []
    for _ in range(count):
        places = sorted(generator.sample(range(POSITIONS), 8))
        shape = generator.choice(drawn)
        found.append(frozenset(e._replace(source=places[e.source], target=places[e.target]) for e in shape))
    return found


def compare_all(subgraphs: Sequence[Subgraph]) -> int:
    """Number of classes, by comparing each subgraph with one of every class so far."""
    known: list[Subgraph] = []
    for subgraph in subgraphs:
        if not any(are_equivalent(subgraph, other) for other in known):
            known.append(subgraph)
    return len(known)


def measure(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of processor time."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def main() -> None:
    """Print one row a number of subgraphs and of edges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000, 100000])
    parser.add_argument("--edges", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--shapes", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for edges in options.edges:
        for count in options.counts:
            subgraphs = draw_subgraphs(count, edges, options.shapes, 0)
            grouped = measure(lambda some=subgraphs: classify_subgraphs(some), options.repeats)  # type: ignore[misc]
            row: dict[str, object] = {
                "edges": edges,
                "subgraphs": count,
                "classes": len(set(classify_subgraphs(subgraphs))),
                "grouped, s": grouped,
                "us a subgraph": 1e6 * grouped / count,
                "every pair / grouped": "",
            }
            if count <= BEARABLE:
                pairs = measure(lambda some=subgraphs: compare_all(some), 1)  # type: ignore[misc]
                row["every pair / grouped"] = round(pairs / grouped, 1)
            rows.append(row)
    print_table(rows)


if __name__ == "__main__":
    main()
