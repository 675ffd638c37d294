"""Commands on many facts: which are chosen, which left out and why, and what is printed and written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from circuits.planted.knowledge import ANSWERS, SUBJECTS, WORDINGS, plant_knowledge
from probes.errors import UserError
from probes.facts import Fact
from probes.models import load_model
from workbench import cli, pipeline
from workbench.engine import Engine
from workbench.fact_items import Skipped, build_items, choose_facts, drop_duplicates, keep_known
from workbench.settings import Settings

PLAIN = ["--bank", "none", "--memory", "none"]


def make_fact(name: str, relation: str = "capital", prompt: str = "", answer: str = " x", **more: Any) -> Fact:
    """A fact of its own."""
    return Fact(name, name, relation, answer.strip(), prompt or f"{name} is", answer, split="trained", **more)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The planted model with facts of capitals, which it knows, and one of rivers, whose block is not attached."""
    folder = tmp_path_factory.mktemp("planted")
    plant_knowledge(0).sketch.save(folder)
    rows = [("capital", column) for column in range(3)] + [("river", 0)]
    facts = []
    for relation, column in rows:
        prompts = [wording.format(relation, SUBJECTS[column]) for wording in WORDINGS]
        answer = ANSWERS[relation][column]
        fact = make_fact(f"{relation}/{SUBJECTS[column]}", relation, prompts[0], answer, paraphrases=tuple(prompts[1:]))
        facts.append(replace(fact, subject=SUBJECTS[column]))
    model = load_model(str(folder), device="cpu")
    return Engine(model, None, None, tuple(facts), "{document} {prompt}")


