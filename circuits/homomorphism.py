"""Which subgraphs are the same circuit: homomorphism, canonical forms, and classes that match thousands at once.

Source: Yang et al. 2024 (Memory^3), section 2.2, definition 2. A homomorphism keeps depth, maps one position to one
position, and maps nodes that share an edge through a head (or unit) to nodes that share one through the same. So it is
a map of positions under which every edge becomes an edge with the same layer and head (or unit); it need be neither
injective nor in order. Two subgraphs belong together when there is one each way.

Matching thousands: isomorphic subgraphs are mutually homomorphic, so subgraphs are first grouped by a canonical form,
edges with positions renamed in an order that depends on the edges alone as far as it can (equal forms are isomorphic,
always; isomorphic subgraphs mostly get equal forms). That costs O(E log E) a subgraph of E edges, and nothing a pair.
Mutually homomorphic subgraphs use the same heads and units, so only distinct forms with one set of labels are then
compared, by search, each with the classes found so far. The search is exponential in positions at worst, but a label
that occurs once fixes its positions at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from circuits.text_graph import TextEdge

Subgraph = frozenset[TextEdge]
# Layer, whether an MLP, head or unit.
Label = tuple[int, bool, int]
Form = tuple[TextEdge, ...]


def label_edge(edge: TextEdge) -> Label:
    """What a homomorphism keeps of an edge."""
    return edge[:3]


def list_labels(subgraph: Subgraph) -> frozenset[Label]:
    """Heads and units that a subgraph runs through."""
    return frozenset(map(label_edge, subgraph))


def order_positions(subgraph: Subgraph) -> list[int]:
    """Positions in an order that isomorphic subgraphs mostly share: by their edges, then by those of their partners.

    What is still equal after that stands in the order of the text.
    """
    around: dict[int, list[tuple[Label, bool, int]]] = defaultdict(list)
    for edge in subgraph:
        around[edge.source].append((label_edge(edge), True, edge.target))
        around[edge.target].append((label_edge(edge), False, edge.source))
    colours = dict.fromkeys(around, 0)
    for _ in range(2):
        seen = {
            position: tuple(sorted((label, out, colours[other]) for label, out, other in links))
            for position, links in around.items()
        }
        ranks = {colour: rank for rank, colour in enumerate(sorted(set(seen.values())))}
        colours = {position: ranks[colour] for position, colour in seen.items()}
    return sorted(around, key=lambda position: (colours[position], position))


def canonise(subgraph: Subgraph) -> Form:
    """Sorted edges with positions renamed; subgraphs of equal form are isomorphic."""
    names = {position: name for name, position in enumerate(order_positions(subgraph))}
    return tuple(sorted(e._replace(source=names[e.source], target=names[e.target]) for e in subgraph))


def list_homomorphisms(first: Subgraph, second: Subgraph) -> Iterator[dict[int, int]]:
    """Maps of the positions of `first` into those of `second` that are homomorphisms."""
    images: dict[Label, list[tuple[int, int]]] = defaultdict(list)
    for edge in sorted(second):
        images[label_edge(edge)].append((edge.source, edge.target))
    # Edges with the fewest possible images first: they fix positions for the others.
    edges = sorted(first, key=lambda edge: (len(images[label_edge(edge)]), edge))

    def extend(place: int, mapped: dict[int, int]) -> Iterator[dict[int, int]]:
        if place == len(edges):
            yield mapped
            return
        edge = edges[place]
        for source, target in images[label_edge(edge)]:
            if mapped.get(edge.source, source) != source:
                continue
            longer = mapped | {edge.source: source}
            if longer.get(edge.target, target) == target:
                yield from extend(place + 1, longer | {edge.target: target})

    yield from extend(0, {})


def is_homomorphic(first: Subgraph, second: Subgraph) -> bool:
    """Whether there is a homomorphism from `first` to `second` (an empty subgraph has one to anything)."""
    return list_labels(first) <= list_labels(second) and next(list_homomorphisms(first, second), None) is not None


def are_equivalent(first: Subgraph, second: Subgraph) -> bool:
    """Whether two subgraphs are homomorphic each way: members of one circuit, as far as definition 2 goes."""
    return list_labels(first) == list_labels(second) and is_homomorphic(first, second) and is_homomorphic(second, first)


def find_member(representative: Subgraph, graph: Subgraph) -> Subgraph | None:
    """A subgraph of `graph` that is equivalent to `representative`, or None: whether a text realises a circuit.

    Definition 5: a text is a realisation of a circuit when its graph has a subgraph in it.
    """
    if not list_labels(representative) <= list_labels(graph):
        return None
    for mapped in list_homomorphisms(representative, graph):
        image = frozenset(e._replace(source=mapped[e.source], target=mapped[e.target]) for e in representative)
        if len(set(mapped.values())) == len(mapped) or is_homomorphic(image, representative):
            return image
    return None


def classify_subgraphs(subgraphs: Sequence[Subgraph]) -> list[int]:
    """Class of every subgraph, numbered in order of first appearance."""
    forms: dict[Form, int] = {}
    bins: dict[frozenset[Label], list[tuple[Subgraph, int]]] = defaultdict(list)
    classes, count = [], 0
    for subgraph in subgraphs:
        form = canonise(subgraph)
        if form not in forms:
            known = bins[list_labels(subgraph)]
            found = next((number for other, number in known if are_equivalent(subgraph, other)), None)
            if found is None:
                found, count = count, count + 1
                known.append((subgraph, found))
            forms[form] = found
        classes.append(forms[form])
    return classes


def feeds(first: TextEdge, second: TextEdge) -> bool:
    """Whether what an edge writes stands in the stream that another starts from: same position, not deeper."""
    return first.target == second.source and first.depths[1] <= second.depths[0]


def list_pairs(edges: Iterable[TextEdge]) -> list[Subgraph]:
    """Every two edges of which one feeds the other, the induction circuit's shape."""
    ordered = sorted(edges)
    return [frozenset((one, other)) for one in ordered for other in ordered if feeds(one, other)]


def join_edges(edges: Iterable[TextEdge]) -> list[Subgraph]:
    """Largest subgraphs whose edges hang together by feeding each other, in order of their first edge."""
    pieces: list[set[TextEdge]] = []
    for edge in sorted(edges):
        touched = [piece for piece in pieces if any(feeds(one, edge) or feeds(edge, one) for one in piece)]
        for piece in touched:
            pieces.remove(piece)
        pieces.append({edge}.union(*touched))
    return sorted((frozenset(piece) for piece in pieces), key=min)
