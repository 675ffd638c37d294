"""Work stops soon after someone asks: between torch's operations, and beside what cannot be interrupted."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from workbench.interrupting import Pulse, interruptible, run_aside
from workbench.jobs import Cancelled, Job


def start_job() -> Job:
    return Job("1", "me", "Work", None)


def test_a_long_unit_stops_between_torch_operations() -> None:
    job = start_job()
    threading.Timer(0.2, job.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled), interruptible(job.tick) as tick:  # noqa: PT012
        tick("one long unit", 0, 1)
        while time.monotonic() - began < 30:
            torch.ones(2) + 1
    assert (job.step, job.done, job.total) == ("one long unit", 0, 1)
    assert time.monotonic() - began < 10


def test_a_handler_of_all_errors_does_not_swallow_the_stop() -> None:
    job = start_job()
    job.cancel()
    with pytest.raises(Cancelled), interruptible(job.tick):  # noqa: PT012
        time.sleep(0.06)
        try:
            torch.ones(2) + 1
        except Exception:
            pytest.fail("a library would have taken the stop for an error of its own")


def test_what_is_computed_stays_the_same() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(7, 33), torch.randn(33, 33, requires_grad=True)
    plain = (x @ w).softmax(-1).square().sum()
    (alone,) = torch.autograd.grad(plain, w)
    with interruptible(start_job().tick):
        asked = (x @ w).softmax(-1).square().sum()
        (gradient,) = torch.autograd.grad(asked, w)
    assert torch.equal(plain, asked) and torch.equal(alone, gradient)


def test_a_beat_repeats_what_was_told_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [0.0], []
    monkeypatch.setattr("workbench.interrupting.time.monotonic", lambda: now[0])
    pulse = Pulse(lambda *words: told.append(words))
    pulse("patching", 3, 9)
    for _ in range(100):
        pulse.beat()
    now[0] += 1.0
    pulse.beat()
    assert told == [("patching", 3, 9)] * 2


def test_work_beside_gives_its_result_and_its_error() -> None:
    job = start_job()
    assert run_aside(lambda: 7, job.tick, "beside") == 7

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_aside(fail, job.tick, "beside")


def test_a_stop_does_not_wait_for_work_beside() -> None:
    job, gate = start_job(), threading.Event()
    threading.Timer(0.1, job.cancel).start()
    with pytest.raises(Cancelled):
        run_aside(lambda: gate.wait(30), job.tick, "beside")
    gate.set()
