"""The Memory page: studies that open without a model, the three forms, blocking, and links that are wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.memory_forms import BANK, CONFLICT, DIVIDE, EXPLICIT, TEXT, WRITE, invent_example, pick_places, share_engine
from probes.errors import UserError
from probes.facts import Fact
from tests.pages.reading import find_table, press, texts
from tests.studies import HOSTILE, make_ledger, make_study
from workbench import pipeline
from workbench.answers import Condition, Prediction
from workbench.ledgers import studying, trials
from workbench.settings import Question, Settings
from workbench.studies import Study, load_study, save_study
from workbench.views.ledgers import subtract, tabulate_answers, tabulate_path, tabulate_steps

OpenPage = Callable[..., AppTest]
Settle = Callable[[AppTest, str], AppTest]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Scripted studies in place of measured ones; what was asked of them."""
    calls: list[tuple[Any, ...]] = []

    def study_question(engine: Any, name: str, question: Question, settings: Settings, tick: Any) -> Study:
        calls.append(("ledger", question, settings))
        while settings.seed == 99 or question.answer == "slow":
            tick("combinations", 1, 2)
            time.sleep(0.01)
        return make_study(name)

    def study_conflict(engine: Any, name: str, question: Question, says: Any, settings: Settings, tick: Any) -> Study:
        calls.append(("conflict", question, says))
        if says[0] == "nothing":
            raise UserError("no document that *states* its answer")
        conflict = {"winner": " Rome", "winner_says": "text", "said": HOSTILE, "says": ["text", "memory"]}
        return replace(make_study(name, "conflict", conflict=conflict), references=(), path=(), answers=())

    def study_writing(
        engine: Any, name: str, document: str, question: Question, settings: Settings, folder: Path, tick: Any
    ) -> Study:
        calls.append(("writing", document, question, folder.name))
        return make_study(name, "writing", written={"document": document, "memories": ["m-1"], "bank": folder.name})

    def try_change(engine: Any, question: Question, settings: Settings, change: trials.Change) -> Condition:
        calls.append(("change", question, change))
        return Condition(change.words, "", (Prediction(" Tannstad", 18, 0.75),), Prediction(" Oskarville", 17, 0.25))

    for work in (study_question, study_conflict, study_writing):
        monkeypatch.setattr(studying, work.__name__, work)
    monkeypatch.setattr(trials, "try_change", try_change)
    monkeypatch.setattr(trials, "open_written", lambda engine, settings: engine)
    return calls


