"""Measurements of components that a page may start: a command's own options, settings and work, kept in the workspace.

A page spells what it wants as the arguments of a command, so that whatever it measures can be measured again from a
terminal, and is checked by the same rules.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.progress import Tick
from workbench.commands.classes import find_classes
from workbench.commands.command import PROGRAM, Answer
from workbench.commands.desk import Desk
from workbench.commands.fact_sets import read_settings as read_fact_settings
from workbench.commands.heads import find_heads
from workbench.commands.parsing import parse_options
from workbench.commands.reading import probe_layers, read_layers, read_question, restore
from workbench.commands.specificity import measure as measure_specificity
from workbench.commands.units import find_units
from workbench.measurements import Measurement, name_measurement, save_measurement
from workbench.settings import Settings

if TYPE_CHECKING:
    from workbench.engine import Engine

Options = argparse.Namespace


@dataclass(frozen=True, slots=True)
class Measure:
    """What a measurement does with its options, and which model with which memories it works on."""

    answer: Callable[[Options, Desk], Answer]
    read_settings: Callable[[Options], Settings]


def read_model(options: Options) -> Settings:
    """Settings of a command that takes a model alone."""
    return Settings(model=options.model)


def read_asked(options: Options) -> Settings:
    """Settings of a command about one question."""
    return read_question(options)[1]


MEASURES: dict[str, Measure] = {
    "specificity": Measure(measure_specificity, read_fact_settings),
    "heads": Measure(find_heads, read_model),
    "units": Measure(find_units, read_fact_settings),
    "classes": Measure(find_classes, read_fact_settings),
    "lens": Measure(read_layers, read_asked),
    "probe": Measure(probe_layers, read_fact_settings),
    "restore": Measure(restore, read_asked),
}


def read_arguments(kind: str, arguments: Sequence[str]) -> tuple[Options, Settings]:
    """Options and settings of a measurement. Raises UserError for what the command would refuse at once."""
    options = parse_options([kind, *arguments])
    return options, MEASURES[kind].read_settings(options)


def spell_command(kind: str, arguments: Sequence[str]) -> str:
    """The command line that measures the same in a terminal."""
    return shlex.join([PROGRAM, kind, *arguments, "--json"])


def measure_and_save(engine: Engine, kind: str, arguments: Sequence[str], folder: Path, tick: Tick) -> str:
    """Measure on an opened model and keep the result under a new name, which is returned.

    Raises UserError for what a person can put right; nothing is kept then.
    """
    options, settings = read_arguments(kind, arguments)
    desk = Desk(lambda: nullcontext(tick), lambda *given: engine)
    found: dict[str, Any] = MEASURES[kind].answer(options, desk).document
    model = {"name": settings.model, "sha256": engine.model.sha256}
    measured = Measurement(kind, found, spell_command(kind, arguments), model)
    tick("saving", 0, 1)
    name = name_measurement(kind, folder)
    save_measurement(measured, folder / f"{name}.json")
    return name
