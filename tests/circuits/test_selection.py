"""Selection against a graph library: what stays lies on a path from a source to the logits, and nothing else goes."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

from circuits.assembly import assemble
from circuits.circuit import EdgeScores, mask_edges
from circuits.connectivity import SOURCES, drop_dead_ends
from circuits.graph import Kind, Plan, Wiring, can_see, parse_component, split_node, wire
from circuits.optimum import find_optimum
from circuits.selection import SELECTIONS, Goal, grow_backward, keep_ranked, keep_strongest, select_edges
from circuits.stability import count_stable
from probes.errors import UserError

PLAN = Plan(layers=2, heads=4, kv_heads=2, explicit_layers=(1,), blocks=2, bank_layers=(0,), levels=1)
POSITIONS = 4
SMALL = Plan(layers=1, heads=1, kv_heads=1)


def build_scores(plan: Plan, seed: int, positions: int = POSITIONS) -> EdgeScores:
    """Random scores on every edge of a plan."""
    wiring = wire(plan)
    generator = np.random.default_rng(seed)
    edges = (generator.normal(size=(positions, *wiring.visible.shape)) * wiring.visible).astype(np.float32)
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
    goal = Goal(120, (POSITIONS - 1,))
    circuit = assemble(scores, select_edges(scores, "top-n", goal).mask, 120, attention)
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


@pytest.mark.parametrize("name", [name for name in SELECTIONS if name != "stable"])
@pytest.mark.parametrize("seed", range(3))
def test_every_rule_keeps_edges_on_paths_within_the_budget(name: str, seed: int) -> None:
    """Nothing more can be dropped, nothing that does not exist is kept, and the budget holds where there is one."""
    scores = build_scores(Plan(layers=2, heads=2, kv_heads=1, bank_layers=(0,), levels=1), seed)
    goal = Goal(40, (2, 3), threshold=1.0)
    mask = select_edges(scores, name, goal).mask
    assert np.array_equal(mask, drop_dead_ends(mask, scores.wiring, goal.ends))
    assert not (mask & ~scores.wiring.visible).any()
    assert mask.any()
    if name == "threshold":
        assert np.abs(scores.edges[mask]).min() >= 1.0
    else:
        assert 30 < mask.sum() <= 40


def test_a_circuit_grows_backward_by_its_strongest_edge() -> None:
    """Each edge that joins is the strongest of those into what is in the circuit by then, found by a full scan."""
    scores = build_scores(PLAN, 3)
    wiring, end = scores.wiring, POSITIONS - 1
    order = list(grow_backward(scores, (end,)))
    inside = {(end, len(wiring.readers) - 1)}
    left = set(zip(*np.nonzero(np.broadcast_to(wiring.visible, scores.edges.shape)), strict=True))
    for flat in order[:150]:
        edge = np.unravel_index(flat, scores.edges.shape)
        best = max((e for e in left if (e[0], e[2]) in inside), key=lambda e: abs(scores.edges[e]))
        assert tuple(edge) == best
        left.remove(best)
        position, writer = best[0], wiring.writers[best[1]]
        for r, reader in enumerate(wiring.readers):
            part = reader.component
            if part == writer:
                inside.add((position, r))
            if part.kind is Kind.KEY_VALUE and (part.layer, part.head) == (writer.layer, writer.head // 2):
                inside |= {(p, r) for p in range(position + 1) if writer.kind is Kind.HEAD}
    assert len(set(order)) == len(order)


@pytest.fixture(scope="module")
def small_circuits() -> list[np.ndarray]:
    """Every circuit (set of edges without dead ends) of a graph of ten live edges, by trying all subsets."""
    wiring = wire(SMALL)
    whole = np.broadcast_to(wiring.visible, (2, *wiring.visible.shape))
    live = np.flatnonzero(drop_dead_ends(whole, wiring, (1,)))
    assert len(live) == 10
    subsets = [live[[bool(bits >> i & 1) for i in range(len(live))]] for bits in range(1, 1 << len(live))]
    masks = [keep_ranked(subset, whole.shape) for subset in subsets]
    return [mask for mask in masks if np.array_equal(mask, drop_dead_ends(mask, wiring, (1,)))]


@pytest.mark.parametrize("seed", range(4))
def test_the_integer_programme_finds_the_brute_force_optimum(small_circuits: list[np.ndarray], seed: int) -> None:
    """No circuit within the budget has more score; top-n and backward-greedy have at most as much."""
    scores = build_scores(SMALL, seed, positions=2)
    values = [(int(mask.sum()), float(np.abs(scores.edges[mask]).sum())) for mask in small_circuits]
    for budget in (1, 3, 4, 6, 9):
        found = find_optimum(scores, budget, (1,), 20.0)
        assert found.value == pytest.approx(max(value for size, value in values if size <= budget), rel=1e-5)
        assert found.gap <= 1e-6 and found.mask.sum() <= budget
        for name in ("top-n", "backward-greedy"):
            other = SELECTIONS[name].select(scores, Goal(budget, (1,))).mask
            assert np.abs(scores.edges[other]).sum() <= found.value * (1 + 1e-6)


def test_the_optimum_is_refused_when_it_cannot_be_found() -> None:
    """A graph beyond the limit and a solver out of time are clear errors; so is a selection without any path."""
    scores = build_scores(Plan(layers=12, heads=12, kv_heads=12), 0, positions=2)
    with pytest.raises(UserError, match="integer programme takes"):
        find_optimum(scores, 100, (1,), 1.0)
    scores = build_scores(PLAN, 0)
    with pytest.raises(UserError, match="was stopped after"):
        find_optimum(scores, 40, (POSITIONS - 1,), 1e-3)
    with pytest.raises(UserError, match="lower --threshold"):
        select_edges(scores, "threshold", Goal(10, (POSITIONS - 1,), threshold=100.0))


def test_stable_edges_are_those_that_resampling_keeps() -> None:
    """Planted edges with the same score in all pairs stay; those that one pair alone has, or whose sign flips, go."""
    wiring = wire(Plan(layers=1, heads=1, kv_heads=1))
    pairs = np.zeros((8, 1, *wiring.visible.shape), dtype=np.float32)
    constant, outlier, flipping = (tuple(e) for e in np.argwhere(wiring.visible)[:3])
    pairs[:, 0][:, constant[0], constant[1]] = -1.0
    pairs[0, 0][outlier] = 40.0
    pairs[:, 0][:, flipping[0], flipping[1]] = [3, -3] * 4
    shares = count_stable(pairs, wiring, 2, 400, seed=0)[0]
    assert shares[constant] > 0.6
    # The one pair is in a draw of eight with probability 1 - (7/8)^8.
    assert shares[outlier] == pytest.approx(1 - (7 / 8) ** 8, abs=0.08)
    assert shares[flipping] < 0.5
    assert not shares[~wiring.visible].any()
    scores = EdgeScores(
        wiring, pairs.mean(axis=0), pairs.mean(axis=0).sum(axis=2), "eap", "zero", "logit-diff", "logits"
    )
    for few in (None, pairs[:1]):
        with pytest.raises(UserError, match="give several"):
            select_edges(scores, "stable", Goal(4, (0,), pairs=few))
    # Of two equal pairs every draw is the same, so nothing is lost.
    equal = np.repeat(np.abs(build_scores(SMALL, 0, positions=1).edges[None]), 2, axis=0)
    kept = select_edges(replace(scores, edges=equal[0]), "stable", Goal(wiring.edges, (0,), pairs=equal))
    assert kept.mask.sum() == wiring.edges


def test_more_edges_than_there_are_keep_the_whole_graph() -> None:
    """Asking for more than everything gives every edge on a path to the logits."""
    scores = build_scores(Plan(layers=1, heads=2, kv_heads=1), 0)
    assert keep_strongest(scores, 10**6).sum() == scores.wiring.edges * POSITIONS


def test_nodes_have_their_scores_and_arcs_join_heads_that_share_keys() -> None:
    """A writer's own score, of what only reads the sum over its edges, 0 for the logits; arcs go forward."""
    plan = Plan(layers=2, heads=4, kv_heads=2)
    scores = build_scores(plan, 0)
    attention = np.full((2, 4, POSITIONS, POSITIONS), 0.125, dtype=np.float32)
    attention[1, 3] = 0.0
    mask = np.broadcast_to(scores.wiring.visible, scores.edges.shape)
    circuit = assemble(scores, mask, 5, attention)
    assert circuit.requested == 5 and circuit.total == scores.wiring.edges * POSITIONS == len(circuit.edges)
    names = {f"a{layer}.{kind}{n}" for layer in range(2) for kind, count in (("kv", 2), ("h", 4)) for n in range(count)}
    assert {node.component.name for node in circuit.nodes} == names | {"embed", "m0", "m1", "logits"}
    for node in circuit.nodes:
        into = [edge.score for edge in circuit.edges if edge.reader == node.id]
        out = [edge.score for edge in circuit.edges if edge.writer == node.id]
        wanted = 0.0 if node.component.kind is Kind.LOGITS else sum(out or into)
        assert node.score == pytest.approx(wanted, abs=1e-5), node.id
    assert {(move.source, move.target) for move in circuit.moves} == {
        (f"a{layer}.kv{head // 2}@{start}", f"a{layer}.h{head}@{stop}")
        for layer in range(2)
        for head in range(4 - layer)
        for stop in range(POSITIONS)
        for start in range(stop + 1)
    }


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
