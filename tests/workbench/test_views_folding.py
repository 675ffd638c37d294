"""Supernodes, pins, names, notes and hidden nodes in the drawing: sums are right, nothing is lost or made up."""

from __future__ import annotations

from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import pytest

from circuits.graph import Kind
from workbench.runs import Run
from workbench.views.curation import Curation, Group
from workbench.views.drawing import View
from workbench.views.folding import arrange, drop_rings, find_rank
from workbench.views.graph_component import encode_drawing
from workbench.views.layout import lay_out
from workbench.views.svg import draw_run

HOSTILE = "<img onerror=x> </script> $\\write18{} =cmd() \x00\u202e"


def pick_heads(run: Run, count: int) -> tuple[str, ...]:
    """Some heads of the circuit, strongest first."""
    heads = [node for node in run.circuit.nodes if node.component.kind is Kind.HEAD]
    return tuple(node.id for node in sorted(heads, key=lambda node: -abs(node.score))[:count])


def test_nothing_made_of_it_leaves_the_circuit_as_it_is(run: Run) -> None:
    arranged = arrange(run.circuit, 12, Curation())
    assert arranged.circuit == run.circuit.prune(12)
    assert arranged.edges == 12


def test_hidden_nodes_go_with_their_edges(run: Run) -> None:
    node = pick_heads(run, 1)[0]
    arranged = arrange(run.circuit, None, Curation(hidden=(node,)))
    gone = sum(map(len, run.circuit.list_edges_of(node)))
    assert gone and arranged.edges == len(run.circuit.edges) - gone
    assert arranged.circuit.find_node(node) is None


def test_pinned_nodes_stay_when_their_edges_go(run: Run) -> None:
    last = run.circuit.edges[-1].writer
    arranged = arrange(run.circuit, 1, Curation(pinned=(last,)))
    assert arranged.circuit.find_node(last) is not None
    alone = arrange(run.circuit, None, Curation(pinned=(last,), alone=True))
    assert [node.id for node in alone.circuit.nodes] == [last]


def test_a_supernode_adds_up_its_members_and_their_edges(build_run: Any) -> None:
    run = build_run(edges=120)
    members = pick_heads(run, 3)
    arranged = arrange(run.circuit, None, Curation(groups=(Group("group:1", "g", members),)))
    (anchor,) = arranged.groups
    assert anchor == members[0] and arranged.counts == {anchor: 3}
    nodes = {node.id: node.score for node in run.circuit.nodes}
    folded = arranged.circuit.find_node(anchor)
    assert folded is not None and folded.score == pytest.approx(sum(nodes[one] for one in members))
    out = [e for e in run.circuit.edges if e.writer in members and e.reader not in members]
    merged = [e for e in arranged.circuit.edges if e.writer == anchor]
    assert {e.reader for e in merged} == {e.reader for e in out}
    for edge in merged:
        behind = [e.score for e in out if e.reader == edge.reader]
        assert edge.score == pytest.approx(sum(behind))
        assert arranged.sums[anchor, edge.reader] == len(behind)
    untouched = [e for e in run.circuit.edges if not {e.writer, e.reader} & set(members)]
    assert [e for e in arranged.circuit.edges if not {e.writer, e.reader} & {anchor}] == untouched
    assert arranged.edges == len(run.circuit.edges)


def test_edges_inside_a_supernode_are_not_drawn(run: Run) -> None:
    everything = tuple(node.id for node in run.circuit.nodes)
    arranged = arrange(run.circuit, None, Curation(groups=(Group("group:1", "all", everything),)))
    assert arranged.circuit.edges == () == arranged.circuit.moves
    assert len(arranged.circuit.nodes) == 1


