"""Ledgers of the small world: they add up, are kept and read again; conflicts, tables that resume, placement."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from probes.errors import UserError
from tests.small_world import ship_world
from workbench.cli import main
from workbench.costs.formats import Formats
from workbench.engine import Engine, open_engine
from workbench.ledgers import bulk
from workbench.ledgers.bulk import HEAD, attribute, find_nested, plan
from workbench.ledgers.measuring import describe_source, measure_batch
from workbench.ledgers.placing import place, place_fact, read_usage
from workbench.ledgers.prompts import find_text, lay_fact
from workbench.ledgers.questions import check_memories, lay_question, measure_conflict, measure_question
from workbench.ledgers.table import list_rows, load_ledgers, save_ledgers
from workbench.settings import Question, Settings
from workbench.sweeps.parts import load_table

SETTINGS = Settings(device="cpu", memory="own", text="auto")
UNSEEN = Question(fact="capital/Anna")


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ship_world(tmp_path_factory.mktemp("world") / "shipped", "workbench.commands.placing.find_shipped"):
        yield


@pytest.fixture(scope="module")
def engine(_world: None) -> Engine:
    """Engine of the small world."""
    return open_engine(SETTINGS)


def test_a_ledger_adds_up_in_both_ways_and_reads_again(engine: Engine, tmp_path: Path) -> None:
    """Anchor, memory, two levels and text; every row together is the margin; the file gives the same ledgers."""
    ledgers = measure_question(engine, UNSEEN, SETTINGS)
    assert [ledger.removal for ledger in ledgers] == ["renormalised", "contribution"]
    for ledger in ledgers:
        assert [entry.name for entry in ledger.entries] == ["anchor", "memory 1", "level 1", "level 2", "text"]
        assert ledger.find("memory 1").label == "document/Anna"
        assert ledger.total == pytest.approx(ledger.margin, abs=1e-12)
        assert len(ledger.combinations) == 16
        assert len(ledger.interactions) == 6
        rows = [row["share"] for row in list_rows(ledger) if row["row"] != "format"]
        assert sum(rows) == pytest.approx(ledger.margin, abs=1e-9)
        # The random model is bent far more than a trained one; the two gradients still say most of it.
        entry = ledger.find("memory 1")
        assert abs(entry.residual) < 0.2 * sum(abs(part.share) for part in entry.parts)
        assert entry.tokens and entry.heads
    assert ledgers[0].margin == pytest.approx(ledgers[1].margin, abs=1e-5)
    assert (ledgers[0].held, ledgers[1].held != 0) == (0.0, True)
    path = tmp_path / "ledger.json"
    save_ledgers(ledgers, describe_source(engine, SETTINGS), path)
    assert load_ledgers(path) == ledgers
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(UserError, match="not a ledger of this release"):
        load_ledgers(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="not a ledger"):
        load_ledgers(path)


def test_without_explicit_memory_there_is_one_ledger(engine: Engine) -> None:
    """Ways of removal differ for explicit memories alone."""
    ledgers = measure_question(engine, UNSEEN, replace(SETTINGS, memory="none", text="none"))
    assert [[entry.kind for entry in ledger.entries] for ledger in ledgers] == [["anchor", "bank", "bank"]]


def test_where_the_text_stands_is_found() -> None:
    """Both prompts may start alike and end alike; a question that is not there is refused."""
    assert find_text((0, 5, 6), (0, 9, 8, 5, 6)) == (1, 3, 1)
    assert find_text((5, 6), (9, 8, 5, 6)) == (0, 2, 0)
    assert find_text((0, 7, 6), (0, 9, 8, 5, 6)) == (1, 4, 2)
    with pytest.raises(UserError, match="cannot be aligned"):
        find_text((0, 7), (0, 9, 8, 5))


def test_a_conflict_has_a_winner_and_a_ledger_an_answer(engine: Engine) -> None:
    """Text says one city, memory another: three rivals in nats, likeliest first, each ledger adds up."""
    found = measure_conflict(engine, "capital/Anna", "Rome", "Paris", SETTINGS)
    assert {rival.answer for rival in found.rivals} == {" Rome", " Paris", " Oslo"}
    margins = [rival.ledger.margin for rival in found.rivals]
    assert margins == sorted(margins, reverse=True)
    for rival in found.rivals:
        assert rival.ledger.unit == "nats"
        assert rival.ledger.total == pytest.approx(rival.ledger.margin, abs=1e-12)
        assert "Paris" in rival.ledger.find("memory 1").label
    assert found.to_json()["winner"]["answer"] == found.rivals[0].answer
    with pytest.raises(UserError, match="--text-says"):
        measure_conflict(engine, "capital/Anna", "", "", SETTINGS)


def test_estimates_of_memory_parts_agree_with_their_removal(engine: Engine) -> None:
    """Spearman over slots and units, both ways, with its n."""
    settings = replace(SETTINGS, text="none")
    found = check_memories(engine, lay_question(engine, UNSEEN, settings), settings, 24)
    assert [(check.removal, check.n) for check in found] == [("renormalised", 24), ("contribution", 24)]
    assert all(check.spearman is not None and check.spearman > 0.6 for check in found)
    nothing = replace(settings, bank="none", memory="none")
    laid = lay_question(engine, UNSEEN, nothing)
    with pytest.raises(UserError, match="no memory"):
        check_memories(engine, laid, nothing, 4)


def write_facts(path: Path) -> Path:
    """A table with good facts, and one of each kind that cannot be measured."""
    shipped = [{"id": "capital/France"}, {"id": "capital/Italy"}, {"id": "capital/Anna"}]
    own = {"subject": "Fran", "relation": "capital", "object": "Paris", "prompt": "The capital of Fran is"}
    rows = [
        *shipped,
        {"id": "capital/France"},
        {"id": "inside", **own, "answer": " Paris"},
        {"id": "alone", **own, "subject": "Zed", "relation": "colour", "answer": " Rome"},
        {"id": "broken", "prompt": "The capital of"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_table_counts_every_row_and_resumes_to_the_same_bytes(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every input row is measured or has a reason; stopped after a chunk and resumed, the parts are the same."""
    facts = write_facts(tmp_path / "facts.jsonl")
    settings = replace(SETTINGS, memory="none", metric="logit-diff")

    def know_all(*arguments: object, **options: object) -> list[object]:
        return [replace(ledger, known=True) for ledger in measure_batch(*arguments, **options)]  # type: ignore[arg-type]

    monkeypatch.setattr(bulk, "measure_batch", know_all)
    whole = attribute(engine, facts, tmp_path / "whole", settings, chunk=2)
    assert (whole["facts"], whole["measured"], whole["chunks"]) == (7, 3, 2)
    assert sum(whole["not_measured"].values()) == 4
    reasons = {row["fact"]: row["reason"] for row in load_table(tmp_path / "whole").to_pylist() if row["reason"]}
    assert "duplicate" in reasons["capital/France"]
    assert "stands inside 'France'" in reasons["inside"]
    assert "no other colour fact" in reasons["alone"]
    assert "lacks subject" in reasons["broken"]

    class Stop(Exception):
        pass

    def stop_later(label: str, done: int, total: int) -> None:
        if done:
            raise Stop

    with pytest.raises(Stop):
        attribute(engine, facts, tmp_path / "parts", settings, chunk=2, tick=stop_later)
    resumed = attribute(engine, facts, tmp_path / "parts", settings, chunk=2)
    assert resumed == {**whole, "resumed": 1}
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()
    with pytest.raises(UserError, match="other facts, settings"):
        attribute(engine, facts, tmp_path / "parts", settings, chunk=3)
    rows = [row for row in load_table(tmp_path / "whole").to_pylist() if row["fact"] == "capital/Anna"]
    total = sum(row["share"] for row in rows if row["row"] != "format")
    assert total == pytest.approx(rows[0]["margin"], abs=1e-9)


