"""Settings and questions refuse what is outside their tables, and say what there is to choose from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from probes.errors import UserError
from workbench.settings import ABLATIONS, METHODS, METRICS, Question, Settings, restore_settings


@pytest.mark.parametrize("table", [METHODS, ABLATIONS, METRICS])
def test_tables_are_keyed_by_their_names(table: dict[str, object]) -> None:
    assert [getattr(choice, "name", None) for choice in table.values()] == list(table)


def test_every_metric_has_a_unit() -> None:
    assert {choice.unit for choice in METRICS.values()} == {"logits", "nats", "probability"}


def test_the_defaults_are_valid_and_survive_json() -> None:
    for settings in (Settings(), Settings(parts=3, into=("m1", "logits"))):
        assert restore_settings(json.loads(json.dumps(settings.to_json()))) == settings
    older = {name: value for name, value in Settings().to_json().items() if name not in ("parts", "into")}
    assert restore_settings(older) == Settings()
    with pytest.raises(UserError, match="not those of this release"):
        restore_settings({"colour": "red"})


@pytest.mark.parametrize(
    ("name", "table"),
    [("method", METHODS), ("ablation", ABLATIONS), ("metric", METRICS)],
    ids=lambda value: str(value)[:8],
)
def test_an_unknown_name_lists_the_choices(name: str, table: dict[str, object]) -> None:
    with pytest.raises(UserError, match=", ".join(table)):
        replace(Settings(), **{name: "nonsense"}).check()


@pytest.mark.parametrize(
    ("name", "value"), [("edges", 0), ("edges", 10**7), ("steps", 0), ("updates", 0), ("seed", -1), ("seed", 2**31)]
)
def test_a_number_out_of_range_names_the_range(name: str, value: int) -> None:
    with pytest.raises(UserError, match=f"{name} is {value}: choose a whole number from"):
        replace(Settings(), **{name: value}).check()


def test_a_question_is_a_fact_or_a_prompt() -> None:
    Question(fact="f").check()
    Question(prompt="p", answer="a").check()
    for question in (Question(), Question(fact="f", prompt="p")):
        with pytest.raises(UserError, match="either a fact or a prompt"):
            question.check()
