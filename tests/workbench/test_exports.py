"""Every format: the same bytes for the same run, nothing hostile gets through, and what can be read back is."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import networkx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuits.graph import Plan
from probes.errors import UserError
from workbench.exports import EXPORTS
from workbench.exports_graphml import clean_xml
from workbench.exports_json import COPIED, encode_document, load_schema, read_json, write_json
from workbench.exports_tables import EDGE_COLUMNS, NODE_COLUMNS
from workbench.runs import Run, load_run, save_run
from workbench.views.drawing import View
from workbench.views.layout import lay_out

TABLES = ("csv", "csv-nodes")
HOSTILE = [
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(1)",
    " =1",
    "\t=1",
    "\r\n",
    "\x00\x1b[31m",
    "\ufffe",
    "\ud800",
    "<&>\"'",
    "]]>",
    "\u202e",
    "日本語",
    "",
]
hostile_tokens = st.lists(st.text(st.characters(), max_size=8) | st.sampled_from(HOSTILE), min_size=5, max_size=5)


def read_table(data: bytes) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_the_table_is_keyed_by_name_and_says_what_is_lost(name: str) -> None:
    export = EXPORTS[name]
    assert export.name == name
    assert export.suffix.startswith(".")
    assert export.label
    assert export.drops


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_equal_runs_give_equal_bytes(name: str, build_run: Callable[..., Run]) -> None:
    assert EXPORTS[name].write(build_run(parts=2)) == EXPORTS[name].write(build_run(parts=2))
    assert EXPORTS[name].write(build_run(parts=2)) != EXPORTS[name].write(build_run(seed=1, parts=2))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(tokens=hostile_tokens)
def test_hostile_tokens_survive_json(build_run: Callable[..., Run], tokens: list[str]) -> None:
    run = build_run(tokens=tokens, parts=2)
    read = read_json(write_json(run))
    assert (read.circuit, read.parts) == (run.circuit, run.parts)
    assert read.tokens == run.tokens
    assert read.about == {name: run.about[name] for name in COPIED}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(tokens=hostile_tokens)
def test_hostile_tokens_survive_graphml(build_run: Callable[..., Run], tokens: list[str]) -> None:
    run = build_run(tokens=tokens)
    graph = networkx.parse_graphml(EXPORTS["graphml"].write(run).decode(), force_multigraph=True)
    assert set(graph.nodes) == {node.id for node in run.circuit.nodes}
    assert graph.number_of_edges() == len(run.circuit.edges) + len(run.circuit.moves)
    for node in run.circuit.nodes:
        assert graph.nodes[node.id]["score"] == node.score
        assert graph.nodes[node.id].get("token", "") == clean_xml(tokens[node.position])
    found = sorted(data["score"] for *_, data in graph.edges(data=True) if data["relation"] == "edge")
    assert found == sorted(edge.score for edge in run.circuit.edges)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(tokens=hostile_tokens)
def test_no_cell_starts_a_formula(build_run: Callable[..., Run], tokens: list[str]) -> None:
    run = build_run(tokens=tokens, parts=2)
    for name in (*TABLES, "csv-parts"):
        for row in read_table(EXPORTS[name].write(run)):
            assert not row["token"].lstrip().startswith(("=", "+", "-", "@"))
            assert not row["token"].startswith(("\t", "\r"))


def test_tables_hold_every_edge_and_node(run: Run) -> None:
    edges, nodes = (read_table(EXPORTS[name].write(run)) for name in TABLES)
    assert tuple(edges[0]) == tuple(EDGE_COLUMNS)
    assert tuple(nodes[0]) == tuple(NODE_COLUMNS)
    assert [(row["writer"], row["reader"], row["role"], float(row["score"])) for row in edges] == [
        (edge.writer, edge.reader, edge.role, edge.score) for edge in run.circuit.edges
    ]
    assert [(row["node"], float(row["score"])) for row in nodes] == [
        (node.id, node.score) for node in run.circuit.nodes
    ]


def test_parallel_edges_are_kept_apart_in_graphml(run: Run) -> None:
    graph = networkx.parse_graphml(EXPORTS["graphml"].write(run).decode(), force_multigraph=True)
    keys = [key for *_, key in graph.edges(keys=True)]
    assert len(set(keys)) == len(keys)


def test_the_schema_is_one_and_our_documents_obey_it(run: Run, build_run: Callable[..., Run]) -> None:
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for one in (run, build_run(parts=2)):
        jsonschema.Draft202012Validator(schema).validate(json.loads(write_json(one)))


def edit_document(document: Any, path: list[Any], value: Any) -> None:
    """Set (or with `...` remove) the value at a path."""
    *way, last = path
    for step in way:
        document = document[step]
    if value is ...:
        del document[last]
    else:
        document[last] = value


FAULTS: list[tuple[list[Any], Any, str]] = [
    (["nodes", 3, "score"], "high", r"\$\.nodes\[3\]\.score: 'high' is not of type 'number'"),
    (["nodes", 0, "score"], None, r"\$\.nodes\[0\]\.score: None is not of type 'number'"),
    (["nodes", 0, "score"], True, r"\$\.nodes\[0\]\.score: True is not of type 'number'"),
    (["nodes", 0, "colour"], "red", r"\$\.nodes\[0\]: .*'colour' was unexpected"),
    (["nodes", 0, "id"], "m1", r"\$\.nodes\[0\]\.id: 'm1' does not match"),
    (["nodes", 0, "kind"], "neuron", r"\$\.nodes\[0\]\.kind: 'neuron' is not one of \['embedding'"),
    (["edges", 2, "role"], "o", r"\$\.edges\[2\]\.role: 'o' is not one of \['q'"),
    (["edges", 2, "writer"], ..., r"\$\.edges\[2\]: 'writer' is a required property"),
    (["moves"], ..., r"\$: 'moves' is a required property"),
    (["plan", "layers"], 0, r"\$\.plan\.layers: 0 is less than the minimum of 1"),
    (["plan", "layers"], 2.5, r"\$\.plan\.layers: 2.5 is not of type 'integer'"),
    (["unit"], "bits", r"\$\.unit: 'bits' is not one of \['logits'"),
    (["requested"], -1, r"\$\.requested: -1 is less than the minimum of 0"),
    (["pairs", 0, "clean_tokens", 1], 7, r"\$\.pairs\[0\]\.clean_tokens\[1\]: 7 is not of type 'string'"),
]


@pytest.mark.parametrize(("path", "value", "message"), FAULTS, ids=lambda value: str(value)[:30])
def test_a_fault_is_named_and_the_oracle_agrees(run: Run, path: list[Any], value: Any, message: str) -> None:
    document = json.loads(write_json(run))
    edit_document(document, path, value)
    assert not jsonschema.Draft202012Validator(load_schema()).is_valid(document)
    with pytest.raises(UserError, match=message):
        read_json(json.dumps(document).encode())


def test_references_must_hold(run: Run) -> None:
    cases: list[tuple[list[Any], Any, str]] = [
        (["edges", 0, "writer"], "m0@99", r"\$\.edges\[0\]\.writer is 'm0@99', which no node has as id"),
        (["nodes", 0, "position"], 3, r"\$\.nodes\[0\]\.position is 3, its id says"),
        (["pairs", 0, "clean_tokens"], [], r"\$\.nodes\[0\]\.position is \d, beyond the prompt's tokens"),
    ]
    for path, value, message in cases:
        document = json.loads(write_json(run))
        document["nodes"].sort(key=lambda node: node["position"] == 3)
        edit_document(document, path, value)
        with pytest.raises(UserError, match=message):
            read_json(json.dumps(document).encode())
    document = json.loads(write_json(run))
    document["nodes"].append(document["nodes"][0])
    with pytest.raises(UserError, match="for the second time"):
        read_json(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": NaN}', "NaN is not a JSON number"),
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b"[]", "its format is not"),
        (b'{"format": "memory-circuits/run"}', "its format is not"),
        (b'{"format": "memory-circuits/circuit", "version": 3}', "version 3; this release reads 2"),
        (b'{"format": "memory-circuits/circuit", "version": 1}', "it has no pair"),
        (b'{"format": "memory-circuits/circuit", "version": 2}', r"\$: '\w+' is a required property"),
    ],
)
def test_what_is_no_circuit_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_json(data)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "1" + "0" * 400])
def test_a_number_that_no_float_holds_is_refused(run: Run, text: str) -> None:
    document = json.loads(write_json(run))
    document["edges"][0]["score"] = 12345678
    data = json.dumps(document).replace("12345678", text).encode()
    with pytest.raises(UserError, match=r"\$\.edges\[0\]\.score: .* is not of type 'number'"):
        read_json(data)


def test_whole_numbers_are_scores_too(run: Run) -> None:
    document = encode_document(run)
    document["edges"][0]["score"] = 3
    read = read_json(json.dumps(document).encode())
    assert read.circuit.edges[0].score == 3.0
    assert isinstance(read.circuit.edges[0].score, float)


def test_a_run_with_a_broken_number_is_not_written(run: Run) -> None:
    edges = (replace(run.circuit.edges[0], score=math.nan), *run.circuit.edges[1:])
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(replace(run, circuit=replace(run.circuit, edges=edges)))


def test_experts_survive_files(build_run: Callable[..., Run], tmp_path: Path) -> None:
    """A mixture's experts write under names of their own, its one reader under the layer's; both are read back."""
    run = build_run(plan=Plan(layers=3, heads=4, kv_heads=2, expert_layers=(0, 1), experts=3), edges=400)
    names = {node.component.name for node in run.circuit.nodes}
    assert {"m0.e1", "m1", "m2"} <= names and "m2.e0" not in names
    assert read_json(write_json(run)).circuit == run.circuit
    save_run(run, tmp_path / "mixture")
    assert load_run(tmp_path / "mixture").circuit == run.circuit


def test_learned_key_values_survive_files(build_run: Callable[..., Run], tmp_path: Path) -> None:
    """Blocks of learned key-values are nodes of a kind of their own, in JSON, run folder and figure."""
    run = build_run(plan=Plan(layers=2, heads=4, kv_heads=2, learned_layers=(0, 1), learned=2), edges=200)
    assert {"k0.l0", "k1.l1"} <= {node.component.name for node in run.circuit.nodes}
    assert read_json(write_json(run)).circuit == run.circuit
    save_run(run, tmp_path / "learned")
    assert load_run(tmp_path / "learned").circuit == run.circuit
    drawing = lay_out(run.circuit, run.tokens, View())
    assert {"k0.l0", "k1.l1"} <= {glyph.id.partition("@")[0] for glyph in drawing.glyphs}
