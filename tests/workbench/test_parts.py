"""Parts of a run: kept, saved, replayed, checked exactly and exported; what cannot be asked is one clear line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx
import pytest

from circuits.graph import Kind
from circuits.parts import PART_KINDS, WEIGHED
from probes.errors import UserError
from tests.small_world import ship_world
from workbench import checks, cli, pipeline
from workbench.checks import Measured, PartCheck, check_part
from workbench.engine import Engine, open_engine
from workbench.exports import EXPORTS
from workbench.exports_json import read_json, write_json
from workbench.exports_tables import PART_COLUMNS
from workbench.pipeline import trace
from workbench.replaying import replay
from workbench.runs import Run, encode_run, load_run, save_run
from workbench.settings import Question, Settings

SETTINGS = Settings(edges=60, device="cpu", parts=6, into=("logits", "m2", "a2.kv0.v"))
UNSEEN = Question(fact="capital/Anna")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Engine of the small world."""
    with ship_world(tmp_path_factory.mktemp("world") / "shipped"):
        yield open_engine(SETTINGS)


@pytest.fixture(scope="module")
def traced(engine: Engine) -> Run:
    """A fact read from an explicit memory beside bank blocks, traced with its parts."""
    return trace(engine, UNSEEN, SETTINGS)


def test_a_run_keeps_the_strongest_of_every_kind(traced: Run) -> None:
    """As nodes and into each reader, strongest first; every node of the circuit has its own few."""
    kept = traced.parts
    assert kept is not None
    assert (kept.asked, kept.readers, kept.method, kept.unit) == (6, SETTINGS.into, "eap", "logits")
    for kind in PART_KINDS:
        strongest = kept.list_strongest(kind)
        assert len(strongest) == 6
        assert [abs(p.score) for p in strongest] == sorted((abs(p.score) for p in strongest), reverse=True)
        for part in strongest:
            assert (part.contribution is None) == (part.renormalised is None) == (kind not in WEIGHED)
    assert {part.component.kind for part in kept.parts if part.reader == "m2"} == set(PART_KINDS) - {Kind.HEAD}
    assert len(kept.list_strongest(Kind.MLP, "logits")) == 6
    node = next(node for node in traced.circuit.nodes if node.component.kind is Kind.MLP)
    assert 1 <= len(kept.list_of(node.id)) <= 6
    assert all(part.node == node.id for part in kept.list_of(node.id))


def test_sums_of_kept_attention_edges_are_the_heads(traced: Run) -> None:
    """With every source kept, a head's edges add up to its node's score: both are EAP under the run's ablation."""
    kept = traced.parts
    assert kept is not None
    for node in traced.circuit.nodes:
        found = kept.list_of(node.id)
        if node.component.kind is Kind.HEAD and node.position < 5:
            assert sum(part.score for part in found) == pytest.approx(node.score, abs=1e-4)


