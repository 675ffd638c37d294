"""Long work beside the browser: one worker thread, so that one piece of work at a time has the model.

Work is a function that takes a `tick`; it calls `tick(label, done, total)` between its units, which records progress
and raises `Cancelled` when someone asked to stop. A job is found by its number alone, which nobody can guess: a page
keeps it in its link, and so finds its work again after a reload.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from probes.errors import UserError
from probes.progress import Tick

Value = TypeVar("Value")
_log = logging.getLogger(__name__)


# Shorter than this, the pace of a step says nothing about what is left of it.
TELLING = 1.0


class Cancelled(BaseException):
    """Raised inside work, by its tick, after `Job.cancel`.

    Not an `Exception`, so that no library's handler of all errors takes it for one of its own.
    """


class State(StrEnum):
    """Where a job is; the value is the word shown to a person."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class Job:
    """One piece of work. `error` is a line for a person; `step`, `done`, `total` are the latest progress.

    `slot` is what the job is to the page that started it, `page` that page's name.
    """

    id: str
    owner: str
    label: str
    work: Callable[[Tick], Any] | None
    slot: str = ""
    page: str = ""
    state: State = State.WAITING
    step: str = ""
    done: int = 0
    total: int = 0
    result: Any = None
    error: str = ""
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _began: tuple[float, int] = (0.0, 0)
    _last: float = 0.0

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (State.WAITING, State.RUNNING)

    @property
    def share(self) -> float:
        """Progress of the present step, 0 to 1."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else 0.0

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    @property
    def left(self) -> float | None:
        """Seconds that the present step still needs at its pace so far; None while that cannot be told."""
        (began, first), last = self._began, self._last
        if self.done <= first or self.total <= 1 or last - began < TELLING:
            return None
        pace = (last - began) / (self.done - first)
        return max(pace * (self.total - self.done) - (time.monotonic() - last), 0.0)

    def tick(self, label: str, done: int, total: int) -> None:
        """Record progress. Raises Cancelled when the job was asked to stop."""
        self._last = time.monotonic()
        if label != self.step or done < self.done:
            self._began = self._last, done
        self.step, self.done, self.total = label, done, total
        if self._stop.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """Ask it to stop at its next tick; a waiting job never starts."""
        self._stop.set()
        if self.state is State.WAITING:
            self.state = State.CANCELLED


def run_job(job: Job) -> None:
    """Do a job's work and record how it ended; never raises."""
    work, job.work = job.work, None
    if job.stopping or work is None:
        job.state = State.CANCELLED
        return
    job.state = State.RUNNING
    try:
        result = work(job.tick)
    except Cancelled:
        job.state = State.CANCELLED
    except UserError as error:
        job.error, job.state = str(error), State.FAILED
    except BaseException as error:
        # Whatever one person's work raises, the worker goes on to the next.
        _log.exception("job %r failed", job.label)
        job.error = f"{type(error).__name__}: this is a defect of the workbench; the server's log has the details"
        job.state = State.FAILED
    else:
        job.result, job.state = result, State.DONE


class Jobs:
    """A queue with one worker.

    At most `keep` finished jobs are remembered; `waiting` may be unfinished at once, of one owner `each`.
    """

    def __init__(self, keep: int = 100, waiting: int = 60, each: int = 4) -> None:
        self._keep, self._waiting, self._each = keep, waiting, each
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._serve, name="memory-circuits-worker", daemon=True)
        self._worker.start()

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            run_job(job)
            self._forget()

    def _forget(self) -> None:
        with self._lock:
            finished = [job.id for job in self._jobs.values() if not job.active]
            for number in finished[: max(len(finished) - self._keep, 0)]:
                del self._jobs[number]

    def submit(self, owner: str, label: str, work: Callable[[Tick], Any], slot: str = "", page: str = "") -> Job:
        """Queue work. Raises UserError when too much waits already, of this owner or of all."""
        job = Job(secrets.token_hex(16), owner, label, work, slot, page)
        with self._lock:
            active = [other.owner for other in self._jobs.values() if other.active]
            if active.count(owner) >= self._each:
                raise UserError(f"{self._each} pieces of your work wait already: wait for one, or cancel one")
            if len(active) >= self._waiting:
                raise UserError(f"{self._waiting} pieces of work wait already: try again when some are done")
            self._jobs[job.id] = job
        self._queue.put(job)
        return job

    def find(self, number: str) -> Job | None:
        """A job by its number, None when there is none or it was forgotten."""
        with self._lock:
            return self._jobs.get(number)

    def count_before(self, job: Job) -> int:
        """How many unfinished jobs come before this one."""
        with self._lock:
            earlier = list(self._jobs)[: list(self._jobs).index(job.id)] if job.id in self._jobs else []
            return sum(self._jobs[number].active for number in earlier)

    def close(self) -> None:
        """Ask all to stop and end the worker when it gets there."""
        with self._lock:
            for job in self._jobs.values():
                job.cancel()
        self._queue.put(None)


class Holder(Generic[Value]):
    """Keeps the latest of something expensive (the loaded model) by a text key; used from the worker only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: str | None = None
        self._value: Value | None = None

    def fetch(self, key: str, build: Callable[[], Value]) -> Value:
        """The value of a key; another key's value is let go before the new one is built."""
        with self._lock:
            if self._key != key or self._value is None:
                self._key, self._value = None, None
                self._value = build()
                self._key = key
            return self._value

    def drop(self) -> None:
        """Let the value go: what broke while it was used may have left it broken."""
        with self._lock:
            self._key, self._value = None, None
