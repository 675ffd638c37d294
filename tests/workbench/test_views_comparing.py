"""Two runs compared: every edge is where it was found, differences are those of the scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from circuits.graph import Plan
from probes.errors import UserError
from workbench.runs import Run
from workbench.views.comparing import (
    DASHES,
    compare_runs,
    key_edge,
    mark_difference,
    tabulate_comparison,
)
from workbench.views.drawing import View
from workbench.views.layout import lay_out
from workbench.views.svg import write_svg


def test_a_run_does_not_differ_from_itself(run: Run) -> None:
    comparison = compare_runs(run, run)
    assert comparison.jaccard == 1.0 and not comparison.warnings
    assert {edge.score for edge in comparison.circuit.edges} == {0.0}
    assert len(comparison.circuit.edges) == len(run.circuit.edges)


def test_differences_are_second_minus_first(build_run: Any) -> None:
    first, second = build_run(seed=0), build_run(seed=1)
    comparison = compare_runs(first, second)
    one = {key_edge(edge): edge.score for edge in first.circuit.edges}
    two = {key_edge(edge): edge.score for edge in second.circuit.edges}
    assert set(comparison.edges) == one.keys() | two.keys()
    for edge in comparison.circuit.edges:
        a, b, found = comparison.edges[key_edge(edge)]
        assert edge.score == pytest.approx(b - a)
        assert (
            found
            == {(True, True): "both", (True, False): "first alone", (False, True): "second alone"}[
                key_edge(edge) in one, key_edge(edge) in two
            ]
        )
        if key_edge(edge) in one:
            assert a == one[key_edge(edge)]
        else:
            assert a != 0.0
    assert comparison.count("both") + comparison.count("first alone") == len(one)
    assert {node.id for node in comparison.circuit.nodes} == {
        node.id for run in (first, second) for node in run.circuit.nodes
    }


def test_the_drawing_tells_where_an_edge_is_found_without_colour(build_run: Any) -> None:
    comparison = compare_runs(build_run(seed=0, edges=400), build_run(seed=1, edges=400))
    drawing = mark_difference(lay_out(comparison.circuit, comparison.tokens, View()), comparison)
    residual = [line for line in drawing.lines if line.role not in ("move", "memory")]
    assert {line.dash for line in residual} == set(DASHES.values())
    svg = write_svg(drawing)
    for words in ("in the first circuit alone", "larger in the second run", "second minus first"):
        assert words in svg
    assert "helps the answer" not in svg


def test_what_cannot_be_subtracted_is_refused(build_run: Any, run: Run) -> None:
    nats = replace(run, circuit=replace(run.circuit, unit="nats"))
    with pytest.raises(UserError, match="subtracted"):
        compare_runs(run, nats)
    deeper = build_run(plan=Plan(layers=4, heads=4, kv_heads=2))
    with pytest.raises(UserError, match="layers"):
        compare_runs(run, deeper)


def test_what_makes_two_runs_hard_to_compare_is_told(build_run: Any, run: Run) -> None:
    bare = build_run(plan=Plan(layers=3, heads=4, kv_heads=2), tokens=("A", " b", " c"))
    other = replace(bare, circuit=replace(bare.circuit, method="exact"))
    words = " ".join(compare_runs(run, other).warnings)
    for part in ("method eap and exact", "5 and 3 tokens", "other memories"):
        assert part in words
    assert compare_runs(run, other).tokens[0] == "The/A"


def test_the_table_has_every_edge(build_run: Any) -> None:
    comparison = compare_runs(build_run(seed=0, edges=400), build_run(seed=1, edges=400))
    table = tabulate_comparison(comparison)
    assert len(table["writer"]) == len(comparison.edges)
    assert set(table["found in"]) == set(DASHES)
