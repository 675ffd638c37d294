"""Circuits to and from other tools: their key sets and rules, what comes back, what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from circuits.graph import Kind, Plan
from probes.errors import UserError
from workbench.cli import main
from workbench.exports import EXPORTS
from workbench.exports_json import read_json, write_json
from workbench.formats.attribution_graph import encode_graph, pair_numbers, write_attribution_files
from workbench.formats.eap import encode_eap, list_all_edges, write_eap
from workbench.importing import Imported, read_circuit
from workbench.runs import Run
from workbench.view_files import SavedView, load_view, save_view
from workbench.views.curation import Curation, Group
from workbench.views.layout import lay_out
from workbench.views.svg import draw_run, view_run

TEXT, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
# What the published schema ("Anthropic Attribution Graph" 1.0.0) asks for of what we write, in our words.
ASKED = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["metadata", "qParams", "nodes", "links"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["slug", "scan", "prompt_tokens", "prompt"],
            "properties": {
                **dict.fromkeys(("slug", "scan", "prompt"), TEXT),
                "prompt_tokens": {"type": "array", "items": TEXT},
                "node_threshold": NUMBER,
                "info": {
                    "type": "object",
                    "properties": {
                        "description": TEXT,
                        "generator": {"type": "object", "properties": {"name": TEXT, "version": TEXT}},
                    },
                },
                "generation_settings": {"type": "object"},
            },
        },
        "qParams": {
            "type": "object",
            "properties": {
                "pinnedIds": {"type": "array", "items": TEXT},
                "supernodes": {"type": "array"},
                **dict.fromkeys(("linkType", "clickedId", "sg_pos"), TEXT),
            },
        },
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"],
                "properties": {
                    **dict.fromkeys(("node_id", "feature_type", "jsNodeId", "clerp"), TEXT),
                    **dict.fromkeys(("feature", "ctx_idx"), INTEGER),
                    "layer": {"type": ["string", "integer"]},
                    "activation": {"type": ["number", "null"]},
                },
            },
        },
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["source", "target", "weight"],
                "properties": {"source": TEXT, "target": TEXT, "weight": NUMBER},
            },
        },
    },
}


def find_nulls(value: Any, place: str = "$") -> list[str]:
    """Where a JSON value holds null."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in find_nulls(item, f"{place}.{key}")]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in find_nulls(item, f"{place}[{index}]")]
    return [place] if value is None else []


def test_an_attribution_graph_obeys_the_schema_and_the_viewers_rules(run: Run) -> None:
    graph = encode_graph(run, "norland", pinned=[run.circuit.nodes[0].id])
    jsonschema.Draft7Validator(ASKED).validate(graph)
    nodes, metadata = graph["nodes"], graph["metadata"]
    own = metadata["generation_settings"].pop("memory_circuits")
    assert own["format"] == "memory-circuits/circuit"
    assert not find_nulls(metadata) and "node_threshold" not in metadata
    ids = [node["node_id"] for node in nodes]
    assert len(set(ids)) == len(ids) and not any("," in name or "supernode-" in name for name in ids)
    assert max(Counter((n["layer"], n["feature"], n["ctx_idx"]) for n in nodes).values()) == 1
    assert all(0 <= node["ctx_idx"] < len(metadata["prompt_tokens"]) for node in nodes)
    assert all({link["source"], link["target"]} <= set(ids) for link in graph["links"])
    outputs = [node for node in nodes if node["feature_type"] == "logit"]
    assert outputs and all(re.fullmatch(r'Output ".*" \(p=[\d.?]+\)', node["clerp"]) for node in outputs)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", metadata[name]) for name in ("slug", "scan"))
    for node in nodes:
        if node["feature_type"] not in ("logit", "embedding"):
            layer, index, position = map(int, node["node_id"].split("_"))
            assert node["feature"] == pair_numbers(layer, index) and position == node["ctx_idx"]


