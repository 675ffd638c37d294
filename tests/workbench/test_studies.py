"""Studies of the small world: they reopen as they were, blocking changes answers, a typed fact is written and asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from probes.errors import UserError
from tests.small_world import ship_world
from workbench.engine import Engine, open_engine
from workbench.ledgers.studying import study_conflict, study_question, study_writing
from workbench.ledgers.table import load_ledgers
from workbench.ledgers.trials import GENERIC, NOTHING, OWN, Change, try_change
from workbench.settings import Question, Settings
from workbench.studies import Study, describe_path, find_studies, list_studies, load_study, name_study, save_study
from workbench.views.ledgers import list_readers, list_steps, mark_kept

SETTINGS = Settings(device="cpu", memory="own", text="auto")
UNSEEN = Question(fact="capital/Anna")


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ship_world(tmp_path_factory.mktemp("world") / "shipped"):
        yield


@pytest.fixture(scope="module")
def engine(_world: None) -> Engine:
    """Engine of the small world."""
    return open_engine(SETTINGS)


@pytest.fixture(scope="module")
def study(engine: Engine) -> Study:
    """Study of the fact that was never seen."""
    return study_question(engine, "anna.ledger", UNSEEN, SETTINGS)


def test_a_study_reopens_as_it_was_and_is_a_ledger_file(study: Study, tmp_path: Path) -> None:
    save_study(study, tmp_path)
    assert list_studies(tmp_path) == ["anna.ledger"]
    assert load_study("anna.ledger", tmp_path) == study
    path = find_studies(tmp_path) / "anna.ledger.json"
    assert load_ledgers(path) == study.ledgers
    first = path.read_bytes()
    save_study(study, tmp_path)
    assert path.read_bytes() == first
    (tmp_path / "traced").mkdir()
    (tmp_path / "traced" / "ledger.json").write_bytes(first)
    assert list_studies(tmp_path) == ["anna.ledger", "run:traced"]
    assert replace(load_study("run:traced", tmp_path), name="anna.ledger") == study


def test_a_bad_study_is_one_line(study: Study, tmp_path: Path) -> None:
    save_study(study, tmp_path)
    path = find_studies(tmp_path) / "anna.ledger.json"
    for name in ("../../etc/passwd", "run:../x", "anna"):
        with pytest.raises(UserError, match="no saved study"):
            load_study(name, tmp_path)
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"references": [{"entry": "memory 1"}]}))
    with pytest.raises(UserError, match="not a whole study"):
        load_study("anna.ledger", tmp_path)
    path.write_text("[1, 2")
    with pytest.raises(UserError, match="not a ledger"):
        load_study("anna.ledger", tmp_path)


def test_names_of_studies_are_safe_and_new() -> None:
    assert name_study("ledger", "Capital/../<b>", []) == "capital-b.ledger"
    assert name_study("ledger", "é", ["question.ledger"]) == "question.ledger.2"


def test_attention_of_references_is_that_of_one_softmax(study: Study) -> None:
    """Memory and text together never get more than all of a head's attention; kept tokens are the memory's."""
    memory, text = study.references
    assert (memory.entry, text.entry) == ("memory 1", "text")
    # Text and question both start with `The`: the first counts as the question's, which goes on behind the text.
    assert "".join(text.tokens) == " capital of Anna is Oslo. The"
    for place, layer in enumerate(memory.layers):
        for head in range(len(memory.attention[place])):
            both = sum(memory.attention[place][head]) + sum(text.attention[layer][head])
            assert 0 < both <= 1.001
    layer, head, weight = list_readers(memory)[0]
    kept = mark_kept(memory, layer, head)
    assert set(kept) <= set(memory.kept[memory.layers.index(layer)][head // memory.group])
    assert sum(kept.values()) == pytest.approx(weight)
    assert sum(mark_kept(memory).values()) == pytest.approx(
        sum(weight for *_, weight in list_readers(memory)) / len(list_readers(memory))
    )


@pytest.mark.parametrize("parts", [0, 1, 5, 1000])
def test_the_waterfall_adds_up(study: Study, parts: int) -> None:
    for ledger in study.ledgers:
        *steps, total = list_steps(ledger, parts)
        assert total.total and total.value == pytest.approx(ledger.margin, abs=1e-9)
        assert sum(step.value for step in steps) == pytest.approx(ledger.margin, abs=1e-9)


def test_blocking_everything_leaves_the_bare_model(engine: Engine, study: Study) -> None:
    """Giving all back is the first answer again; without anything it is the model with nothing attached."""
    again = try_change(engine, UNSEEN, SETTINGS, Change((OWN, OWN), (False,)))
    assert again == study.answers[0] and again.name == "everything on"
    bare = try_change(engine, UNSEEN, SETTINGS, Change((NOTHING, NOTHING), (True,), True))
    nothing = Settings(device="cpu", memory="none", bank="none")
    assert replace(try_change(engine, UNSEEN, nothing, Change()), name="") == replace(bare, name="", found=())
    assert bare.name == "level 1 writes nothing; level 2 writes nothing; without memory 1; without text"
    generic = try_change(engine, UNSEEN, SETTINGS, Change((OWN, GENERIC)))
    sibling = try_change(engine, UNSEEN, SETTINGS, Change((OWN, str(study.path[1].cluster ^ 1))))
    probabilities = {one.answer.probability for one in (again, bare, generic, sibling) if one.answer is not None}
    assert len(probabilities) == 4
    with pytest.raises(UserError):
        try_change(engine, UNSEEN, SETTINGS, Change((OWN, "99")))


def test_a_path_lists_siblings_with_their_trained_facts(engine: Engine, study: Study) -> None:
    assert study.path == describe_path((0, 1), 2, engine.facts)
    assert study.path[0].siblings == ((0, 1, ("France",)), (1, 1, ("Italy",)))
    assert describe_path((-1, -1), 2, engine.facts)[0].siblings == ()


def test_a_conflict_is_a_study(engine: Engine, tmp_path: Path) -> None:
    found = study_conflict(engine, "anna.conflict", UNSEEN, ("Rome", "Paris"), SETTINGS)
    save_study(found, tmp_path)
    assert load_study("anna.conflict", tmp_path) == found
    assert found.kind == "conflict" and len(found.ledgers) == 3
    assert found.about["conflict"]["winner"] == found.ledgers[0].answer
    assert found.title.startswith("The capital of Anna is")


def test_a_typed_fact_is_written_and_asked(engine: Engine, tmp_path: Path) -> None:
    """The memory changes the answer, is written once, and the study can be asked again with it blocked."""
    question = Question(prompt="The capital of Rome is", answer=" Paris")
    document, folder = "The capital of Rome is Paris.", tmp_path / "memories"
    settings = replace(SETTINGS, metric="log-prob")
    found = study_writing(engine, "rome.writing", document, question, settings, folder)
    save_study(found, tmp_path)
    assert load_study("rome.writing", tmp_path) == found and found.kind == "writing"
    assert [one.name.split()[0] for one in found.answers] == ["without", "with", "with"]
    without, with_it, _ = (one.answer.probability for one in found.answers if one.answer is not None)
    assert without != with_it
    (name,) = found.about["written"]["memories"]
    assert found.ledgers[0].find("memory 1").label == name
    assert "".join(found.references[0].tokens).endswith("The capital of Rome is Paris.")
    again = study_writing(engine, "rome.writing", document, question, settings, folder)
    assert again.about["written"] == found.about["written"] and again.answers == found.answers
    silent = study_writing(engine, "x", document, Question(prompt="The capital of Rome is"), settings, folder)
    assert silent.ledgers == () and silent.answers[0].answer is None
    with pytest.raises(UserError, match="type both"):
        study_writing(engine, "x", " ", question, settings, folder)
