"""Steps of a training, one after the other: rate, time left, checkpoints, and a stop that loses nothing."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from circuits.limits import is_out_of_memory
from probes.errors import UserError
from probes.progress import Tick

# Share of the steps over which the rate rises, and over which it falls at the end, as in warmup-stable-decay.
RISE, FALL, LAST = 0.02, 0.2, 0.1


def choose_rate(step: int, steps: int, rate: float) -> float:
    """Learning rate of a step: up from near zero, constant, at last linearly down to a tenth."""
    rise, fall = max(1, round(RISE * steps)), max(1, round(FALL * steps))
    if step < rise:
        return rate * (step + 1) / rise
    left = (steps - step) / fall
    return rate * min(1.0, LAST + (1 - LAST) * left)


@contextmanager
def hold_interrupts(hold: bool) -> Iterator[list[int]]:
    """A list that a Ctrl-C is put into instead of raising at once; only where it may be held, in the main thread."""
    asked: list[int] = []
    if not hold or threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(slots=True)
class Steps:
    """A training's steps: `take(step)` does one and returns its loss in nats, `save(step, log)` keeps a checkpoint.

    `hold` lets Ctrl-C wait for the end of a step; parallel processes cannot, for they would not stop at the same one.
    """

    total: int
    take: Callable[[int], float]
    save: Callable[[int, list[float]], None]
    minutes: float
    label: str = "training"
    log: list[float] = field(default_factory=list)
    hold: bool = True

    def run(self, start: int, tick: Tick) -> None:
        """Do the steps from `start` on. Ctrl-C ends after the step under way, with a checkpoint.

        Raises UserError for a loss that is no number, when memory runs out, and KeyboardInterrupt when stopped.
        """
        began = saved = time.monotonic()
        with hold_interrupts(self.hold) as asked:
            for step in range(start, self.total):
                self.log.append(self.measure(step))
                now = time.monotonic()
                left = (now - began) / (step + 1 - start) * (self.total - step - 1)
                tick(f"{self.label}, loss {self.log[-1]:.3f}, {left / 60:.1f} min left", step + 1, self.total)
                if asked or now - saved > 60 * self.minutes:
                    self.save(step + 1, self.log)
                    saved = time.monotonic()
                if asked:
                    raise KeyboardInterrupt

    def measure(self, step: int) -> float:
        """Loss of one step, taken."""
        try:
            loss = self.take(step)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError("out of memory while training: fewer --rows, a shorter --length, or --bf16") from error
        if not math.isfinite(loss):
            raise UserError(f"the loss of step {step + 1} is {loss}: lower --rate")
        return loss


@lru_cache(maxsize=2)
def shuffle(count: int, seed: int, epoch: int) -> Tensor:
    """Order of an epoch."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def order_rows(step: int, rows: int, count: int, seed: int) -> list[int]:
    """Rows of a step out of `count`: every epoch in an order of its own, a function of seed and step alone."""
    places = (divmod(number, count) for number in range(step * rows, (step + 1) * rows))
    return [int(shuffle(count, seed, epoch)[place]) for epoch, place in places]


def seed_step(seed: int, step: int) -> None:
    """Seed whatever draws inside a step (dropout, choices)."""
    torch.manual_seed(seed * 1_000_003 + step)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of an optimizer this learning rate."""
    groups: list[dict[str, Any]] = optimizer.param_groups
    for group in groups:
        group["lr"] = rate


def thin_log(log: list[float], most: int = 100) -> list[dict[str, float]]:
    """At most `most` means of a log, each with the last step it covers."""
    size = max(1, math.ceil(len(log) / most))
    return [
        {"step": min(start + size, len(log)), "loss": sum(log[start : start + size]) / len(log[start : start + size])}
        for start in range(0, len(log), size)
    ]