@pytest.fixture
def loaded(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose model has a hash."""
    made = SimpleNamespace(model=SimpleNamespace(sha256="0" * 64))
    monkeypatch.setattr(pipeline, "open_engine", lambda settings, tick: made)


@pytest.fixture
def saved_study(runs: Path) -> str:
    """Name of one saved study."""
    save_study(make_study("norland.ledger"), runs)
    return "norland.ledger"


def test_the_empty_page_says_what_can_be_done(open_page: OpenPage) -> None:
    app = open_page("memory")
    assert not app.exception
    assert "Divide an answer over the text" in texts(app)
    assert app.button(key="measure-study").disabled


def test_a_study_opens_by_link_without_a_model(open_page: OpenPage, saved_study: str, fake: Any) -> None:
    app = open_page("memory", study=saved_study)
    assert not app.exception and fake.calls == []
    values = {metric.label: metric.value for metric in app.metric}
    assert values["Margin"] == values["All rows add up to"] == "+4.000 logits"
    assert values["Explicit memory"] == "+2.500 logits" and values["Bank block"] == "−0.500 logits"
    steps = find_table(app, "sum, logits")
    assert steps["sum, logits"].tolist()[-1] == pytest.approx(4.0)
    assert find_table(app, "in words")["in words"].tolist()[1] == "Head 1 of layer 2"
    assert "<img" not in texts(app).replace("\\<img", "")
    app.segmented_control(key=f"ledger-{saved_study}").set_value(1).run()
    assert {metric.label: metric.value for metric in app.metric}["Margin"] == "+3.500 logits"
    assert "attention that removed memories keep" in find_table(app, "sum, logits")["row"].tolist()


def test_sections_of_a_study(open_page: OpenPage, saved_study: str) -> None:
    app = open_page("memory", study=saved_study, section="What was read")
    assert not app.exception
    heads = find_table(app, "attention")
    assert heads["head"].tolist() == ["a1.h0", "a1.h1"] and heads["attention"].tolist() == [0.75, 0.125]
    assert heads["share, logits"].tolist()[0] == 2.25
    assert "31.2 % of it in all" in texts(app)
    app.selectbox(key=f"reader-{saved_study}-0").select("a1.h0").run()
    assert "50.0 % of it in all" in texts(app)
    app.segmented_control(key="section").set_value("Cluster path").run()
    assert not app.exception
    table = find_table(app, "trained facts")
    assert table["read"].tolist() == ["← this path", "", "", "← this path"]


def test_blocking_asks_again_and_keeps_the_answer(
    open_page: OpenPage, settle: Settle, saved_study: str, runs: Path, engine: Any, loaded: None
) -> None:
    app = open_page("memory", study=saved_study, section="Block and ask again")
    assert app.button(key=f"try-{saved_study}").disabled
    app.selectbox(key=f"level-1-{saved_study}").select("nothing").run()
    app.selectbox(key=f"level-2-{saved_study}").select("2").run()
    app.checkbox(key=f"block-memory 1-{saved_study}").check().run()
    app = settle(press(app, "Ask again"), f"trying-{saved_study}")
    assert not app.exception
    assert engine[-1][2] == trials.Change(("nothing", "2"), (True,), False)
    answers = load_study(saved_study, runs).answers
    assert [one.name for one in answers] == [
        "everything on",
        "level 1 writes nothing; level 2 reads cluster 2; without memory 1",
    ]
    table = find_table(app, "change, nats")
    assert table["change, nats"].tolist() == [0.0, pytest.approx(math.log(0.5))]
    assert app.button(key=f"try-{saved_study}").disabled


def test_blocking_with_another_model_is_refused(
    open_page: OpenPage, settle: Settle, runs: Path, engine: Any, loaded: None
) -> None:
    save_study(make_study("old.ledger", model={"sha256": "1" * 64}), runs)
    app = open_page("memory", study="old.ledger", section="Block and ask again")
    app.checkbox(key="block-text-old.ledger").check().run()
    app = settle(press(app, "Ask again"), "trying-old.ledger")
    assert "its hash differs" in app.error[0].value and len(load_study("old.ledger", runs).answers) == 1


def test_dividing_saves_a_study_and_opens_it(
    open_page: OpenPage, settle: Settle, runs: Path, engine: Any, loaded: None
) -> None:
    app = open_page("memory", fact="norland-capital")
    app.pills(key="places").set_value([TEXT, EXPLICIT]).run()
    app = settle(press(app, DIVIDE.split()[0]), "studying")
    assert not app.exception
    kind, question, settings = engine[0]
    assert (kind, question.fact, settings.text, settings.memory, settings.bank) == (
        "ledger", "norland-capital", "auto", "own", "none"
    )  # fmt: skip
    assert [path.name for path in (runs / "studies").iterdir()] == ["norland-capital.ledger.json"]
    assert app.query_params["study"] in ("norland-capital.ledger", ["norland-capital.ledger"])
    assert "Oskarville" in app.subheader[0].value


def test_a_study_can_be_cancelled(open_page: OpenPage, settle: Settle, runs: Path, engine: Any, loaded: None) -> None:
    app = open_page("memory")
    app.segmented_control(key="source").set_value("My own prompt").run()
    app.text_area(key="prompt").input("The capital of Norland is").run()
    assert "Type the answer too" in texts(app)
    app.text_input(key="typed-answer").input("slow").run()
    app = press(app, "Divide")
    app = settle(press(app, "Cancel"), "studying")
    assert "cancelled" in texts(app) and not (runs / "studies").exists()


def test_a_conflict(open_page: OpenPage, settle: Settle, engine: Any, loaded: None) -> None:
    app = open_page("memory", fact="norland-capital")
    app.segmented_control(key="study-kind").set_value(CONFLICT).run()
    assert app.button(key="measure-study").disabled
    app.text_input(key="text-says").input("nothing").run()
    app = settle(press(app, "Let them conflict"), "studying")
    assert "no document that" in app.error[0].value and "*states*" not in app.error[0].value
    app.text_input(key="text-says").input("Rome").run()
    app.text_input(key="memory-says").input("Paris").run()
    app = settle(press(app, "Let them conflict"), "studying")
    assert not app.exception
    assert engine[-1][2] == ("Rome", "Paris")
    assert "Likeliest" in texts(app) and "<img" not in texts(app).replace("\\<img", "")
    assert find_table(app, "says it")["says it"].tolist() == ["text", "memory"]


def test_a_fact_is_written_and_asked(open_page: OpenPage, settle: Settle, engine: Any, loaded: None) -> None:
    app = open_page("memory")
    app.segmented_control(key="study-kind").set_value(WRITE).run()
    app.text_area(key="document").input(HOSTILE).run()
    assert app.button(key="measure-study").disabled
    app.text_input(key="document-prompt").input("The capital of Newland is").run()
    app.text_input(key="document-answer").input("Newton").run()
    app = settle(press(app, "Write and ask"), "studying")
    assert not app.exception
    assert engine[-1][1:] == (
        HOSTILE,
        Question(prompt="The capital of Newland is", answer="Newton"),
        "memories-00000000",
    )
    assert [text.value for text in app.text] == [HOSTILE]


@pytest.mark.parametrize("name", ["../../etc/passwd", "<img src=x>", "run:.."])
def test_a_wrong_link_is_told(open_page: OpenPage, saved_study: str, name: str) -> None:
    app = open_page("memory", study=name)
    assert not app.exception
    assert "there is no saved study" in app.error[0].value


def test_a_damaged_study_is_told_and_another_can_be_chosen(open_page: OpenPage, saved_study: str, runs: Path) -> None:
    (runs / "studies" / "bad.json").write_text("{")
    app = open_page("memory", study="bad")
    assert not app.exception and "not a ledger" in app.error[0].value
    app.selectbox(key="study-bad").select(saved_study).run()
    assert not app.exception and not app.error and "Oskarville" in app.subheader[0].value
    app.selectbox(key=f"study-{saved_study}").select("+ new study").run()
    assert "study" not in app.query_params and app.button(key="measure-study")


def test_places_and_the_engine_that_all_studies_share() -> None:
    settings = pick_places(Settings(), [TEXT, EXPLICIT, BANK])
    assert (settings.text, settings.memory, settings.bank) == ("auto", "own", "auto")
    assert pick_places(Settings(memory="notes", text="a.txt"), [EXPLICIT]) == Settings(
        memory="notes", text="none", bank="none"
    )
    assert pick_places(Settings(), []) == Settings(text="none", memory="none", bank="none")
    shared: Sequence[Settings] = [share_engine(pick_places(Settings(), places)) for places in ([], [EXPLICIT], [BANK])]
    assert {(one.memory, one.bank) for one in shared} == {("auto", "auto")}


def test_an_example_names_nobody_who_is_known() -> None:
    def make(name: str) -> Fact:
        return Fact(name, f"baker {name}", "town", "Oslo", f"The town of baker {name} is", " Oslo", split="never-seen",
                    document=f"baker {name} lives in Oslo.")  # fmt: skip

    facts = [make("Ann Lee"), make("Bob Ray")]
    example = invent_example(facts)
    assert example["document"] == "baker Ann Ray lives in Oslo." and example["document-answer"] == "Oslo"
    assert example["document-prompt"] == "The town of baker Ann Ray is"
    assert invent_example([]) == invent_example(facts[:1]) == {}


def test_tables_of_a_study() -> None:
    first, second = make_ledger(), make_ledger(" Rome", held=-0.5)
    assert [step.value for step in subtract(first, second)] == [0.5, 0.5]
    assert tabulate_steps(subtract(first, second), "nats")["sum, nats"] == [0.5, 0.5]
    assert tabulate_path(make_study("x").path)["for example"][1] == HOSTILE
    refused = Condition("text", "", reason="too long")
    assert tabulate_answers([refused])["says"] == ["too long"]
