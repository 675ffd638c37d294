"""Selection against a graph library: what stays lies on a path from a source to the logits, and nothing else goes."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from circuits.circuit import EdgeScores, mask_edges
from circuits.graph import Kind, Plan, Wiring, can_see, parse_component, split_node, wire
from circuits.selection import SOURCES, drop_dead_ends, keep_strongest, select_circuit
from probes.errors import UserError

PLAN = Plan(layers=2, heads=4, kv_heads=2, explicit_layers=(1,), blocks=2, bank_layers=(0,), levels=1)
POSITIONS = 4


def build_scores(plan: Plan, seed: int) -> EdgeScores:
    """Random scores on every edge of a plan."""
    wiring = wire(plan)
    generator = np.random.default_rng(seed)
    edges = (generator.normal(size=(POSITIONS, *wiring.visible.shape)) * wiring.visible).astype(np.float32)
    return EdgeScores(wiring, edges, edges.sum(axis=2), "eap", "zero", "logit-diff", "logits")


def build_graph(mask: np.ndarray, wiring: Wiring) -> nx.DiGraph:
    """The same edges as a directed graph: edge writer -> reader, reader -> every output that it feeds."""
    graph = nx.DiGraph()
    for p, w, r in zip(*np.nonzero(mask), strict=True):
        reader = wiring.readers[r]
        graph.add_edge(("w", w, p), ("r", r, p))
        for other, writer in enumerate(wiring.writers):
            if reader.component.kind is Kind.KEY_VALUE:
                shared = writer.kind is Kind.HEAD and writer.layer == reader.component.layer
                if shared and writer.head // wiring.plan.group == reader.component.head:
                    for later in range(p, POSITIONS):
                        graph.add_edge(("r", r, p), ("w", other, later))
            elif reader.component == writer:
                graph.add_edge(("r", r, p), ("w", other, p))
    return graph


@pytest.mark.parametrize("seed", range(8))
def test_dead_ends_are_dropped_and_nothing_else(seed: int) -> None:
    """An edge stays exactly when some source reaches it and it reaches the logits at the last position."""
    scores = build_scores(PLAN, seed)
    wiring = scores.wiring
    mask = keep_strongest(scores, 60)
    graph = build_graph(mask, wiring)
    end = ("r", len(wiring.readers) - 1, POSITIONS - 1)
    sources = [n for n in graph if n[0] == "w" and wiring.writers[n[1]].kind in SOURCES]
    reached = set().union(*({n} | nx.descendants(graph, n) for n in sources))
    needed = nx.ancestors(graph, end) | {end} if end in graph else set()
    kept = drop_dead_ends(mask, wiring, [POSITIONS - 1])
    for p, w, r in zip(*np.nonzero(mask), strict=True):
        alive = ("w", w, p) in reached and ("r", r, p) in needed
        assert kept[p, w, r] == alive
    assert not (kept & ~mask).any()


def test_circuit_round_trips_through_its_mask() -> None:
    """A circuit's edges give back the mask they came from; nodes are the ends of edges; scores keep their sign."""
    scores = build_scores(PLAN, 1)
    attention = np.full((2, 4, POSITIONS, POSITIONS), 0.25, dtype=np.float32)
    circuit = select_circuit(scores, 120, attention)
    mask = mask_edges(circuit, scores.wiring, POSITIONS)
    assert mask.sum() == len(circuit.edges)
    assert 60 < len(circuit.edges) <= 120
    assert {node.id for node in circuit.nodes} == {end for e in circuit.edges for end in (e.writer, e.reader)}
    sizes = [abs(edge.score) for edge in circuit.edges]
    assert sizes == sorted(sizes, reverse=True)
    assert any(edge.score < 0 for edge in circuit.edges)
    assert circuit.total == scores.wiring.edges * POSITIONS
    for move in circuit.moves:
        (source, start), (target, stop) = split_node(move.source), split_node(move.target)
        assert start <= stop
        assert parse_component(source, 2).head == parse_component(target, 2).head // 2


def test_more_edges_than_there_are_keep_the_whole_graph() -> None:
    """Asking for more than everything gives every edge on a path to the logits."""
    scores = build_scores(Plan(layers=1, heads=2, kv_heads=1), 0)
    assert keep_strongest(scores, 10**6).sum() == scores.wiring.edges * POSITIONS


def test_edge_counts_follow_from_the_plan() -> None:
    """GPT-2 small has the 32,491 edges that peers count; grouped key-value heads are one reader each."""
    assert wire(Plan(layers=12, heads=12, kv_heads=12)).edges == 32_491
    assert wire(Plan(layers=8, heads=8, kv_heads=2)).edges == 3_517
    parallel = Plan(layers=2, heads=2, kv_heads=2, parallel=True)
    head, mlp = (parse_component(name, 2) for name in ("a1.h0", "m1"))
    assert not can_see(head, mlp, parallel.parallel)
    assert can_see(head, mlp, parallel=False)


@pytest.mark.parametrize("name", ["a1.h0", "x1.h3.b1", "m0", "f0.l0", "embed", "logits", "a1.kv1"])
def test_names_round_trip(name: str) -> None:
    """Every name parses to the component that has it."""
    assert parse_component(name, 2).name == name


@pytest.mark.parametrize("name", ["a1", "x1.h0", "a1.h0@", "@3", "a1.h0@-1", "a1.h0@1e3", "a1.h0@٣", ""])
def test_malformed_names_are_refused(name: str) -> None:
    """Neither as component nor as node id does a malformed name pass."""
    with pytest.raises(UserError):
        parse_component(name, 2)
    with pytest.raises(UserError):
        split_node(name)
