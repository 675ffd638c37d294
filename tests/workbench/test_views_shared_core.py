"""Circuits laid over each other: what all share, what one has alone, and how that is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from circuits.graph import Plan
from probes.errors import UserError
from workbench.runs import EVERYWHERE, Run
from workbench.views.shared_core import (
    WIDTHS,
    choose_part,
    draw_overlay,
    merge_plans,
    overlay,
    tabulate_overlay,
    tabulate_own,
)
from workbench.views.svg import write_svg

Build = Callable[..., Run]


def test_a_run_over_itself_shares_everything(run: Run) -> None:
    """By position every edge returns with its own score."""
    found = overlay([("a", run), ("b", run)], by_position=True)
    assert found.count_shares() == {"all": len(run.circuit.edges), "most": 0, "some": 0, "one": 0}
    assert found.overlap == 1.0 and found.tokens == tuple(run.tokens)
    scores = {(edge.writer, edge.reader, edge.role): edge.score for edge in run.circuit.edges}
    assert {(e.writer, e.reader, e.role): e.score for e in found.circuit.edges} == pytest.approx(scores)


def test_shares_count_the_circuits_that_have_an_edge(run: Run) -> None:
    """Of five circuits with 30, 20, 20, 10 and 10 edges of one ranking, 10 are in all and 10 in three."""
    sizes = (30, 20, 20, 10, 10)
    named = [(f"r{place}", replace(run, circuit=run.circuit.prune(size))) for place, size in enumerate(sizes)]
    found = overlay(named, by_position=True)
    assert found.count_shares() == {"all": 10, "most": 10, "some": 0, "one": 10}
    assert tabulate_own(found) == {
        "run": ["r0", "r1", "r2", "r3", "r4"],
        "edges": list(sizes),
        "shared with all": [10] * 5,
        "its own": [10, 0, 0, 0, 0],
    }
    part = choose_part(found, ["one"], only=0)
    assert len(part.edges) == 10 and choose_part(found, ["one"], only=1).edges == ()
    assert set(tabulate_overlay(found, part)["of"]) == {"r0"}


def test_without_positions_edges_of_all_positions_are_one(build_run: Build) -> None:
    first, second = build_run(seed=1), build_run(tokens=("x", "y"), seed=2)
    found = overlay([("a", first), ("b", second)])
    assert found.tokens == (EVERYWHERE,)
    assert all(node.position == 0 for node in found.circuit.nodes)
    assert len({(e.writer, e.reader, e.role) for e in found.circuit.edges}) == len(found.circuit.edges)
    drawing = draw_overlay(found, found.circuit, len(found.circuit.edges), "")
    widths = {(line.source, line.target, line.role): line.width for line in drawing.lines if not line.dashed}
    assert widths == {key: WIDTHS[found.name_share(owners)] for key, owners in found.owners.items()}
    hollow = {glyph.id for glyph in drawing.glyphs if glyph.fill == "#ffffff" and glyph.id in found.holders}
    alone = {name for name, holders in found.holders.items() if len(holders) == 1}
    assert hollow - {"embed@0"} == alone - {"embed@0"}
    assert "One of" not in drawing.caption and "laid over each other" in write_svg(drawing)


def test_what_cannot_be_compared_is_refused(run: Run, build_run: Build) -> None:
    with pytest.raises(UserError, match="choose two"):
        overlay([("a", run)])
    other = replace(run, circuit=replace(run.circuit, metric="prob", unit="probability"))
    with pytest.raises(UserError, match="different ways"):
        overlay([("a", run), ("b", other)])
    with pytest.raises(UserError, match="different shapes"):
        merge_plans([Plan(2, 4, 2), Plan(3, 4, 2)])
    with pytest.raises(UserError, match="number of tokens"):
        overlay([("a", run), ("b", build_run(tokens=("x", "y")))], by_position=True)
    assert merge_plans([Plan(2, 4, 2, bank_layers=(1,), levels=1), Plan(2, 4, 2, explicit_layers=(0,), blocks=2)]) == (
        Plan(2, 4, 2, explicit_layers=(0,), blocks=2, bank_layers=(1,), levels=1)
    )