def test_the_drawing_shows_what_a_reader_made(build_run: Any) -> None:
    run = build_run(edges=60)
    one, two, three, four = pick_heads(run, 4)
    curation = Curation(
        pinned=(one, "group:1"),
        groups=(Group("group:1", HOSTILE, (two, three)),),
        names=((four, "mover"),),
        notes=((four, HOSTILE), ("group:1", "why")),
    )
    drawing = lay_out(run.circuit, run.tokens, View(curation=curation, selected=two))
    glyphs = {glyph.id: glyph for glyph in drawing.glyphs}
    assert two not in glyphs and three not in glyphs
    box = glyphs["group:1"]
    assert (box.members, box.pinned, box.shape, drawing.selected) == (2, True, "box", "group:1")
    assert glyphs[one].pinned and glyphs[four].label == "mover" and glyphs[four].mark == "1"
    assert drawing.notes[0].startswith(f"1. {four} (mover): <img") and "\x00" not in drawing.notes[0]
    ends = {end for line in drawing.lines for end in (line.source, line.target)}
    assert ends <= set(glyphs)
    assert "group:1" in ends
    for a, b in combinations(drawing.glyphs, 2):
        assert abs(a.x - b.x) * 2 >= a.width + b.width or abs(a.y - b.y) * 2 >= a.height + b.height


def test_the_file_carries_pins_groups_names_and_notes(build_run: Any) -> None:
    run = build_run(edges=60)
    one, two, three = pick_heads(run, 3)
    curation = Curation((one,), (Group("group:1", HOSTILE, (two, three)),), ((one, "mover"),), ((one, HOSTILE),))
    svg = draw_run(run, curation=curation)
    root = ElementTree.fromstring(svg.encode())
    texts = [element.text or "" for element in root.iter()]
    assert "mover" in texts and "1" in texts
    assert any(text.startswith("1. ") and "<img onerror=x>" in text for text in texts)
    assert any("supernode" in text for text in texts)
    assert not [text for text in texts if set(text) & set("\x00\u202e")]
    assert svg.count('stroke-dasharray="3 2"') == 1
    assert svg == draw_run(run, curation=curation)


def test_the_component_gets_supernodes_and_marks(run: Run) -> None:
    members = pick_heads(run, 2)
    curation = Curation(groups=(Group("group:1", "g", members),), notes=(("group:1", "n"),))
    data = encode_drawing(lay_out(run.circuit, run.tokens, View(curation=curation)))
    (node,) = [node for node in data["nodes"] if node["id"] == "group:1"]
    assert (node["members"], node["mark"], node["fixed"]) == (2, "1", False)


def test_everything_hidden_is_an_empty_picture(run: Run) -> None:
    curation = Curation(hidden=tuple(node.id for node in run.circuit.nodes))
    drawing = lay_out(run.circuit, run.tokens, View(curation=curation))
    assert drawing.shown == 0 and not drawing.lines


def test_a_pin_changes_the_drawing_only_where_its_node_would_not_be_drawn(run: Run) -> None:
    ranks = find_rank(run.circuit)
    near, far = min(ranks, key=ranks.__getitem__), max(ranks, key=ranks.__getitem__)
    edges = ranks[far] - 1
    assert drop_rings(run.circuit, edges, Curation(pinned=(near, far))) == Curation(pinned=(far,))
    assert drop_rings(run.circuit, edges, Curation(pinned=(near,))) == Curation()
    alone, group = Curation(pinned=(near,), alone=True), Group("group:1", "g", (near, far))
    assert drop_rings(run.circuit, edges, alone) == alone
    grouped = Curation(pinned=("group:1",), groups=(group,))
    assert drop_rings(run.circuit, edges, grouped) == grouped
    assert drop_rings(run.circuit, len(run.circuit.edges), grouped) == Curation(groups=(group,))
    for state in (Curation(pinned=(near, far)), grouped):
        drawn, kept = (
            encode_drawing(lay_out(run.circuit, run.tokens, View(edges=edges, curation=one)))
            for one in (state, drop_rings(run.circuit, edges, state))
        )
        assert drawn == kept