def test_parts_survive_the_folder_and_a_replay(engine: Engine, traced: Run, tmp_path: Path) -> None:
    """Saved, loaded and traced again they are the same, byte for byte; a changed one is named."""
    save_run(traced, tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert loaded.parts == traced.parts
    assert encode_run(loaded) == encode_run(traced)
    assert replay(loaded, engine) == ()
    assert "--parts 6 --into logits --into m2 --into a2.kv0.v" in loaded.about["command"]
    assert loaded.parts is not None
    first = loaded.parts.parts[0]
    moved = replace(loaded.parts, parts=(replace(first, score=first.score + 1), *loaded.parts.parts[1:]))
    (row,) = replay(replace(loaded, parts=moved), engine)
    assert (row.name, row.difference) == (f"parts.{first.id}.score", pytest.approx(-1.0))


def test_a_run_without_parts_has_the_bytes_it_always_had(engine: Engine, run: Run) -> None:
    assert "parts" not in json.loads(encode_run(run)["run.json"])
    bare = trace(engine, UNSEEN, replace(SETTINGS, parts=0, into=()))
    assert bare.parts is None


@pytest.mark.parametrize("ablation", ["counterfactual", "mean", "zero", "memory-contribution", "memory-renormalised"])
def test_every_kind_is_checked_in_every_way(engine: Engine, traced: Run, ablation: str) -> None:
    """Recorded estimates stand beside exact removal; those made now are the recorded ones."""
    settings = replace(SETTINGS, ablation=ablation, parts=2, into=())
    run = trace(engine, UNSEEN, settings)
    assert run.parts is not None
    for kind in PART_KINDS:
        strongest = run.parts.list_strongest(kind)
        if not strongest:
            # Without the memories nothing before them differs.
            assert ablation.startswith("memory")
            continue
        part = strongest[0]
        found = check_part(engine, run, part.id)
        again = check_part(engine, replace(run, parts=None), part.id)
        assert (found.recorded, again.recorded) == (True, False)
        ways = {way.removal: way for way in found.ways}
        wanted = {"ablated", "contribution", "renormalised"} if kind in WEIGHED else {"ablated"}
        assert set(ways) == (wanted - {"ablated"} if (kind, ablation) == (Kind.HEAD, "mean") else wanted)
        for way, other in zip(found.ways, again.ways, strict=True):
            assert way.exact == other.exact
            assert way.estimate == pytest.approx(other.estimate, abs=1e-5)
        into = check_part(engine, run, part.id, "logits") if kind is not Kind.HEAD and part.position == 5 else None
        assert into is None or into.reader == "logits"


@pytest.mark.parametrize(
    ("part", "reader", "message"),
    [
        ("m1.u999@2", "", "m1.u999 is no part: m1 has 48"),
        ("m9.u1@2", "", "not a writer"),
        ("m1.u1@99", "", "positions 0 to"),
        ("m1@2", "", "is no part"),
        ("m1.u1", "", "not a node id"),
        ("m1.u1@2", "m1", "a reader in a later layer"),
        ("m1.u1@2", "nothing", "not a reader"),
        ("a1.h1.p1@2", "logits", "leave --into out"),
        ("a1.h1.p4@2", "", "sources stand before destinations"),
        ("a1.h9.p1@2", "", "no head 9"),
        ("x1.h0.b7.s0@2", "", "not a writer"),
    ],
)
def test_what_is_no_part_is_refused(engine: Engine, traced: Run, part: str, reader: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_part(engine, traced, part, reader)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": 0, "into": ("m2",)}, "say with --parts how many"),
        ({"metric": "kl"}, "where KL is flat"),
        ({"parts": -1}, "whole number from 0"),
        ({"into": ("m99",)}, "'m99' is not a reader"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(engine: Engine, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trace(engine, UNSEEN, replace(SETTINGS, **changes))


def test_a_data_set_keeps_what_means_the_same_in_every_pair(engine: Engine) -> None:
    """Attention edges, and units and slots of memories that differ from pair to pair, are left out and named."""
    run = trace(engine, Question(facts=("capital/France", "capital/Italy")), replace(SETTINGS, into=()))
    assert run.parts is not None
    assert {part.component.kind for part in run.parts.parts} == {Kind.MLP}
    assert {part.position for part in run.parts.parts} == {0}
    assert [reason.split(":")[0] for reason in run.parts.left_out] == ["attention edges", "units of bank blocks"]
    found = check_part(engine, run, run.parts.parts[0].id)
    assert found.ways[0].estimate == run.parts.parts[0].score
    with pytest.raises(UserError, match="trace one pair alone"):
        check_part(engine, run, "a1.h1.p0@0")


def test_exports_carry_parts(traced: Run, build_run: Callable[..., Run]) -> None:
    """JSON whole, GraphML as nodes joined to their wholes and readers, CSV as a table of their own."""
    for run in (traced, build_run(parts=3)):
        assert run.parts is not None
        assert read_json(write_json(run)).parts == run.parts
        graph = networkx.parse_graphml(EXPORTS["graphml"].write(run).decode(), force_multigraph=True)
        wholes = {(a, b) for a, b, data in graph.edges(data=True) if data["relation"] == "part"}
        assert wholes == {(part.id, part.node) for part in run.parts.parts}
        into = [data["score"] for *_, data in graph.edges(data=True) if data["relation"] == "part edge"]
        assert sorted(into) == sorted(part.score for part in run.parts.parts if part.reader)
        for part in run.parts.parts:
            assert graph.nodes[part.id]["kind"] == PART_KINDS[part.component.kind]
            if not part.reader:
                assert graph.nodes[part.id]["score"] == part.score
        rows = list(csv.DictReader(io.StringIO(EXPORTS["csv-parts"].write(run).decode(), newline="")))
        assert tuple(rows[0]) == tuple(PART_COLUMNS)
        assert [(r["part"], r["reader"], float(r["score"])) for r in rows] == [
            (part.id, part.reader, part.score) for part in run.parts.parts
        ]
    slots = list(csv.DictReader(io.StringIO(EXPORTS["csv-parts"].write(traced).decode(), newline="")))
    assert " Oslo" in {row["source"] for row in slots if row["kind"] == "memory slot"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "m1@2"}, "does not match"),
        ({"id": "m99.u1@2"}, "none of this graph"),
        ({"reader": "m99"}, "none of this graph"),
        ({"kind": "bank unit"}, r"\$\.parts\.list\[0\]\.kind is 'bank unit', its id says 'FFN unit'"),
        ({"position": 4}, r"\$\.parts\.list\[0\]\.position is 4, its id says"),
        ({"score": "high"}, "is not of type 'number'"),
        ({"colour": "red"}, "'colour' was unexpected"),
    ],
)
def test_a_fault_of_a_part_is_named(build_run: Callable[..., Run], changes: dict[str, Any], message: str) -> None:
    document = json.loads(write_json(build_run(parts=2)))
    document["parts"]["list"][0].update(changes)
    with pytest.raises(UserError, match=message):
        read_json(json.dumps(document).encode())


def test_an_edited_run_is_refused(build_run: Callable[..., Run], tmp_path: Path) -> None:
    save_run(build_run(parts=2), tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    about = json.loads(path.read_text())
    for key, value in (("reader", "m99"), ("id", "m1"), ("score", None)):
        entry = about["parts"]["list"][0]
        kept, entry[key] = entry[key], value
        path.write_text(json.dumps(about))
        with pytest.raises(UserError):
            load_run(tmp_path / "run")
        entry[key] = kept


def test_the_command_line_shows_and_checks_parts(
    build_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`show` lists them, `check` tells a part from a node, `export` has their table; none for a run without."""
    run, bare = build_run(parts=3), build_run()
    assert run.parts is not None
    save_run(run, tmp_path / "run")
    save_run(bare, tmp_path / "bare")
    assert cli.main(["show", str(tmp_path / "run"), "--parts", "2"]) == 0
    out = capsys.readouterr().out
    assert run.parts.list_strongest(Kind.EXPLICIT)[1].id in out and "into logits" in out and "renormalised" in out
    assert cli.main(["show", str(tmp_path / "run"), "--parts", "0", "--json"]) == 0
    assert "parts" not in json.loads(capsys.readouterr().out)
    found = PartCheck("x1.h0.b0.s2@4", "m2", (Measured("contribution", None, 0.25),), "logits", "eap", "zero", False)
    asked: list[Any] = []
    monkeypatch.setattr(pipeline, "open_engine", lambda settings, tick: None)
    monkeypatch.setattr(checks, "check_part", lambda *given: asked.append(given[2:4]) or found)
    assert cli.main(["check", str(tmp_path / "bare"), "x1.h0.b0.s2@4", "--into", "m2"]) == 0
    out = capsys.readouterr().out
    assert asked == [("x1.h0.b0.s2@4", "m2")] and "made now" in out and "0.25" in out
    for arguments, message in (
        (["check", str(tmp_path / "run"), "m1@4", "--into", "m2"], "is a whole node"),
        (["export", str(tmp_path / "bare"), "--to", "csv", "--table", "parts", "--out", "x.csv"], "kept no parts"),
        (["trace", "--fact", "x", "--into", "m2"], "say with --parts how many"),
    ):
        assert cli.main(arguments) == 2
        assert message in capsys.readouterr().err
    out_file = tmp_path / "parts.csv"
    assert cli.main(["export", str(tmp_path / "run"), "--to", "csv", "--table", "parts", "--out", str(out_file)]) == 0
    assert out_file.read_text().startswith("part,kind,reader")
