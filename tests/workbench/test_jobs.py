"""Jobs: one at a time, progress, cancel, errors in words, bounded memory, each owner its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from probes.errors import UserError
from workbench.jobs import Holder, Job, Jobs, State, Tick

PATIENCE = 20.0


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs(keep=3, waiting=4)
    yield jobs
    jobs.close()


def wait_for(job: Job) -> Job:
    """The job when it has ended."""
    gate = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if not job.active:
            return job
        gate.wait(0.01)
    raise AssertionError(f"{job.label} is still {job.state}")


def wait_at(gate: threading.Event) -> Callable[[Tick], str]:
    """Work that goes on until the gate opens."""

    def work(tick: Tick) -> str:
        for _ in range(int(PATIENCE / 0.01)):
            tick("waiting", 1, 2)
            if gate.wait(0.01):
                return "done"
        raise AssertionError("nobody opened the gate")

    return work


def test_a_result_and_its_progress(jobs: Jobs) -> None:
    def work(tick: Tick) -> int:
        tick("half", 1, 2)
        return 7

    job = wait_for(jobs.submit("me", "Count", work))
    assert (job.state, job.result, job.step, job.share) == (State.DONE, 7, "half", 0.5)


def test_a_running_job_stops_at_its_next_tick(jobs: Jobs) -> None:
    job = jobs.submit("me", "Wait", wait_at(threading.Event()))
    job.cancel()
    assert wait_for(job).state is State.CANCELLED
    assert job.result is None


def test_a_waiting_job_never_starts_once_cancelled(jobs: Jobs) -> None:
    gate, started = threading.Event(), threading.Event()
    first = jobs.submit("me", "First", wait_at(gate))
    second = jobs.submit("me", "Second", lambda tick: started.set())
    assert jobs.count_before(second) == 1
    second.cancel()
    gate.set()
    assert wait_for(first).state is State.DONE
    assert wait_for(second).state is State.CANCELLED
    assert not started.is_set()


def test_a_user_error_is_its_line(jobs: Jobs) -> None:
    def work(tick: Tick) -> None:
        raise UserError("no folder x: give another")

    job = wait_for(jobs.submit("me", "Open", work))
    assert (job.state, job.error) == (State.FAILED, "no folder x: give another")


def test_a_defect_is_logged_and_its_text_kept_from_the_browser(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    def work(tick: Tick) -> None:
        raise ValueError("secret path")

    with caplog.at_level(logging.ERROR, logger="workbench.jobs"):
        job = wait_for(jobs.submit("me", "Break", work))
    assert job.state is State.FAILED
    assert "ValueError" in job.error
    assert "secret path" not in job.error
    assert "secret path" in caplog.text


def test_the_worker_outlives_a_failure(jobs: Jobs) -> None:
    def fail(tick: Tick) -> None:
        raise UserError("no")

    wait_for(jobs.submit("me", "Fail", fail))
    assert wait_for(jobs.submit("me", "Then", lambda tick: 1)).result == 1


def test_a_job_is_found_by_its_number_alone_which_nobody_guesses(jobs: Jobs) -> None:
    job = wait_for(jobs.submit("me", "Mine", lambda tick: 1))
    assert jobs.find(job.id) is job
    assert jobs.find("unknown") is None
    assert len(job.id) == 32


def test_finished_jobs_are_bounded(jobs: Jobs) -> None:
    done = [wait_for(jobs.submit("me", str(number), lambda tick: 1)) for number in range(8)]
    wait_for(jobs.submit("me", "last", lambda tick: 1))
    assert sum(jobs.find(job.id) is not None for job in done) <= 3


def test_the_queue_is_bounded(jobs: Jobs) -> None:
    gate = threading.Event()
    held = [jobs.submit("me", str(number), wait_at(gate)) for number in range(4)]
    with pytest.raises(UserError, match="wait already"):
        jobs.submit("me", "one more", lambda tick: 1)
    gate.set()
    for job in held:
        wait_for(job)


def test_one_owner_cannot_fill_the_queue() -> None:
    jobs, gate = Jobs(waiting=4, each=2), threading.Event()
    held = [jobs.submit("me", str(number), wait_at(gate)) for number in range(2)]
    with pytest.raises(UserError, match="of your work"):
        jobs.submit("me", "one more", lambda tick: 1)
    held.append(jobs.submit("you", "another's", lambda tick: 1))
    held[1].cancel()
    held.append(jobs.submit("me", "in place of the cancelled one", lambda tick: 1))
    gate.set()
    assert [wait_for(job).state for job in held] == [State.DONE, State.CANCELLED, State.DONE, State.DONE]
    jobs.close()


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), MemoryError(), RecursionError()])
def test_the_worker_outlives_whatever_is_raised(jobs: Jobs, error: BaseException) -> None:
    def fail(tick: Tick) -> None:
        raise error

    assert wait_for(jobs.submit("me", "Crash", fail)).state is State.FAILED
    assert wait_for(jobs.submit("you", "Then", lambda tick: 1)).result == 1


def test_the_time_left_follows_the_pace_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("workbench.jobs.time.monotonic", lambda: now[0])
    job = Job("1", "me", "Trace", None)
    job.tick("loading", 0, 3)
    assert job.left is None
    for done in range(5):
        job.tick("edges patched", done, 20)
        now[0] += 2.0
    # Four units took 8 s, 16 are left at 2 s each; 2 s have passed since the last tick.
    assert job.left == pytest.approx(30.0)
    job.tick("saving", 0, 1)
    assert job.left is None


def test_two_jobs_never_run_at_once(jobs: Jobs) -> None:
    inside, most = [0], [0]

    def work(tick: Tick) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        tick("x", 0, 1)
        inside[0] -= 1

    for job in [jobs.submit("me", str(number), work) for number in range(4)]:
        wait_for(job)
    assert most == [1]


def test_the_holder_keeps_one_value_and_lets_go_before_it_builds() -> None:
    holder: Holder[str] = Holder()
    built: list[str] = []

    def build(name: str) -> Callable[[], str]:
        return lambda: built.append(name) or name

    assert holder.fetch("a", build("a")) == "a"
    assert holder.fetch("a", build("a")) == "a"
    assert holder.fetch("b", build("b")) == "b"
    assert built == ["a", "b"]

    def refuse() -> str:
        raise UserError("no")

    with pytest.raises(UserError):
        holder.fetch("c", refuse)
    assert holder.fetch("c", build("c")) == "c"
    holder.drop()
    assert holder.fetch("c", build("c")) == "c"
    assert built == ["a", "b", "c", "c"]