def test_facts_the_model_does_not_know_have_a_row(engine: Engine, tmp_path: Path) -> None:
    """A random model knows nothing: each fact has one row that says what the model says instead."""
    found = attribute(engine, write_facts(tmp_path / "facts.jsonl"), tmp_path / "table", SETTINGS, chunk=2)
    unknown = found["not_measured"].get("answer not known", 0)
    assert found["measured"] + unknown == 3
    assert found["measured"] + sum(found["not_measured"].values()) == found["facts"]


def test_a_fact_in_a_batch_has_the_ledger_it_has_alone(engine: Engine) -> None:
    """Company and padding change no score."""
    laid = [lay_fact(engine, fact, engine.facts, replace(SETTINGS, memory="none")) for fact in engine.facts[:2]]
    longer = replace(laid[1], plain=laid[1].plain[:1] + laid[1].plain, text=(1, laid[1].text[1], 2))
    both = measure_batch(engine, [laid[0], longer], "renormalised", "logit-diff", 5, 0.0)
    alone = measure_batch(engine, laid[:1], "renormalised", "logit-diff", 5, 0.0)
    for one, other in zip(both[0].entries, alone[0].entries, strict=True):
        assert one.share == pytest.approx(other.share, abs=1e-5)
        assert one.residual == pytest.approx(other.residual, abs=1e-4)


