"""What a command works at: how its progress shows, and who opens its model. A page puts its own in place of these."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probes.progress import Tick
from workbench import pipeline
from workbench.commands.terminal import show_progress
from workbench.settings import Settings

if TYPE_CHECKING:
    from workbench.engine import Engine


def open_once(settings: Settings, tick: Tick) -> Engine:
    """A model with its memories, loaded for this command alone."""
    return pipeline.open_engine(settings, tick)


@dataclass(frozen=True, slots=True)
class Desk:
    """`progress` yields the tick of a command's work, `open_engine` loads what its settings name."""

    progress: Callable[[], AbstractContextManager[Tick]] = show_progress
    open_engine: Callable[[Settings, Tick], Engine] = open_once


TERMINAL = Desk()