def test_links_carry_the_circuits_scores_and_attention_shares_them_out(run: Run) -> None:
    graph = encode_graph(run, "norland")
    names = {node.id: value["node_id"] for node, value in zip(run.circuit.nodes, graph["nodes"], strict=True)}
    for node in run.circuit.nodes:
        sent = sum(link["weight"] for link in graph["links"] if link["source"] == names[node.id])
        own = sum(edge.score for edge in run.circuit.edges if edge.writer == node.id)
        moves = any(move.source == node.id and move.weight for move in run.circuit.moves)
        assert sent == pytest.approx(own + (node.score if moves else 0.0), abs=1e-9)


def test_the_files_beside_are_what_the_local_viewer_reads(run: Run) -> None:
    files = write_attribution_files(run, "a b/ü")
    (slug,) = {name.removesuffix(".query.txt") for name in files if name.endswith(".query.txt")}
    assert set(files) == {f"{slug}.json", "graph-metadata.json", f"{slug}.query.txt"}
    listed = json.loads(files["graph-metadata.json"])["graphs"]
    assert listed == [json.loads(files[f"{slug}.json"])["metadata"]] and listed[0]["slug"] == slug
    assert files[f"{slug}.query.txt"].startswith(f"?slug={slug}&".encode())


def test_our_graph_comes_back_whole_with_pins_and_groups(build_run: Callable[..., Run]) -> None:
    run = build_run(parts=2)
    some = [node.id for node in run.circuit.nodes[:3]]
    graph = encode_graph(run, "norland", pinned=some[:1], groups={"two": some[1:]})
    found = read_circuit(json.dumps(graph).encode())
    assert found.circuit == read_json(write_json(run))
    assert (found.pinned, found.groups) == ((some[0],), {"two": some[1:]})


def make_transcoder_graph() -> dict[str, Any]:
    """An attribution graph as circuit-tracer writes it: features, an error node, embeddings, one output."""

    def node(name: str, kind: str, layer: str, position: int, **more: Any) -> dict[str, Any]:
        about = {"node_id": name, "feature_type": kind, "layer": layer, "ctx_idx": position, "feature": 1}
        return {**about, "jsNodeId": name, "clerp": "", **more}

    nodes = [
        node("E_5_0", "embedding", "E", 0), node("E_6_1", "embedding", "E", 1),
        node("0_7_0", "cross layer transcoder", "0", 0), node("0_8_0", "cross layer transcoder", "0", 0),
        node("0_1_1", "mlp reconstruction error", "1", 1), node("1_3_1", "lorsa", "1", 1),
        node("3_9_1", "logit", "3", 1, clerp='Output " Paris" (p=0.830)', token_prob=0.83),
    ]  # fmt: skip
    links = [("E_5_0", "0_7_0", 1.0), ("E_5_0", "0_8_0", 0.5), ("0_7_0", "0_8_0", 9.0), ("0_7_0", "0_1_1", 2.0),
             ("0_8_0", "0_1_1", -0.5), ("0_1_1", "3_9_1", 4.0), ("E_6_1", "3_9_1", 0.25),
             ("1_3_1", "3_9_1", 7.0)]  # fmt: skip
    metadata = {"slug": "s", "scan": "gemma-2-2b", "prompt_tokens": ["The", " capital"], "prompt": "The capital"}
    marks = {"pinnedIds": ["0_7_0", "E_6_1", "gone"], "supernodes": [["capital", "0_7_0", "0_1_1"]]}
    pairs = [{"source": source, "target": target, "weight": weight} for source, target, weight in links]
    return {"metadata": metadata | {"node_threshold": None}, "qParams": marks, "nodes": nodes, "links": pairs}


def test_features_of_transcoders_are_added_up_to_their_ffn_and_the_rest_is_named() -> None:
    found = read_circuit(json.dumps(make_transcoder_graph()).encode())
    scores = {(edge.writer, edge.reader): edge.score for edge in found.circuit.circuit.edges}
    assert scores == {
        ("m1@1", "logits@1"): 4.0,
        ("embed@0", "m0@0"): 1.5,
        ("m0@0", "m1@1"): 1.5,
        ("embed@1", "logits@1"): 0.25,
    }
    assert (found.pinned, found.groups) == (("embed@1",), {"capital": ["m0@0", "m1@1"]})
    assert found.circuit.title == "The capital → Paris"
    notes = " ".join(found.notes)
    assert "1 nodes of type lorsa" in notes and "1 links inside one layer" in notes
    assert_usable(found)