def test_subjects_inside_others_are_found(engine: Engine, tmp_path: Path) -> None:
    """A name inside a longer one, not itself; an empty table is refused."""
    first, second, third = engine.facts
    named = [replace(first, subject="Ann"), replace(second, subject="Anna"), replace(third, subject="Anna")]
    assert find_nested(named) == {"Ann": "Anna"}
    drawn = random.Random(0)
    names = ["".join(drawn.choices("ab", k=drawn.randint(1, 6))) for _ in range(60)]
    longest = sorted(set(names), key=lambda name: (-len(name), name))
    pairs = {name: [other for other in longest if name in other and name != other] for name in names}
    wanted = {name: others[0] for name, others in pairs.items() if others}
    assert find_nested([replace(first, subject=name) for name in names]) == wanted
    (tmp_path / "empty.csv").write_text("id\n")
    with pytest.raises(UserError, match="no rows"):
        plan(engine, tmp_path / "empty.csv", SETTINGS, 2)


def test_placement_by_hand(engine: Engine, tmp_path: Path) -> None:
    """Costs worked out on paper: at 10 reads explicit memory is best; text costs 10 a read."""
    formats = Formats(
        {"text": 0.0, "explicit": 20.0, "parameters": 500.0}, {"text": 10.0, "explicit": 1.0, "parameters": 0.0}
    )
    (ledger,) = measure_question(engine, UNSEEN, SETTINGS, ("renormalised",))
    entries = [replace(entry, share=1.0 if entry.kind == "text" else 0.0) for entry in ledger.entries]
    found = place_fact(replace(ledger, entries=tuple(entries)), 10.0, formats)
    assert (found.lives, found.recommended, found.cost, found.cost_recommended) == ("text", "explicit", 100.0, 30.0)
    assert (found.saving, found.saving_moved) == (70.0, 70.0)
    entries = [replace(entry, share=1.0 if entry.kind == "anchor" else 0.0) for entry in ledger.entries]
    found = place_fact(replace(ledger, entries=tuple(entries)), 10.0, formats)
    assert (found.lives, found.saving, found.saving_moved) == ("parameters", 470.0, -30.0)
    path = write_facts(tmp_path / "facts.jsonl")
    placements, refused = place(engine, path, read_usage(path, 5.0), formats, SETTINGS)
    assert [one.fact for one in placements] == ["capital/France", "capital/Italy", "capital/Anna"]
    assert len(refused) == 4
    with pytest.raises(UserError, match="has no usage"):
        read_usage(path, None)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ledger, attribute and place print one JSON document each; bad input is exit code 2."""
    given = ["--device", "cpu", "--json"]
    assert (
        main(
            [
                "ledger",
                "--fact",
                "capital/Anna",
                "--memory",
                "own",
                "--check",
                "6",
                "--out",
                str(tmp_path / "l.json"),
                *given,
            ]
        )
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert [len(document[name]) for name in ("ledgers", "agreement")] == [2, 2]
    assert len(load_ledgers(tmp_path / "l.json")) == 2
    assert main(["ledger", "--fact", "capital/Anna", "--memory-says", "Rome", *given]) == 0
    assert json.loads(capsys.readouterr().out)["conflict"]["winner"]
    facts = tmp_path / "facts.csv"
    with facts.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "usage"], ["capital/France", "3"], ["capital/Italy", "1e6"]])
    assert main(["attribute", str(facts), "--out", str(tmp_path / "table"), *given]) == 0
    assert json.loads(capsys.readouterr().out)["facts"] == 2
    assert (tmp_path / "table" / HEAD).is_file()
    assert main(["place", str(facts), *given]) == 0
    assert len(json.loads(capsys.readouterr().out)["facts"]) == 2
    assert main(["place", str(facts), "--device", "cpu"]) == 0
    assert "TFlops" in capsys.readouterr().out
    assert main(["ledger", "--fact", "capital/Anna", "--metric", "log-prob", "--top", "-1", *given]) == 2
