"""The page Specific or abstract: saved results open without a model, links restore the view, jobs and bad files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from probes.errors import UserError
from tests.pages.measured import FOUND, SPECIFICITY
from tests.pages.reading import find_table, list_linked, press, texts
from workbench import pipeline
from workbench.commands import measurements as measures
from workbench.commands.command import Answer
from workbench.measurements import Measurement, open_measurement, save_measurement
from workbench.runs import Run, save_run

OpenPage = Callable[..., AppTest]
Settle = Callable[[AppTest, str], AppTest]


def save(runs: Path, kind: str, name: str = "", **more: Any) -> str:
    """Keep a result under a name, the kind's own if none."""
    measured = Measurement(kind, {**FOUND[kind], **more}, f"memory-circuits {kind} --json", {"name": "shipped"})
    save_measurement(measured, runs / "measurements" / f"{name or kind}.json")
    return name or kind


def test_without_results_the_page_says_what_to_do(open_page: OpenPage) -> None:
    app = open_page("knowledge")
    assert not app.exception
    assert "Nothing of this kind was measured yet" in app.info[0].value
    app.segmented_control(key="section").set_value("core").run()
    assert "Two saved runs or more" in texts(app) and not app.exception


@pytest.mark.parametrize("kind", [kind for kind in FOUND if kind != "specificity"])
def test_a_saved_result_of_every_kind_opens(open_page: OpenPage, runs: Path, kind: str) -> None:
    save(runs, kind)
    app = open_page("knowledge", section=kind)
    assert not app.exception
    assert app.selectbox(key=f"choose-{kind}").value == kind
    page = texts(app)
    assert "n = " in page or kind == "units"
    assert "<img" not in page and "$y$" not in page


def test_components_are_counted_listed_and_explained(open_page: OpenPage, runs: Path, fake: Any) -> None:
    save(runs, "specificity")
    save(runs, "heads")
    save(runs, "units")
    app = open_page("knowledge", component="m1.u3")
    assert not app.exception
    assert [metric.value for metric in app.metric][:3] == ["4", "2", "8"]
    assert find_table(app, "specific")["specific"].tolist() == [1, 1, 1, 0]
    assert app.subheader[0].value == "m1\\.\u2060u3"
    assert "FFN unit m1" in texts(app) and "+4.000 nats" in texts(app).replace("\\", "").replace("\u2060", "")
    assert find_table(app, "own facts")["own facts"].tolist()[0] == 3.5
    assert "knowledge neuron of" in find_table(app, "says")["says"].tolist()[0]
    app.multiselect(key="component-labels").set_value(["specific"]).run()
    assert "3 of 6 components" in texts(app)
    assert fake.calls == []


def test_a_click_selects_a_component_and_the_link_follows(open_page: OpenPage, runs: Path) -> None:
    save(runs, "specificity")
    save(runs, "heads")
    app = open_page("knowledge")
    app.session_state["map-heads"] = {"selection": {"points": [{"customdata": ["a0.h1"]}]}}
    app.run()
    assert "a0" in app.subheader[0].value and list_linked(app, "component") == ["a0.h1"]
    assert "memory: drop" in find_table(app, "says")["says"].tolist()[0]
    app.query_params["component"] = "a9.h9"
    app.run()
    assert "no component" in texts(app) and not app.exception


def test_a_class_shows_its_members(open_page: OpenPage, runs: Path) -> None:
    save(runs, "classes")
    app = open_page("knowledge", section="classes")
    app.session_state["scatter-classes"] = {"selection": {"points": [{"customdata": [0]}]}}
    app.run()
    assert not app.exception
    assert app.subheader[0].value == "Specific class"
    assert find_table(app, "fact")["fact"].tolist() == ["capital/Norland"]
    save(runs, "classes", "empty", classes=[])
    app = open_page("knowledge", section="classes", measurement="empty")
    assert "No edge is strong enough" in texts(app) and not app.exception


