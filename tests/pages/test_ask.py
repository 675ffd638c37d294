"""The Ask page: choose, ask, pick answer and foil, trace; and every way in which that can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.question import ANY, name_filters
from probes.errors import UserError
from tests.pages.measured import TABLE
from tests.pages.reading import list_linked, press, texts
from workbench import lens_tables, library

OpenPage = Callable[..., AppTest]
Settle = Callable[[AppTest, str], AppTest]


@pytest.fixture
def asked(open_page: OpenPage, settle: Settle) -> AppTest:
    """The page after a fact was asked."""
    app = press(open_page(fact="norland-capital"), "Ask")
    return settle(app, "asking")


def test_which_blocks_are_read_is_chosen_on_the_page(
    open_page: OpenPage, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reading mode is offered, and the question is asked with the chosen one."""
    from workbench import pipeline
    from workbench.settings import READINGS, Settings

    seen: list[Settings] = []
    real = pipeline.ask

    def ask(engine: Any, question: Any, settings: Settings, tick: Any) -> Any:
        seen.append(settings)
        return real(engine, question, settings, tick)

    monkeypatch.setattr(pipeline, "ask", ask)
    app = open_page(fact="norland-capital")
    assert app.selectbox(key="reading").options == [choice.label for choice in READINGS.values()]
    app.selectbox(key="reading").select("generic").run()
    settle(press(app, "Ask"), "asking")
    assert [settings.reading for settings in seen] == ["generic"]


def test_nothing_can_be_asked_before_a_choice(open_page: OpenPage) -> None:
    app = open_page()
    assert not app.exception
    assert app.title[0].value == "Where does the answer come from?"
    assert next(button for button in app.button if button.label == "Ask").disabled


def test_a_row_of_the_table_chooses_its_fact(open_page: OpenPage) -> None:
    app = open_page()
    app.session_state[f"facts-{name_filters('', ANY, ANY, ANY, '')}"] = {
        "selection": {"rows": [1], "columns": [], "cells": []}
    }
    app.run()
    assert app.session_state["fact"] == "southia-capital"
    assert list_linked(app, "fact") == ["southia-capital"]


def test_the_search_filters_the_table(open_page: OpenPage) -> None:
    app = open_page()
    app.text_input(key="words").input("southia").run()
    assert "1 of 2 facts" in texts(app)


@pytest.mark.parametrize(
    ("key", "value", "count"),
    [("bucket", "4", 1), ("cluster", "0 › 3", 1), ("cluster", "1", 0), ("words", "Norland's", 1)],
)
def test_bucket_cluster_and_document_filter_the_table(open_page: OpenPage, key: str, value: str, count: int) -> None:
    app = open_page()
    field = app.selectbox(key=key) if key == "bucket" else app.text_input(key=key)
    field.set_value(value).run()
    assert not app.exception
    assert f"{count} of 2 facts" in texts(app)


def test_tokens_show_ids_and_line_breaks(asked: AppTest) -> None:
    """Once for all conditions, since their prompts are the same."""
    (chips,) = [element.value for element in asked.markdown if "-badge[" in element.value and "\\#3" in element.value]
    assert chips.startswith(":orange-badge[⏎") and ":gray-badge[" in chips and "**b**" not in chips


