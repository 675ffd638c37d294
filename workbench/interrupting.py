"""Work that stops soon after someone asks, wherever it is: between torch's operations, while a library is imported.

A `tick` (`probes/progress.py`) stops work between its units; a unit may take long, and importing or loading a model has
none. Here the tick is also asked before every torch operation, or from beside work that cannot be interrupted.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from probes.progress import Tick

Value = TypeVar("Value")

# Seconds between two questions whether to stop.
PAUSE = 0.05
# What takes seconds to import, in the order of need.
LIBRARIES = ("torch", "transformers", "transformer_lens.model_bridge", "probes.models")


class Pulse:
    """A tick that remembers what it was told, so that it can ask again in between (`beat`) and change nothing shown."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick
        self._told = "", 0, 0
        self._asked = time.monotonic()

    def __call__(self, label: str, done: int, total: int) -> None:
        self._told = label, done, total
        self._asked = time.monotonic()
        self._tick(label, done, total)

    def beat(self) -> None:
        """Ask whether to stop, at most every `PAUSE` seconds; raises what the tick raises."""
        if time.monotonic() - self._asked >= PAUSE:
            self(*self._told)


@contextmanager
def interruptible(tick: Tick) -> Iterator[Tick]:
    """The tick to work with in this block: before every torch operation of this thread it is asked whether to stop.

    What is computed stays the same, bit for bit. Where torch is not loaded yet there is nothing to interrupt.
    """
    if "torch" not in sys.modules:
        yield tick
        return
    from torch.overrides import TorchFunctionMode

    pulse = Pulse(tick)

    class Asking(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            pulse.beat()
            return func(*args, **(kwargs or {}))

    with Asking():
        yield pulse


def run_aside(work: Callable[[], Value], tick: Tick, label: str) -> Value:
    """What `work` returns or raises, from a thread of its own; the tick is asked meanwhile.

    When the tick raises, the work is left to end by itself and its result is dropped: for work without effects that
    has no units.
    """
    found: list[Value] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="memory-circuits-aside", daemon=True)
    thread.start()
    while thread.is_alive():
        tick(label, 0, 1)
        thread.join(PAUSE)
    if failed:
        raise failed[0]
    return found[0]


def import_libraries(tick: Tick) -> None:
    """Import torch and TransformerLens, seconds of work the first time; the tick may stop waiting for it."""
    run_aside(lambda: [importlib.import_module(name) for name in LIBRARIES], tick, "loading libraries")
