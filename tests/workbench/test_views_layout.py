"""The layout: deterministic, nothing overlaps, every node and edge of the view is drawn and none beside."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from circuits.graph import Kind, Plan
from workbench.runs import Run
from workbench.views.drawing import Glyph, View
from workbench.views.layout import lay_out
from workbench.views.routing import spread
from workbench.views.svg import view_run

HOSTILE = ["<img onerror=x>", "</script>", "$\\write18{}", "=cmd()", "\x00\x1b\u202e", "]]>&amp;\n"]


def overlap(a: Glyph, b: Glyph) -> bool:
    """Whether two shapes' boxes share area."""
    return abs(a.x - b.x) * 2 < a.width + b.width and abs(a.y - b.y) * 2 < a.height + b.height


def test_the_same_view_gives_the_same_drawing(build_run: Any) -> None:
    one, two = build_run(), build_run()
    assert lay_out(one.circuit, one.tokens, View()) == lay_out(two.circuit, two.tokens, View())


@pytest.mark.parametrize("edges", [1, 5, 30, 120])
def test_no_two_nodes_overlap(build_run: Any, edges: int) -> None:
    run = build_run(edges=edges)
    glyphs = lay_out(run.circuit, run.tokens, view_run(run)).glyphs
    assert not [(a.id, b.id) for a, b in combinations(glyphs, 2) if overlap(a, b)]


def test_every_node_edge_and_move_of_the_view_is_drawn(run: Run) -> None:
    drawing = lay_out(run.circuit, run.tokens, View(edges=12))
    shown = run.circuit.prune(12)
    assert {glyph.id for glyph in drawing.glyphs if not glyph.id.startswith("memory:")} == {n.id for n in shown.nodes}
    assert sum(not line.dashed for line in drawing.lines) == drawing.shown == 12
    assert sum(line.role == "move" for line in drawing.lines) == len(shown.moves)
    assert drawing.kept == 30
    assert drawing.total == run.circuit.total


def test_layers_go_up_and_positions_go_right(run: Run) -> None:
    drawing = lay_out(run.circuit, run.tokens, View())
    nodes = {node.id: node for node in run.circuit.nodes}
    for a, b in combinations([glyph for glyph in drawing.glyphs if glyph.id in nodes], 2):
        first, second = nodes[a.id], nodes[b.id]
        if first.component.layer < second.component.layer:
            assert a.y > b.y
        if first.position < second.position:
            assert a.x < b.x


def test_everything_lies_inside_the_drawing(build_run: Any) -> None:
    run = build_run(edges=120)
    drawing = lay_out(run.circuit, run.tokens, view_run(run))
    for glyph in drawing.glyphs:
        assert glyph.width / 2 <= glyph.x <= drawing.width - glyph.width / 2
        assert glyph.height / 2 <= glyph.y <= drawing.height - glyph.height / 2


def test_each_memory_read_is_joined_to_its_source_once(build_run: Any) -> None:
    run = build_run(edges=120)
    drawing = lay_out(run.circuit, run.tokens, view_run(run))
    reads = {node.id for node in run.circuit.nodes if node.component.kind in (Kind.EXPLICIT, Kind.BANK)}
    joined = [line.target for line in drawing.lines if line.role == "memory"]
    assert reads
    assert sorted(joined) == sorted(reads)
    sources = [glyph for glyph in drawing.glyphs if glyph.id.startswith("memory:")]
    assert max(source.x for source in sources) < min(g.x for g in drawing.glyphs if g.id in reads)


def test_without_memories_there_is_no_lane(build_run: Any) -> None:
    bare = build_run(plan=Plan(layers=3, heads=4, kv_heads=2))
    drawing = lay_out(bare.circuit, bare.tokens, View())
    assert not [line for line in drawing.lines if line.role == "memory"]
    assert "memories" not in {text.text for text in drawing.texts}


def test_a_node_outside_the_view_is_not_marked(run: Run) -> None:
    node = run.circuit.nodes[0].id
    assert lay_out(run.circuit, run.tokens, View(selected=node)).selected == node
    assert lay_out(run.circuit, run.tokens, View(selected="a9.h9@9")).selected == ""


def test_many_tokens_are_labelled_aslant(build_run: Any) -> None:
    run = build_run(tokens=[f" token{number}" for number in range(60)], edges=10)
    texts = lay_out(run.circuit, run.tokens, View()).texts
    assert sum(text.angle != 0 for text in texts) == 60


def test_a_deep_model_with_a_small_circuit_stays_low(build_run: Any) -> None:
    deep = build_run(plan=Plan(layers=48, heads=4, kv_heads=2), edges=3)
    assert lay_out(deep.circuit, deep.tokens, View()).height < 48 * 42


def test_hostile_tokens_are_shown_visibly(build_run: Any) -> None:
    run = build_run(tokens=HOSTILE, edges=120)
    drawing = lay_out(run.circuit, run.tokens, View())
    everything = [text.text for text in drawing.texts] + [glyph.label + glyph.title for glyph in drawing.glyphs]
    assert not [text for text in everything if set(text) & set("\x00\x1b\u202e\n")]


def test_spread_keeps_order_and_distance() -> None:
    assert spread([10, 10, 10], 0, 100, 20) == [10, 30, 50]
    assert spread([95, 96], 0, 100, 20) == [80, 100]
    assert spread([], 0, 1, 1) == []