def test_the_logit_lens_of_a_condition(asked: AppTest, settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read for the chosen answer; an error is one line."""
    given: list[Any] = []

    def read(engine: Any, question: Any, settings: Any, name: str, answer: str, tick: Any) -> Any:
        given.append((name, answer))
        if name == "bank":
            raise UserError("no *bank*")
        return lens_tables.restore_table(TABLE)

    monkeypatch.setattr(lens_tables, "read_condition", read)
    asked.selectbox(key="lens-condition").select("explicit memory").run()
    settle(press(asked, "Read the layers"), "lens")
    assert not asked.exception and given == [("explicit memory", " Oskarville")]
    (table,) = [frame.value for frame in asked.dataframe if "rank of the answer" in frame.value.columns]
    assert table["best token"].tolist() == ["·is", "·Oskarville"]
    asked.selectbox(key="lens-condition").select("bank").run()
    settle(press(asked, "Read the layers"), "lens")
    assert "no \\*bank\\*" in asked.error[0].value


def test_what_a_model_folder_lacks_is_said_before_anything_is_loaded(
    open_page: OpenPage, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_CIRCUITS_ALLOW", str(tmp_path))
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 3}')
    app = open_page(fact="norland-capital")
    app.text_input(key="model").input(str(tmp_path)).run()
    page = texts(app)
    assert "3 layers" in page and "no weights" in page and "no tokenizer" in page
    press(app, "Ask")
    assert not app.exception and fake.calls == []
    assert "no weights" in app.error[-1].value


def test_an_unknown_fact_in_a_link_is_told(open_page: OpenPage) -> None:
    app = open_page(fact="no<b>where")
    assert not app.exception
    assert "no fact" in app.warning[0].value


def test_four_conditions_stand_side_by_side(asked: AppTest, fake: Any) -> None:
    assert not asked.exception
    page = texts(asked)
    for title in ("Parameters alone", "With memory bank", "With explicit memory", "With text"):
        assert title in page
    assert "there is no document \\<" in page
    assert fake.calls[0] == ("open", "shipped")
    assert asked.session_state["asked"].question.fact == "norland-capital"


def test_a_bank_below_the_working_directory_is_offered_and_what_was_found_is_listed(
    open_page: OpenPage, settle: Settle, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes" / "inner").mkdir(parents=True)
    for folder in ("notes/inner", ".hidden"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "memory.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    app = open_page(fact="norland-capital")
    assert app.selectbox(key="memory").options == ["auto", "own", "none", "notes/inner"]
    assert "memory-ids" not in [field.key for field in app.text_input]
    app.selectbox(key="memory").select("notes/inner").run()
    app.number_input(key="memories").set_value(3)
    app.text_input(key="memory-ids").input(" d-1,d-2 ")
    settle(press(app, "Ask"), "asking")
    assert not app.exception
    (table,) = (frame.value for frame in app.dataframe if "cosine" in frame.value.columns)
    assert table["memory"].tolist() == ["d-1"] and table["cosine"].tolist() == [0.625]
    settle(press(app, "Trace"), "tracing")
    settings = fake.calls[-1][2]
    assert (settings.memory, settings.memories, settings.memory_ids, settings.faithful) == (
        "notes/inner", 3, "d-1,d-2", False
    )  # fmt: skip


def test_hostile_tokens_are_escaped(asked: AppTest) -> None:
    labels = [button.label for button in asked.button]
    hostile = [label for label in labels if "x" in label and "red" in label]
    assert hostile
    assert all("**x**" not in label and "$y$" not in label and ":red[" not in label for label in hostile)


def test_a_click_makes_a_token_the_foil(asked: AppTest) -> None:
    next(button for button in asked.button if button.key == "token-bank-1").click()
    asked.run()
    assert asked.session_state["foil"] == " Tannstad"
    assert [metric.value for metric in asked.metric] == ["Oskarville", "Tannstad"]


def test_a_trace_is_saved_and_opened(asked: AppTest, settle: Settle, runs: Path, fake: Any) -> None:
    press(asked, "Trace")
    settle(asked, "tracing")
    assert not asked.exception
    assert [path.name for path in runs.iterdir()] == ["norland-capital.eap.counterfactual"]
    assert list_linked(asked, "run") == ["norland-capital.eap.counterfactual"]
    assert "Oskarville" in asked.title[0].value
    kind, question, settings = fake.calls[-1]
    assert (kind, question.fact, settings.edges) == ("trace", "norland-capital", 200)


def test_the_same_trace_twice_gives_two_runs(asked: AppTest, settle: Settle, runs: Path) -> None:
    settle(press(asked, "Trace"), "tracing")
    asked.switch_page("../pages/ask.py").run()
    settle(press(asked, "Trace"), "tracing")
    assert len(list(runs.iterdir())) == 2


def test_another_answer_than_the_facts_is_asked_of_the_same_fact(asked: AppTest, settle: Settle, fake: Any) -> None:
    asked.session_state["answer"] = " Tannstad"
    asked.run()
    settle(press(asked, "Trace"), "tracing")
    _, question, settings = fake.calls[-1]
    assert (question.fact, question.answer, settings.ablation) == (
        "norland-capital",
        " Tannstad",
        "counterfactual",
    )


def test_a_cancelled_trace_leaves_nothing(asked: AppTest, settle: Settle, runs: Path) -> None:
    asked.number_input(key="seed").set_value(99)
    press(asked, "Trace")
    assert "tracing" in asked.session_state
    press(asked, "Cancel")
    settle(asked, "tracing")
    assert "cancelled" in texts(asked)
    assert not list(runs.iterdir())


def test_a_defect_is_told_without_its_text(asked: AppTest, settle: Settle) -> None:
    asked.number_input(key="seed").set_value(13)
    settle(press(asked, "Trace"), "tracing")
    assert "ZeroDivisionError" in asked.error[0].value
    assert "a secret" not in texts(asked)


def test_a_model_that_is_not_there_is_one_line(open_page: OpenPage, settle: Settle) -> None:
    app = open_page(fact="norland-capital")
    app.text_input(key="model").input("nowhere").run()
    settle(press(app, "Ask"), "asking")
    assert not app.exception
    assert [error.value.replace("\\", "").replace("\u2060", "") for error in app.error] == [
        "no folder nowhere: give *another*"
    ]
    assert "\\*another\\*" in app.error[0].value


def test_a_prompt_of_ones_own(open_page: OpenPage, settle: Settle, fake: Any) -> None:
    app = open_page()
    app.segmented_control(key="source").set_value("My own prompt").run()
    assert next(button for button in app.button if button.label == "Ask").disabled
    app.text_area(key="prompt").input("The capital of **Norland** is").run()
    settle(press(app, "Ask"), "asking")
    assert not app.exception
    assert fake.calls[-1][1].prompt == "The capital of **Norland** is"
    assert app.selectbox(key="ablation-False").value == "mean"


def test_missing_facts_leave_the_typed_prompt(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UserError("the shipped model is missing")

    monkeypatch.setattr(library, "read_shipped_facts", refuse)
    app = open_page()
    assert not app.exception
    assert "the shipped model is missing" in app.error[0].value
