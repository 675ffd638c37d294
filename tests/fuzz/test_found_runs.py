"""What fuzzing has found in runs: what a run says of its memories and settings, where it is no longer believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probes.errors import UserError
from tests.conftest import make_run
from tests.fuzz.test_found import edit_run
from workbench.commands.summaries import format_summary, summarise_run
from workbench.runs import load_run
from workbench.settings import Question, Settings, read_question, restore_settings

ODD = {"id": "d-1", "text": "a text", "similarity": "much"}
MEMORIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "bank.path": lambda memories: memories.update(bank={"path": 5}),
    "bank.counterfactual_path": lambda memories: memories.update(bank={"path": [1], "counterfactual_path": "1"}),
    "explicit.blocks[0].id": lambda memories: memories.update(explicit={"blocks": [{"text": "a"}]}),
    "explicit.blocks[0].similarity": lambda memories: memories.update(explicit={"blocks": [ODD]}),
}


@pytest.mark.parametrize("name", MEMORIES)
def test_memories_that_are_described_as_none_is(tmp_path: Path, name: str) -> None:
    folder = edit_run(tmp_path / "run", lambda about: MEMORIES[name](about["memories"]))
    with pytest.raises(UserError) as raised:
        load_run(folder)
    assert f"memories.{name}" in str(raised.value)


@pytest.mark.parametrize("field", ["memory", "bank", "seed", "threshold", "faithful", "into", "device_map", "method"])
@pytest.mark.parametrize("value", [{"a": 1}, [3], 10**400], ids=("object", "list", "number"))
def test_settings_of_other_kinds(field: str, value: Any) -> None:
    """A bank's path that is a number went on to the file system."""
    with pytest.raises(UserError):
        restore_settings({**Settings().to_json(), field: value})
    assert restore_settings(Settings(device_map="auto", threshold=1).to_json()).device_map == "auto"


@pytest.mark.parametrize("field", ["fact", "facts", "pairs"])
def test_questions_of_other_kinds(field: str) -> None:
    with pytest.raises(UserError, match="not one of this release"):
        read_question({**Question(fact="a").to_json(), field: [3]})
    assert read_question(Question(facts=("a", "b")).to_json()).facts == ("a", "b")
    assert restore_settings(make_run().about["settings"] or Settings().to_json()).model


def test_a_run_that_measured_little(tmp_path: Path) -> None:
    """A run may have no faithfulness, no random circuits beside it, and settings without a model."""
    changes: tuple[Callable[[dict[str, Any]], object], ...] = (
        lambda about: about.update(faithfulness={}),
        lambda about: about.update(settings={}),
        lambda about: about["faithfulness"].update(random=None),
    )
    for number, change in enumerate(changes):
        folder = edit_run(tmp_path / f"run-{number}", change)
        assert format_summary(summarise_run(load_run(folder), folder))