@pytest.fixture
def opened(planted: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Commands open the planted model."""
    monkeypatch.setattr(pipeline, "open_engine", lambda settings, tick: planted)
    return planted


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """JSON document of a command."""
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_facts_are_chosen_by_relation_and_seed() -> None:
    """Equal seeds draw the same; what is not there is refused."""
    facts = [make_fact(f"f{i}", "ab"[i % 2]) for i in range(20)]
    chosen = choose_facts(facts, [], ["a"], "", 3, 0)
    assert len(chosen) == 3 and {fact.relation for fact in chosen} == {"a"}
    assert chosen == choose_facts(facts, [], ["a"], "", 3, 0)
    assert len(choose_facts(facts, [], [], "trained", 4, 0)) == 8
    assert [fact.id for fact in choose_facts(facts, ["f3"], [], "", 1, 0)] == ["f3"]
    with pytest.raises(UserError, match="relation 'c'"):
        choose_facts(facts, [], ["c"], "", 3, 0)
    with pytest.raises(UserError, match="split 'other'"):
        choose_facts(facts, [], [], "other", 3, 0)


def test_duplicates_are_left_out_with_the_reason() -> None:
    """By id, and by the same question and answer; a subject that is part of another is none."""
    first, again = make_fact("Ann"), make_fact("Ann 2", prompt="Ann is")
    other = make_fact("Anna")
    kept, skipped = drop_duplicates([first, first, again, other])
    assert kept == [first, other]
    assert skipped == [Skipped("Ann", "given twice"), Skipped("Ann 2", "asks the same as Ann")]


def test_unknown_facts_are_counted(planted: Engine) -> None:
    """And facts whose prompt is too long say so."""
    long = make_fact("long", prompt="the " * 40)
    items, skipped = build_items(planted, [*planted.facts, long], Settings(bank="none", memory="none"), 2)
    assert len(items) == 8 and [one.fact for one in skipped] == ["long"] and "shorten" in skipped[0].reason
    kept, unknown = keep_known(items, [item.relation == "capital" for item in items])
    assert len(kept) == 6 and [one.fact for one in unknown] == ["river/France"]


def test_specificity(opened: Engine, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The three planted units are specific; the fact that is not known is left out, by name."""
    table = tmp_path / "components.parquet"
    found = run(capsys, "specificity", *PLAIN, "--confirm", "2", "--table", str(table))
    rows = {row["component"]: row for row in found["components"]}
    assert [rows[f"m1.u{unit}"]["label"] for unit in range(3)] == ["specific"] * 3
    assert found["counts"]["units"]["specific"] == 3 and found["facts"] == 3
    assert [one["fact"] for one in found["skipped"]] == ["river/France"]
    confirmed = [row for row in found["components"] if row.get("drop_own") is not None and row["kind"] == "units"]
    assert len(confirmed) == 2 and all(row["drop_own"] > 2 > abs(row["drop_neighbours"]) for row in confirmed)
    written = pyarrow.parquet.read_table(table).to_pylist()
    assert [row["component"] for row in written] == [row["component"] for row in found["components"]]
    assert cli.main(["specificity", *PLAIN, "--estimate", "--confirm", "0"]) == 0
    text = capsys.readouterr().out
    assert "left out 1" in text and "river/France" in text
    assert run(capsys, "specificity", *PLAIN) == run(capsys, "specificity", *PLAIN)


def test_one_fact_is_refused(opened: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """It has nothing to be specific against."""
    assert cli.main(["specificity", *PLAIN, "--fact", "capital/France"]) == 2
    assert "give two or more" in capsys.readouterr().err
    assert cli.main(["specificity", *PLAIN, "--table", "x.csv"]) == 2
    assert ".parquet" in capsys.readouterr().err


def test_classes(opened: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """A capital's unit with the head that carries it is specific; the head that finds the relation is abstract."""
    found = run(capsys, "classes", *PLAIN, "--relation", "capital", "--wordings", "4", "--pieces", "edges")
    verdicts = {row["edges"][0].split()[0]: row for row in found["classes"]}
    assert [verdicts[f"m1.u{unit}"]["verdict"] for unit in range(3)] == ["specific"] * 3
    assert verdicts["a0.h1"]["verdict"] == verdicts["a2.h1"]["verdict"] == "abstract"
    assert found["texts"] == 12 and found["skipped"] == []
    assert all(sum(one["members"] for one in row["facts"]) == row["members"] for row in found["classes"])
    assert cli.main(["classes", *PLAIN, "--relation", "capital", "--weight", "gradient", "--pieces", "whole"]) == 0
    assert "nats a unit of a" in capsys.readouterr().out
    assert cli.main(["classes", "--threshold", "2"]) == 2


def test_units_and_probes(opened: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Every depth and layer is there, and what is left out is said."""
    found = run(capsys, "units", *PLAIN, "--relation", "capital", "--steps", "4")
    assert found["facts"] == 3 and len(found["parametric_knowledge"]["layers"]) == 3
    probed = run(capsys, "probe", *PLAIN, "--label", "object", "--least", "1")
    assert len(probed["layers"]) == 4 and probed["labels"] == 4
    for row in probed["layers"]:
        assert row["selectivity"] == pytest.approx(row["accuracy"] - row["control"])
    # After the head that reads the answer it can be read.
    assert probed["layers"][3]["accuracy"] > 0.7
    # At the subject it can be read before that head, which moves it to the end; there the last word tells nothing.
    places = ["--position", "subject", "--position", "last"]
    probed = run(capsys, "probe", *PLAIN, "--relation", "capital", "--label", "object", "--least", "1", *places)
    found = {(row["position"], row["layer"]): row["accuracy"] for row in probed["layers"]}
    assert len(found) == 8 and found["subject", 2] > 0.7 > found["last", 0]
    assert run(capsys, "probe", *PLAIN, "--least", "1", "--position", "-1")["layers"][0]["position"] == "-1"
    assert cli.main(["probe", *PLAIN, "--least", "1", "--position", "middle"]) == 2
    assert "unknown position 'middle'" in capsys.readouterr().err
    assert cli.main(["probe", *PLAIN, "--least", "1", "--position", "30"]) == 2
    assert "lack a position" in capsys.readouterr().err
    assert cli.main(["probe", *PLAIN, "--least", "9"]) == 2
    assert "is shared by 9 facts" in capsys.readouterr().err


def test_lens_and_restore(opened: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer appears after layer 2, and what MLP 1 writes at the subject brings it back."""
    asked = ["--prompt", "capital France is", "--answer", "Paris", *PLAIN]
    found = run(capsys, "lens", *asked, "--foil", "Rome")
    assert [row["answer_rank"] == 1 for row in found["layers"]] == [False, False, False, True]
    assert found["everywhere"] is None
    table = run(capsys, "lens", *asked, "--everywhere")["everywhere"]
    assert [row[-1] for row in table["best"]] == [row["best"] for row in found["layers"]]
    assert [row[-1] for row in table["answer_rank"]] == [row["answer_rank"] for row in found["layers"]]
    assert [row[-1] for row in table["probability"]] == pytest.approx([r["best_probability"] for r in found["layers"]])
    assert len(table["tokens"]) == len(table["ids"]) == len(table["best"][0]) == found["position"] + 1
    pair = ["--foil", "Rome", "--counterfactual", "capital Italy is"]
    restored = run(capsys, "restore", *asked, *pair, "--state", "mlp")
    shares = {
        (layer, position): share for layer, row in enumerate(restored["share"]) for position, share in enumerate(row)
    }
    assert max(shares, key=shares.__getitem__) == (1, 2)
    assert cli.main(["restore", *asked, *pair]) == 0
    assert "put back, by layer" in capsys.readouterr().out