def assert_usable(found: Imported) -> None:
    """An imported circuit can be kept, read back, drawn and exported to everything that needs no extra."""
    circuit = read_json(write_json(found.circuit))
    assert circuit.circuit == found.circuit.circuit
    assert draw_run(circuit).startswith("<?xml")
    for name, export in EXPORTS.items():
        if name not in ("pdf", "png"):
            assert export.write(circuit)


def test_gpt2_small_has_as_many_edges_as_eap_ig_says() -> None:
    names = list(list_all_edges(Plan(12, 12, 12)))
    assert len(names) == len(set(names)) == 32_491


@pytest.mark.parametrize("parallel", [False, True])
def test_eap_ig_has_exactly_its_keys_and_the_graph_s_sums(build_run: Callable[..., Run], parallel: bool) -> None:
    plan = Plan(layers=2, heads=4, kv_heads=2, parallel=parallel, explicit_layers=(1,), blocks=1)
    run = build_run(plan=plan, edges=40)
    document, dropped = encode_eap(run)
    assert set(document) == {"cfg", "nodes", "edges"}
    assert set(document["cfg"]) == {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"}
    assert list(document["edges"]) == list(list_all_edges(plan))
    assert all(set(edge) == {"score", "in_graph"} for edge in document["edges"].values())
    assert all(set(node) == {"score", "in_graph"} for node in document["nodes"].values())
    wiring, edges = run.scores.wiring, run.scores.edges.astype(float).sum(axis=0)
    kinds = (Kind.EXPLICIT,)
    writers = [place for place, writer in enumerate(wiring.writers) if writer.kind not in kinds]
    readers = [place for place, reader in enumerate(wiring.readers) if reader.component.kind not in kinds]
    total = sum(edge["score"] for edge in document["edges"].values())
    assert total == pytest.approx(edges[writers][:, readers].sum())
    memory = [node.id for node in run.circuit.nodes if node.component.kind in kinds]
    assert memory and dropped["nodes"] == memory
    inside = [edge for edge in run.circuit.edges if not {edge.writer, edge.reader} & set(memory)]
    assert len(inside) + len(dropped["edges"]) == len(run.circuit.edges)


def test_eap_ig_comes_back_as_a_circuit_without_positions(build_run: Callable[..., Run]) -> None:
    run = build_run(plan=Plan(layers=2, heads=2, kv_heads=2), edges=30)
    document = json.loads(write_eap(run))
    found = read_circuit(write_eap(run))
    kept = {name: edge["score"] for name, edge in document["edges"].items() if edge["in_graph"]}
    assert sorted(edge.score for edge in found.circuit.circuit.edges) == pytest.approx(sorted(kept.values()))
    again = encode_eap(found.circuit)[0]
    assert {name: edge["score"] for name, edge in again["edges"].items() if edge["in_graph"]} == pytest.approx(kept)
    assert "positions" in found.notes[0]
    assert_usable(found)


def break_document(document: dict[str, Any], path: list[Any], value: Any) -> bytes:
    """A document with one value changed."""
    *way, last = path
    here: Any = document
    for step in way:
        here = here[step]
    here[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["nodes", 0, "ctx_idx"], 9, r"nodes\[0\]\.ctx_idx is 9"),
        (["nodes", 2, "feature_type"], 4, r"nodes\[2\]\.feature_type is 4"),
        (["links", 1, "weight"], "big", r"links\[1\]\.weight is 'big'"),
        (["metadata", "prompt_tokens"], None, r"prompt_tokens is None"),
        (["links"], {}, r"\$\.links is \{\}"),
        (["nodes", 4, "layer"], "1" + "0" * 12, r"no model is so deep"),
    ],
)
def test_a_graph_that_is_none_is_refused_by_the_field(path: list[Any], value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_circuit(break_document(make_transcoder_graph(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["edges", "input->m0", "score"], None, r"score is None"),
        (["edges", "input->x0"], {}, r"'input->x0', which is no edge"),
        (["cfg", "n_layers"], 0, r"has 0 layers"),
        (["edges", "m9->logits"], {"score": 1.0, "in_graph": True}, r"which a model of its cfg has not"),
    ],
)
def test_an_eap_graph_that_is_none_is_refused(
    build_run: Callable[..., Run], path: list[Any], value: Any, message: str
) -> None:
    run = build_run(plan=Plan(layers=2, heads=2, kv_heads=2), edges=30)
    document = json.loads(write_eap(run))
    document["edges"]["input->m0"]["in_graph"] = True
    with pytest.raises(UserError, match=message):
        read_circuit(break_document(document, path, value))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": "memory-circuits/run"}', b"\xff\xfe", b'{"a": NaN}'])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(UserError, match="not a circuit file"):
        read_circuit(data)


def test_import_and_export_on_the_command_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph, circuit = tmp_path / "norland.json", tmp_path / "circuit.json"
    assert main(["export", str(run_folder), "--to", "attribution-graph", "--out", str(graph)]) == 0
    assert (tmp_path / "graph-metadata.json").is_file() and (tmp_path / "norland.query.txt").is_file()
    capsys.readouterr()
    assert main(["import", str(graph), "--out", str(circuit), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["edges"]) == ("attribution-graph", 30)
    assert main(["figure", "circuit", str(circuit), "--out", str(tmp_path / "c.svg")]) == 0
    assert main(["export", str(circuit), "--to", "eap", "--out", str(tmp_path / "e.json")]) == 0
    dropped = json.loads((tmp_path / "e.dropped.json").read_text())
    assert dropped["nodes"] and dropped["unit"] == "logits"
    assert main(["figure", "map", str(circuit), "--out", str(tmp_path / "m.svg")]) == 2
    assert "needs a whole run" in capsys.readouterr().err


def test_pins_and_supernodes_of_a_graph_or_of_the_viewer_s_address_become_a_view(
    run: Run, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned, *members = [node.id for node in run.circuit.nodes if node.component.layer in (0, 1)][:4]
    state = Curation(pinned=(pinned,), groups=(Group("group:1", "mine & <yours>", tuple(members)),))
    view = save_view(run_folder, SavedView(30, "", state))
    graph, circuit = tmp_path / "graphs" / "norland.json", tmp_path / "circuit.json"
    words = ["export", str(run_folder), "--to", "attribution-graph", "--view", view, "--out", str(graph)]
    assert main(words) == 0
    bare = json.loads(graph.read_bytes())
    bare["qParams"] = {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""}
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    query = str(graph.parent / "norland.query.txt")
    for source, given in ((graph, []), (tmp_path / "bare.json", ["--query", query])):
        capsys.readouterr()
        assert main(["import", str(source), *given, "--out", str(circuit), "--json"]) == 0
        number = json.loads(capsys.readouterr().out)["view"]
        kept, lost = load_view(circuit, number, read_circuit(circuit.read_bytes()).circuit.circuit)
        assert (kept.curation.pinned, kept.curation.groups, lost) == (state.pinned, state.groups, 0)
        out = tmp_path / "c.svg"
        assert main(["figure", "circuit", str(circuit), "--view", number, "--out", str(out)]) == 0
        assert "mine &amp; &lt;yours&gt;" in out.read_text()
        (tmp_path / "circuit.view.json").unlink()
    assert main(["import", str(tmp_path / "bare.json"), "--out", str(circuit)]) == 0
    assert not (tmp_path / "circuit.view.json").exists()
    assert main(["import", str(graph), "--query", "nothing=1"]) == 2
    assert "no pinnedIds or supernodes" in capsys.readouterr().err


def test_a_drawing_of_edges_across_positions_has_all_of_them() -> None:
    found = read_circuit(json.dumps(make_transcoder_graph()).encode()).circuit
    drawing = lay_out(found.circuit, found.tokens, replace(view_run(found), edges=None))
    assert len([line for line in drawing.lines if line.role == "in"]) == len(found.circuit.edges)