def test_bad_links_and_broken_files_are_told(open_page: OpenPage, runs: Path) -> None:
    save(runs, "specificity")
    (runs / "measurements" / "broken.json").write_text("{")
    app = open_page("knowledge", section="<b>", measurement="../../etc/passwd")
    assert not app.exception
    assert "not JSON" in texts(app) and "There is no saved measurement" in texts(app)
    assert app.selectbox(key="choose-specificity").value == "specificity"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The measurement is answered from a script; what it was given."""
    given: list[Any] = []

    def answer(options: Any, desk: Any) -> Answer:
        with desk.progress() as tick:
            given.append(options)
            while options.seed == 99:
                tick("effects of all components", 1, 10)
        if options.seed == 13:
            raise UserError("no fact is left to *look* at")
        return Answer(SPECIFICITY, "")

    changed = replace(measures.MEASURES["specificity"], answer=answer)
    monkeypatch.setitem(measures.MEASURES, "specificity", changed)
    engine = SimpleNamespace(model=SimpleNamespace(sha256="0" * 64))
    monkeypatch.setattr(pipeline, "open_engine", lambda settings, tick: engine)
    return given


def test_a_measurement_runs_as_a_job_and_is_kept(
    open_page: OpenPage, settle: Settle, runs: Path, measured: list[Any]
) -> None:
    app = open_page("knowledge")
    app.multiselect(key="specificity-relations").set_value(["capital"])
    app.number_input(key="specificity-limit").set_value(2)
    settle(press(app, "Measure"), "measuring")
    assert not app.exception
    assert (measured[0].relation, measured[0].limit, measured[0].confirm) == (["capital"], 2, 3)
    kept = open_measurement(runs / "measurements" / "specificity-1.json")
    assert kept.found == SPECIFICITY
    assert kept.command == (
        "memory-circuits specificity --relation=capital --limit=2 --wordings=3 --seed=0 --confirm=3 --json"
    )
    assert app.selectbox(key="choose-specificity").value == "specificity-1"


def test_a_measurement_is_cancelled_or_fails_and_nothing_is_kept(
    open_page: OpenPage, settle: Settle, runs: Path, measured: list[Any]
) -> None:
    app = open_page("knowledge")
    app.number_input(key="specificity-seed").set_value(99)
    press(app, "Measure")
    press(app, "Cancel")
    settle(app, "measuring")
    assert "cancelled" in texts(app)
    app.number_input(key="specificity-seed").set_value(13)
    settle(press(app, "Measure"), "measuring")
    assert "no fact is left to \\*look\\* at" in app.error[0].value
    assert not (runs / "measurements").exists()


def test_what_a_command_would_refuse_is_told_before_the_job(open_page: OpenPage) -> None:
    app = press(open_page("knowledge", section="lens"), "Measure")
    assert not app.exception
    assert "give either a fact or a prompt" in app.error[0].value


def test_opening_what_is_saved_imports_no_torch(runs: Path, run: Run) -> None:
    """Neither the components nor the list of runs."""
    save(runs, "specificity")
    save_run(run, runs / "norland")
    program = (
        "import sys\n"
        "from importlib.resources import files\n"
        "from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file(str(files('workbench') / 'app.py'), default_timeout=120).run()\n"
        "for page, key in (('knowledge', 'choose-specificity'), ('runs', 'run-words')):\n"
        "    app.switch_page(f'../pages/{page}.py').run()\n"
        "    assert not app.exception, app.exception\n"
        "    assert key in app.session_state\n"
        "heavy = {'torch', 'transformer_lens', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "MEMORY_CIRCUITS_RUNS": str(runs), "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]


def test_runs_are_laid_over_each_other(open_page: OpenPage, runs: Path, build_run: Callable[..., Run]) -> None:
    for seed in range(3):
        save_run(build_run(seed=seed), runs / f"run-{seed}")
    app = open_page("knowledge", section="core", runs="run-0,run-1,run-2,nowhere")
    assert not app.exception
    assert "no saved run nowhere" in texts(app)
    assert app.multiselect(key="core-runs").value == ["run-0", "run-1", "run-2"]
    counts = {metric.label: int(metric.value) for metric in app.metric if metric.label != "Mean overlap"}
    assert sum(counts.values()) == len(find_table(app, "circuits"))
    app.selectbox(key="core-of").select("run-1").run()
    assert all("run-1" in owners for owners in find_table(app, "circuits")["of"])
    save_run(build_run(tokens=("a", "b"), seed=3), runs / "short")
    app.multiselect(key="core-runs").set_value(["run-0", "short"]).run()
    app.toggle(key="core-positions").set_value(True).run()
    assert "differ in their number of tokens" in app.error[0].value and not app.exception


def test_a_link_that_names_a_run_twice_lays_it_over_others_once(
    open_page: OpenPage, runs: Path, build_run: Callable[..., Run]
) -> None:
    for seed, name in enumerate(("first", "second")):
        save_run(build_run(seed=seed), runs / name)
    app = open_page("knowledge", section="core", runs="first,second,first,,second")
    assert not app.exception
    assert app.multiselect(key="core-runs").value == ["first", "second"]
