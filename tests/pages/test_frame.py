"""What stands above every page: jobs that outlive a reload, queue, cancel, two people at once, password, tour."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages import gate, session
from pages.progress import describe_job, describe_time
from tests.pages.reading import press, texts
from workbench import pipeline
from workbench.jobs import Job, State
from workbench.passwords import PASSWORD, hash_password
from workbench.runs import Run, load_run
from workbench.settings import Question, Settings
from workbench.views.tour import STEPS, read_step

OpenPage = Callable[..., AppTest]
Settle = Callable[[AppTest, str], AppTest]
PATIENCE = 60.0


def ask(app: AppTest) -> AppTest:
    """Press Ask for the fact of the link."""
    return press(app, "Ask")


def read_jobs(app: AppTest) -> list[str]:
    """Jobs that the link names."""
    value = app.query_params.get("job", [])
    return [value] if isinstance(value, str) else list(value)


def start_endless(open_page: OpenPage, settle: Settle) -> AppTest:
    """A page whose trace never ends by itself."""
    app = settle(ask(open_page("", fact="norland-capital")), "asking")
    next(number for number in app.number_input if number.label == "Seed").set_value(99)
    return press(app, "Trace")


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when it holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.01)


def find_running() -> Job:
    """The job that runs."""
    jobs = session.open_jobs()
    wait_until(lambda: any(job.state is State.RUNNING for job in jobs._jobs.values()))
    return next(job for job in jobs._jobs.values() if job.state is State.RUNNING)


def test_a_reopened_page_finds_its_work_and_its_result(open_page: OpenPage, settle: Settle) -> None:
    app = ask(open_page("", fact="norland-capital"))
    (number,) = read_jobs(app)
    again = settle(open_page("", fact="norland-capital", job=number), "asking")
    assert "What comes after" in texts(again)
    # Done and handed out in one window, it is still there for the next.
    third = open_page("", job=number)
    assert "What comes after" in texts(third)
    assert not third.info


def test_a_reopened_page_shows_progress_and_can_cancel(open_page: OpenPage, settle: Settle) -> None:
    app = start_endless(open_page, settle)
    job = find_running()
    assert job.id in read_jobs(app)
    again = open_page("", job=job.id)
    assert any(button.label == "Cancel" for button in again.button)
    press(again, "Cancel")
    wait_until(lambda: not job.active)
    assert "cancelled" in texts(again)
    assert "cancelled" in texts(app.run())


def test_other_pages_show_what_goes_on(open_page: OpenPage, settle: Settle, saved: str) -> None:
    app = start_endless(open_page, settle)
    job = find_running()
    app.switch_page("../pages/runs.py").run()
    assert "Tracing" in texts(app)
    assert job.id in read_jobs(app)
    press(app, "Cancel")
    wait_until(lambda: not job.active)


def test_a_link_to_forgotten_work_says_so(open_page: OpenPage, saved: str) -> None:
    assert "no longer knows" in texts(open_page("circuit", run=saved, job="0" * 32))


def test_the_queue_is_shown_and_a_cancelled_job_lets_the_next_one_in(open_page: OpenPage, settle: Settle) -> None:
    start_endless(open_page, settle)
    first = find_running()
    second = ask(open_page("", fact="southia-capital"))
    (bar,) = second.get("progress")
    assert "number 2 in the queue" in str(bar.proto)
    first.cancel()
    assert "What comes after" in texts(settle(second, "asking"))


def test_one_sessions_crash_hurts_nobody(
    open_page: OpenPage, settle: Settle, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = pipeline.ask

    def crash(engine: object, question: Question, *rest: Any) -> Any:
        if question.fact == "southia-capital":
            raise SystemExit(1)
        return calm(engine, question, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "ask", crash)
    one, two = ask(open_page("", fact="southia-capital")), ask(open_page("", fact="norland-capital"))
    assert "SystemExit" in texts(settle(one, "asking"))
    assert "What comes after" in texts(settle(two, "asking"))
    # What a crash may have left broken is not used again.
    assert [call[0] for call in fake.calls].count("open") == 2


def test_two_people_trace_different_facts_and_get_their_own(
    open_page: OpenPage, settle: Settle, fake: Any, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trace(engine: object, question: Question, settings: Settings, tick: Any) -> Run:
        for step in range(20):
            tick("patching", step, 20)
            time.sleep(0.005)
        run = fake.build_run(seed=len(question.fact))
        return replace(run, about={**run.about, "question": question.to_json()})

    monkeypatch.setattr(pipeline, "trace", trace)
    facts = ("norland-capital", "southia-capital")
    apps = [settle(ask(open_page("", fact=fact)), "asking") for fact in facts]
    apps = [press(app, "Trace") for app in apps]
    for app, fact in zip(apps, facts, strict=True):
        settle(app, "tracing")
        run = load_run(runs / str(app.session_state["run"]))
        assert run.about["question"]["fact"] == fact
        assert (run.scores.edges == fake.build_run(seed=len(fact)).scores.edges).all()


def test_a_path_outside_is_refused_before_any_work(open_page: OpenPage, fake: Any) -> None:
    app = open_page("", fact="norland-capital")
    next(field for field in app.text_input if field.label == "Model").set_value("/etc").run()
    ask(app)
    assert "outside the workspace" in texts(app)
    assert fake.calls == []


def test_progress_says_how_long_it_still_takes() -> None:
    job = Job("1", "me", "Tracing", None, state=State.RUNNING)
    job.tick("edges patched", 0, 4000)
    job._began = (time.monotonic() - 10, 0)
    job.tick("edges patched", 1000, 4000)
    assert describe_job(job).startswith("Tracing: edges patched 1,000 of 4,000, about 3")
    assert describe_job(job).endswith("s left of this step")
    assert [describe_time(seconds) for seconds in (0.0, 7.2, 89.5, 200.0)] == ["1 s", "8 s", "90 s", "4 min"]


def test_without_the_password_no_page_is_seen(open_page: OpenPage, saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PENALTY", 0.0)
    monkeypatch.setenv(PASSWORD, hash_password("correct horse battery"))
    app = open_page("circuit", run=saved)
    assert "Oskarville" not in texts(app) and not app.metric
    app.text_input[0].set_value("correct horse batter")
    press(app, "Open")
    assert "not the password" in texts(app) and not app.metric
    app.text_input[0].set_value("correct horse battery")
    press(app, "Open")
    assert "Oskarville" in texts(app) and app.metric
    assert os.environ[PASSWORD] not in texts(app)


def test_the_tour_leads_from_page_to_page_and_ends_when_wanted(open_page: OpenPage, saved: str) -> None:
    app = press(open_page(""), "Take the three-minute tour")
    assert STEPS[0].title in texts(app)
    assert app.query_params["fact"] in ("norland-capital", ["norland-capital"])
    for step in STEPS[1:]:
        press(app, "Next")
        assert step.title in texts(app)
    press(app, "Back")
    press(app, "End the tour")
    assert "Tour, step" not in texts(app)
    assert "tour" not in app.query_params


@pytest.mark.parametrize(("text", "step"), [("2", 2), ("0", 0), ("99", 0), ("-1", 0), ("x", 0), ("", 0), ("²", 0)])
def test_a_linked_step_is_checked(text: str, step: int) -> None:
    assert read_step(text) == step
