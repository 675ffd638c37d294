"""Several people on one model: each gets, bit for bit, what a run alone gives; broken work leaves no trace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from pages import session
from tests.small_world import ship_world
from workbench.engine import open_engine
from workbench.jobs import Job, Jobs, State
from workbench.pipeline import trace
from workbench.runs import encode_run
from workbench.settings import Question, Settings

SETTINGS = Settings(edges=60, device="cpu")
FACTS = ("capital/France", "capital/Anna", "capital/Italy")
PATIENCE = 120.0


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ship_world(tmp_path_factory.mktemp("world") / "shipped"):
        session.hold_engine.clear()
        yield
        session.hold_engine.clear()


@pytest.fixture(scope="module")
def alone(_world: None) -> dict[str, dict[str, bytes]]:
    """Files of each fact's run, traced by itself on an engine of its own."""
    return {fact: encode_run(trace(open_engine(SETTINGS), Question(fact=fact), SETTINGS)) for fact in FACTS}


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.close()


def submit(jobs: Jobs, owner: str, settings: Settings, work: Callable[[Any, Any], Any]) -> Job:
    """Queue work as a page does."""
    return jobs.submit(owner, "Tracing", lambda tick: session.use_engine(settings, work, tick))


def submit_trace(jobs: Jobs, owner: str, fact: str, settings: Settings = SETTINGS) -> Job:
    """Queue one person's trace."""
    return submit(jobs, owner, settings, lambda engine, tick: trace(engine, Question(fact=fact), settings, tick))


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_everyone_gets_what_a_run_alone_gives(jobs: Jobs, alone: dict[str, dict[str, bytes]]) -> None:
    found: dict[str, list[Job]] = {fact: [] for fact in FACTS}

    def ask(fact: str) -> None:
        for _ in range(2):
            found[fact].append(submit_trace(jobs, fact, fact))

    people = [threading.Thread(target=ask, args=(fact,)) for fact in FACTS]
    for person in people:
        person.start()
    for person in people:
        person.join()
    for fact, mine in found.items():
        wait_until(lambda mine=mine: not any(job.active for job in mine))  # type: ignore[misc]
        assert [job.error for job in mine] == ["", ""]
        assert all(encode_run(job.result) == alone[fact] for job in mine)


def test_a_cancelled_trace_frees_the_model_and_leaves_nothing(jobs: Jobs, alone: dict[str, dict[str, bytes]]) -> None:
    long = submit_trace(jobs, "one", FACTS[0], replace(SETTINGS, method="exact"))
    next_one = submit_trace(jobs, "two", FACTS[1])
    wait_until(lambda: long.step == "edges patched")
    long.cancel()
    wait_until(lambda: not next_one.active)
    assert (long.state, next_one.state) == (State.CANCELLED, State.DONE)
    assert encode_run(next_one.result) == alone[FACTS[1]]


def test_a_crash_in_a_pass_lets_the_engine_go_and_the_next_run_is_right(
    jobs: Jobs, alone: dict[str, dict[str, bytes]]
) -> None:
    seen: list[Any] = []

    def crash(engine: Any, tick: Any) -> None:
        def break_off(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        seen.append(engine)
        engine.model.run(torch.tensor([[1, 2]]), [("blocks.1.hook_in", break_off)])

    broken = submit(jobs, "one", SETTINGS, crash)
    after = submit_trace(jobs, "two", FACTS[2])
    again = submit(jobs, "two", SETTINGS, lambda engine, tick: engine)
    wait_until(lambda: not again.active)
    assert (broken.state, after.state) == (State.FAILED, State.DONE)
    assert encode_run(after.result) == alone[FACTS[2]]
    assert again.result is not seen[0]
