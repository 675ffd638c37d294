"""Blocking: what is blocked is what a path loses, facts are grouped around the targets, scores are those of runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from circuits.intervals import estimate_mean
from circuits.problem import record_run
from probes.attachments import Attachment
from probes.bank import GENERIC, fetch_blocks, load_bank
from probes.facts import Fact, load_facts
from probes.models import load_model
from tests.small_world import write_world
from workbench.banks import encoding
from workbench.banks.blocking import Blocking, Scorer, draw_control, group_facts, measure_blocking
from workbench.banks.routing import Router, Vectors, list_tensors
from workbench.cli import main
from workbench.commands.blocking import parse_block
from workbench.memory.search import Encoder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("blocking") / "world")


@pytest.mark.parametrize(
    ("blocking", "levels"),
    [
        (Blocking("block", ((1, 1),)), (0,)),
        (Blocking("block", ((2, 3),)), (1,)),
        (Blocking("block", ((2, 2),)), ()),
        (Blocking("subtree", ((1, 1),), below=True), (0, 1, 2)),
        (Blocking("subtree", ((2, 3),), below=True), (1, 2)),
        (Blocking("subtree", ((1, 0),), below=True), ()),
        (Blocking("level", whole_level=3), (2,)),
    ],
)
def test_what_a_path_loses(blocking: Blocking, levels: tuple[int, ...]) -> None:
    assert blocking.list_levels((1, 3, 7), 2) == levels
    assert blocking.list_levels((GENERIC,) * 3, 2) == (), "the generic blocks are of no cluster"


def make_fact(name: str, relation: str, path: tuple[int, ...]) -> Fact:
    return Fact(name, name, relation, "x", f"{name} is", " x", cluster_path=path)


def test_every_fact_is_in_one_group() -> None:
    facts = [
        make_fact("a", "capital", (0, 1)),
        make_fact("b", "river", (0, 1)),
        make_fact("c", "capital", (1, 2)),
        make_fact("d", "river", (1, 2)),
    ]
    groups = group_facts(facts, facts[:1])
    assert {name: [fact.id for fact in group] for name, group in groups.items()} == {
        "target": ["a"],
        "same leaf": ["b"],
        "same relation": ["c"],
        "everything else": ["d"],
    }


def test_scores_are_those_of_single_runs(world: Path) -> None:
    """In a batch, each with its own blocks, blocked or not, facts score as alone; answers of several tokens too."""
    model = load_model(str(world / "model"), device="cpu")
    bank, facts = load_bank(world / "bank", model), load_facts(world)
    blocking = Blocking("subtree", ((1, 0),), below=True)
    for instead in ("nothing", "generic"):
        for blocked in (None, blocking):
            scores = Scorer(model, bank, instead).score(facts, blocked, lambda *_: None, "")
            for row, fact in enumerate(facts):
                path = fact.cluster_path
                hit = blocked is not None and path[0] == 0
                blocks = fetch_blocks(bank, model, (GENERIC, GENERIC) if hit and instead == "generic" else path)
                if hit and instead == "nothing":
                    blocks = blocks.silence((0, 1))
                prompt = model.encode(fact.prompt)
                answer = model.encode_plain(fact.answer)
                _, logits = record_run(model, torch.tensor([[*prompt, *answer[:-1]]]), Attachment(bank=blocks))
                steps = logits[0, len(prompt) - 1 :].log_softmax(dim=-1)
                wanted = sum(float(steps[step, token]) for step, token in enumerate(answer))
                assert scores.log_probability[row] == pytest.approx(wanted, abs=1e-4)
                assert scores.correct[row] == (steps.argmax(dim=-1).tolist() == answer)


def test_only_what_reads_the_blocks_forgets(world: Path) -> None:
    """Facts of other subtrees keep their score exactly; the random control of one of two subtrees is the other."""
    model = load_model(str(world / "model"), device="cpu")
    bank, facts = load_bank(world / "bank", model), load_facts(world)
    blocking = Blocking("subtree", ((1, 0),), below=True)
    targets = [fact for fact in facts if fact.cluster_path[0] == 0]
    rows = {row["group"]: row for row in measure_blocking(model, bank, facts, blocking, targets)}
    assert rows["target"]["n"] == len(targets) and rows["target"]["drop"] != 0 == rows["target"]["random_drop"]
    other = rows["same relation"]
    assert other["drop"] == 0 and other["interval"] == [0, 0] and other["random_drop"] != 0
    assert rows == {row["group"]: row for row in measure_blocking(model, bank, facts, blocking, targets)}
    control = draw_control(bank, blocking, np.random.default_rng(0))
    assert control is not None and control.roots == ((1, 1),) and control.below
    assert draw_control(bank, Blocking("level", whole_level=1), np.random.default_rng(0)) is None


def test_the_interval_holds_the_mean() -> None:
    values = np.random.default_rng(0).normal(1.0, 1.0, size=400)
    low, high = estimate_mean(values, np.random.default_rng(1)).interval
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_the_command(world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows as JSON or a table; what the bank does not have, and a text that states nothing, are one error."""
    for place in ("workbench.engine", "workbench.library"):
        monkeypatch.setattr(f"{place}.find_shipped", lambda: world)
    base = ["bank", "block", "--model", str(world / "model"), "--bank", str(world / "bank"), "--draws", "2"]
    assert main([*base, "--subtree", "1:0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["group"] for row in printed["rows"]] == ["target", "same relation"]
    assert main([*base, "--level", "2", "--instead", "generic"]) == 0
    text = capsys.readouterr().out
    assert "level 2" in text and "target" in text
    for arguments, message in (
        (["--block", "3:0"], "levels 1 to 2"),
        (["--block", "2:4"], "cluster 4"),
        (["--block", "2-4"], "such as 2:17"),
        (["--block", "2:0"], "no fact reads"),
        (["--document", "document/Nowhere"], "no document"),
        (["--document", "document/France"], "router"),
        (["--subtree", "1:0", "--limit", "1"], "--limit"),
    ):
        assert main([*base, *arguments]) == 2
        assert message in capsys.readouterr().err
    assert parse_block("2:17", "--block") == (2, 17)


def test_facts_of_ones_own_are_routed_and_the_shipped_ones_are_not_taken_for_theirs(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bank with a router of its own: its facts come from a table, by that router; without one it is refused."""
    shutil.copytree(world / "bank", tmp_path / "bank")
    centroids = np.eye(2, dtype=np.float32), np.array([[1, 0.1], [1, -0.1], [0.1, 1], [-0.1, 1]], np.float32)
    save_file(dict(list_tensors(Router(centroids, 2))), tmp_path / "bank" / "router.safetensors")

    def encode(texts: Sequence[str]) -> Vectors:
        return np.array([[0.1, 0.9] if "Italy" in text else [0.9, 0.1] for text in texts], np.float32)

    monkeypatch.setattr(encoding, "DEFAULT_ENCODER", Encoder("places", encode))
    encoding.open_encoder.cache_clear()
    rows = [
        {"id": name, "subject": name, "relation": "capital", "object": city, "prompt": f"The capital of {name} is",
         "answer": f" {city}"}
        for name, city in (("Italy", "Rome"), ("France", "Paris"), ("Anna", "Oslo"))
    ]  # fmt: skip
    (tmp_path / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    start = ["bank", "block", "--model", str(world / "model"), "--bank", str(tmp_path / "bank"), "--json"]
    asked = [*start, "--matching", "Rome is the capital of Italy.", "--facts", str(tmp_path / "facts.jsonl")]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert "clusters 1 > 2" in found["blocked"]
    assert {row["group"]: row["n"] for row in found["rows"]} == {"target": 1, "same relation": 2}
    assert main([*start, "--level", "1"]) == 2
    assert "give facts of your own with --facts" in capsys.readouterr().err
    encoding.open_encoder.cache_clear()
