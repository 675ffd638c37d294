"""Figures and tables: the numbers in them are those of the run."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.graph import Component, Kind
from probes.facts import Fact
from workbench.answers import Condition, Prediction
from workbench.runs import Run
from workbench.views.figures import (
    draw_probabilities,
    escape_html,
    gather_attention,
    map_scores,
    sum_scores,
)
from workbench.views.memories import find_kept, read_block
from workbench.views.tables import search_facts, tabulate_circuit, tabulate_edges, tabulate_facts


def test_the_map_sums_node_scores_over_positions(run: Run) -> None:
    table, columns, strongest = sum_scores(run)
    assert columns == ["h0", "h1", "h2", "h3", "explicit", "MLP", "bank"]
    index = run.scores.wiring.find_writer("a2.h1")
    assert table[2, 1] == pytest.approx(run.scores.nodes[:, index].sum(), rel=1e-5)
    assert np.isnan(table[0, 4])
    position = int(np.abs(run.scores.nodes[:, index]).argmax())
    assert strongest[2, 1] == f"a2.h1@{position}"


def test_the_map_is_centred_and_clickable(run: Run) -> None:
    figure = map_scores(run)
    heat, marks = figure.data
    assert heat.zmin == -heat.zmax
    assert heat.colorbar.title.text == "logits"
    assert len(marks.customdata) == len(marks.x)
    assert marks.customdata[0][0].count("@") == 1


def test_attention_has_a_column_for_every_memory(run: Run) -> None:
    weights, columns = gather_attention(run, 1, 2)
    assert columns[:2] == ["memory 1", "memory 2"]
    assert weights.shape == (5, 7)
    np.testing.assert_allclose(weights[:, 0], run.recording.memory[0, 2, :, 0].astype(float).sum(-1))
    assert gather_attention(run, 0, 2)[0].shape == (5, 5)


def test_labels_of_plots_escape_markup() -> None:
    assert escape_html("<&>") == "&lt;&amp;&gt;"


def test_probabilities_are_those_of_the_conditions() -> None:
    conditions = (
        Condition("parameters", "p", (Prediction(" a", 1, 0.5),), Prediction(" b", 2, 0.25)),
        Condition("bank", "p", reason="no bank"),
    )
    figure = draw_probabilities(conditions, ["·a", "·b"], [1, 2])
    assert [list(bar.y) for bar in figure.data] == [[0.5], [0.25]]
    assert list(figure.data[0].x) == ["parameters"]


def test_kept_tokens_carry_their_attention(run: Run) -> None:
    block = {"id": "d", "text": "a b", "tokens": ["a", " b", " c"], "kept": [[[0, 1, 1, -1, 2, 2], [0] * 6]]}
    run.about["memories"]["explicit"] = {"layers": [1], "blocks": [block]}
    component = Component(Kind.EXPLICIT, 1, 1, 0)
    weights = run.recording.memory[0, 1, 3, 0].astype(float)
    kept = find_kept(run, component, 3)
    assert kept == pytest.approx({0: weights[0], 1: weights[1] + weights[2], 2: weights[4] + weights[5]})
    assert read_block(run, 5) is None
    assert find_kept(run, Component(Kind.EXPLICIT, 2, 1, 0), 3) == {}


def test_facts_are_found_by_words() -> None:
    facts = [
        Fact("f1", "Norland", "capital", "Oskarville", "p", " a", split="train", bucket=3, cluster_path=(1, 2)),
        Fact("f2", "Southia", "capital", "Tannstad", "p", " a", split="never-seen"),
    ]
    assert [fact.id for fact in search_facts(facts, "CAPITAL nor")] == ["f1"]
    assert [fact.id for fact in search_facts(facts, "", split="never-seen")] == ["f2"]
    table = tabulate_facts(facts)
    assert table["clusters"] == ["1 › 2", ""]
    assert table["bucket"] == [3, None]


def test_tables_of_edges(run: Run) -> None:
    edge = run.circuit.edges[0]
    rows = tabulate_edges([edge], run.tokens, "writer", "logits")
    assert rows["logits"] == [edge.score]
    assert rows["from"][0].startswith(edge.writer)
    assert len(tabulate_circuit(run.circuit, 4)["writer"]) == 4
