"""The Runs page: find, open, compare, rename, delete, restore, export, replay; and what can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.pages.reading import list_linked, press
from workbench import replaying
from workbench.replaying import Difference
from workbench.runs import Run, save_run

OpenPage = Callable[..., AppTest]
Settle = Callable[[AppTest, str], AppTest]


def texts(app: AppTest) -> str:
    """Everything that is written on the page."""
    groups = (app.title, app.subheader, app.markdown, app.caption, app.error, app.warning, app.info, app.success)
    return "\n".join(str(element.value) for group in groups for element in group)


def list_names(app: AppTest) -> list[str]:
    """Runs in the table."""
    return next(frame.value for frame in app.dataframe if "faithfulness" in frame.value.columns)["run"].tolist()


def select(app: AppTest, *names: str) -> AppTest:
    """Select rows of the table by their names."""
    listed = list_names(app)
    (key,) = {
        str(frame.proto.id).rsplit("-saved-", 1)[-1] for frame in app.dataframe if "-saved-" in str(frame.proto.id)
    }
    rows = [listed.index(name) for name in names]
    app.session_state[f"saved-{key}"] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    return app.run()


@pytest.fixture
def several(runs: Path, build_run: Callable[..., Run]) -> list[str]:
    """Names of three saved runs."""
    for seed, name in enumerate(("alpha", "beta", "gamma")):
        save_run(build_run(seed=seed), runs / name)
    return ["alpha", "beta", "gamma"]


def test_runs_are_listed_and_searched(open_page: OpenPage, several: list[str]) -> None:
    app = open_page("runs")
    assert not app.exception
    assert sorted(list_names(app)) == several
    app.text_input(key="run-words").input("BET norland").run()
    assert list_names(app) == ["beta"] and "1 of 3 runs" in texts(app)
    app.text_input(key="run-words").input("nothing has this").run()
    assert list_names(app) == [] and not app.exception
    app.text_input(key="run-words").input("").run()
    app.multiselect(key="run-memories").set_value(["bank", "explicit"]).run()
    assert len(list_names(app)) == 3
    app.multiselect(key="run-memories").set_value(["text"]).run()
    assert list_names(app) == []


def test_one_is_opened_two_are_compared_several_laid_over_each_other(open_page: OpenPage, several: list[str]) -> None:
    app = open_page("runs")
    assert all(button.disabled for button in app.button if button.label in ("Open", "Compare", "Shared core", "Delete"))
    press(select(app, "beta"), "Open")
    assert list_linked(app, "run") == ["beta"] and not app.exception
    app = press(select(open_page("runs"), "gamma", "alpha"), "Compare")
    assert (list_linked(app, "run"), list_linked(app, "with")) == (["gamma"], ["alpha"])
    app = press(select(open_page("runs"), *several), "Shared core")
    assert not app.exception and app.multiselect(key="core-runs").value == several


def test_a_run_is_renamed_or_the_name_refused(open_page: OpenPage, several: list[str], runs: Path) -> None:
    app = select(open_page("runs"), "beta")
    assert "circuit?run=beta" in app.code[0].value
    app.text_input(key="rename-beta").input("../away")
    press(app, "Rename")
    assert "cannot name a run" in app.error[0].value
    app.text_input(key="rename-beta").input("alpha")
    press(app, "Rename")
    assert "already something called" in app.error[0].value
    app.text_input(key="rename-beta").input("beta.2")
    press(app, "Rename")
    assert not app.exception and not app.error
    assert sorted(list_names(app)) == ["alpha", "beta.2", "gamma"]
    assert (runs / "beta.2" / "run.json").is_file() and not (runs / "beta").exists()


def test_runs_are_deleted_after_a_question_and_come_back(open_page: OpenPage, several: list[str], runs: Path) -> None:
    app = press(select(open_page("runs"), "alpha", "gamma"), "Delete")
    assert "Move 2 runs to the trash" in texts(app) and (runs / "alpha").is_dir()
    press(app, "Keep")
    assert sorted(list_names(app)) == several
    app = press(press(app, "Delete"), "Move to the trash")
    assert not app.exception
    assert list_names(app) == ["beta"]
    app.selectbox(key="trash").select("gamma").run()
    press(app, "Restore")
    assert sorted(list_names(app)) == ["beta", "gamma"]
    app.checkbox(key="empty-sure").check().run()
    press(app, "Delete all for good")
    assert not app.exception and not (runs / ".trash").exists()


def test_a_replay_says_which_numbers_moved(
    open_page: OpenPage, settle: Settle, several: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[Difference] = []
    monkeypatch.setattr(replaying, "replay", lambda run, engine, tick: tuple(moved))
    app = select(open_page("runs"), "beta")
    settle(press(app, "Replay now"), "replaying")
    assert not app.exception and "every number is the same" in texts(app)
    moved.append(Difference("faithfulness.<b>", 1.0, 1.5, 0.5))
    settle(press(app, "Replay now"), "replaying")
    assert "1 numbers moved" in texts(app)
    (table,) = [frame.value for frame in app.dataframe if "replayed" in frame.value.columns]
    assert table["difference"].tolist() == [0.5]


def test_a_broken_run_stands_in_nobodys_way(open_page: OpenPage, several: list[str], runs: Path, fake: Any) -> None:
    (runs / "alpha" / "scores.npz").unlink()
    (runs / "gamma" / "run.json").write_text("{")
    app = select(open_page("runs"), "alpha")
    assert not app.exception
    assert sorted(list_names(app)) == ["alpha", "beta"]
    assert "cannot read" in app.error[0].value
    assert fake.calls == []
