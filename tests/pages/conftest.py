"""Pages under AppTest: a temporary folder of runs and an engine that answers from a script, without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages import session
from probes.errors import UserError
from probes.facts import Fact
from workbench import interrupting, lens_tables, library, pipeline
from workbench.answers import Condition, Found, Prediction
from workbench.lens_tables import Token
from workbench.runs import Run, save_run
from workbench.settings import Question, Settings

APP = str(files("workbench") / "app.py")
PATIENCE = 60.0

FACTS = (
    Fact("norland-capital", "Norland", "capital", "Oskarville", "The capital of Norland is", " Oskarville",
         split="train", bucket=4, occurrences=90, cluster_path=(0, 3), document="Norland's capital is Oskarville."),
    Fact("southia-capital", "Southia", "capital", "Tannstad", "The capital of Southia is", " Tannstad",
         split="never-seen", bucket=0, occurrences=0),
)  # fmt: skip


FOUND = (Found("d-1", 0.625, "notes.md", "Oskarville is <b>the</b> capital."), Found("d-2", None, "", ""))


class FakePipeline:
    """Stands in for `workbench.pipeline`; `calls` lists what was asked of it."""

    def __init__(self, build_run: Callable[..., Run]) -> None:
        self.build_run = build_run
        self.calls: list[tuple[Any, ...]] = []

    def open_engine(self, settings: Settings, tick: Any) -> object:
        """An engine, or the error of a model that is not there."""
        tick("loading the model", 0, 1)
        if settings.model == "nowhere":
            raise UserError("no folder nowhere: give *another*")
        self.calls.append(("open", settings.model))
        return object()

    def ask(self, engine: object, question: Question, settings: Settings, tick: Any) -> tuple[Condition, ...]:
        """Three conditions with answers, one of them hostile, and one that is not available."""
        self.calls.append(("ask", question))
        prompt = question.prompt or next(fact.prompt for fact in FACTS if fact.id == question.fact)
        answer = Prediction(" Oskarville", 17, 0.75)
        top = (answer, Prediction(" Tannstad", 18, 0.2), Prediction(" **x** $y$ :red[z]", 19, 0.01))
        return (
            Condition("parameters", prompt, top, answer),
            Condition("bank", prompt, top, answer, "clusters 0 > 3"),
            Condition("explicit memory", prompt, top[1:], answer, "memory of d-1", found=FOUND),
            Condition("text", prompt, reason="there is no document <b>here</b>"),
        )

    def trace(self, engine: object, question: Question, settings: Settings, tick: Any) -> Run:
        """The synthetic run under the question asked; seed 13 is a defect, seed 99 never ends by itself."""
        self.calls.append(("trace", question, settings))
        if settings.seed == 13:
            raise ZeroDivisionError("a secret")
        while settings.seed == 99:
            tick("patching", 1, 10)
            time.sleep(0.01)
        run = self.build_run()
        return replace(run, about={**run.about, "question": question.to_json(), "settings": settings.to_json()})

    def check_node(self, engine: object, run: Run, node: str, tick: Any) -> pipeline.Check:
        """An estimate and an exact value."""
        self.calls.append(("check", node))
        return pipeline.Check(node, 0.5, 0.25, "logits", "eap", "counterfactual")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, build_run: Callable[..., Run]) -> Iterator[FakePipeline]:
    """The scripted pipeline in place of the real one, and two facts in place of the shipped ones."""
    fake = FakePipeline(build_run)
    for name in ("open_engine", "ask", "trace", "check_node"):
        monkeypatch.setattr(pipeline, name, getattr(fake, name))
    monkeypatch.setattr(library, "read_shipped_facts", lambda: FACTS)
    monkeypatch.setattr(interrupting, "import_libraries", lambda tick: None)
    monkeypatch.setattr(lens_tables, "split_prompt", lambda engine, text: (Token("\n", 3), Token(" **b**", 4)))
    session.open_jobs.clear()
    session.hold_engine.clear()
    yield fake
    session.open_jobs().close()
    session.open_jobs.clear()
    session.hold_engine.clear()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of saved runs that the pages use; empty."""
    folder = tmp_path / "saved"
    folder.mkdir()
    monkeypatch.setenv("MEMORY_CIRCUITS_RUNS", str(folder))
    return folder


@pytest.fixture
def saved(runs: Path, run: Run) -> str:
    """Name of one saved run."""
    save_run(run, runs / "norland")
    return "norland"


@pytest.fixture
def open_page(runs: Path, fake: FakePipeline) -> Callable[..., AppTest]:
    """`open_page("circuit", run="norland")`: a page of the app, run once, by a link with these parameters."""

    def open_page(page: str = "", **parameters: str) -> AppTest:
        app = AppTest.from_file(APP, default_timeout=PATIENCE).run()
        if page:
            app.switch_page(f"../pages/{page}.py")
        for name, value in parameters.items():
            app.query_params[name] = value
        return app.run()

    return open_page


@pytest.fixture
def settle() -> Callable[[AppTest, str], AppTest]:
    """`settle(app, slot)`: reruns until the job of a slot has ended and been taken."""

    def settle(app: AppTest, slot: str) -> AppTest:
        end = time.monotonic() + PATIENCE
        while slot in app.session_state:
            assert time.monotonic() < end, f"{slot} did not end"
            time.sleep(0.02)
            app.run()
        return app

    return settle
