"""Every command with every option: argparse's own tree is walked, and what its examples say is made wrong.

Commands run in this process up to where a model would be loaded; those that train or measure without loading one
(`LONG`) are only parsed. Paths lie inside the workspace, for who types `--out /etc/passwd` means it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NoReturn
from unittest import mock

from probes.errors import UserError
from probes.models import check_folder
from tests.checkpoints import load_shape, write_checkpoint
from tests.conftest import make_run
from tests.fuzz.banks import write_explicit, write_first_blocks, write_parametric
from tests.fuzz.cases import LONGEST, Attempt, Read, Target
from tests.fuzz.mutations import draw_value
from tests.fuzz.tables import FACT, PAIR, encode_csv, repeat
from tests.sweep_tables import write_table
from workbench import cli
from workbench.commands.command import Command
from workbench.commands.parsing import COMMANDS, parse_options
from workbench.exports_json import write_json
from workbench.runs import save_run

# Commands that begin to train or measure at once, whatever model there is.
LONG = frozenset({"demo train", "demo evaluate", "demo experiments", "validate", "findings", "paper", "bank cluster"})
HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def list_options(command: Command) -> list[argparse.Action]:
    """Options and arguments of a command."""
    parser = argparse.ArgumentParser(prog=command.name, add_help=False)
    command.declare(parser)
    return list(parser._actions)


def make_artefacts(workspace: Path) -> list[str]:
    """One whole artefact of each kind, by paths relative to the workspace."""
    model = load_shape("llama")
    save_run(make_run(edges=10, parts=1), workspace / "runs" / "first")
    save_run(make_run(edges=12, seed=1), workspace / "runs" / "second")
    (workspace / "circuit.json").write_bytes(write_json(make_run(edges=8)))
    write_explicit(workspace / "memory", model)
    write_parametric("ffn")(workspace / "bank", model)
    write_first_blocks(workspace / "old-bank", model)
    write_table(workspace / "sweeps" / "first")
    (workspace / "facts.csv").write_bytes(encode_csv(repeat(FACT, 3)))
    (workspace / "pairs.csv").write_bytes(encode_csv(repeat(PAIR, 3)))
    (workspace / "notes.txt").write_text("A document. It has two sentences.\n" * 5)
    (workspace / "model").symlink_to(write_checkpoint("llama"))
    return [*sorted(path.name for path in workspace.iterdir()), "runs/first", "runs/second", "sweeps/first"]


def make_safe(value: str) -> str:
    """A value that, taken for a path, stays below the working folder; without NUL, which no argument can hold."""
    return value.replace("..", "__").replace("=/", "=_").replace("\0", "").lstrip("/~")


def draw_argument(draw: Random, action: argparse.Action | None, artefacts: list[str]) -> str:
    """A value for an option, right or wrong."""
    kind = draw.randrange(8)
    if kind < 3:
        return draw.choice(artefacts)
    if kind == 3 and action is not None and action.choices:
        return str(draw.choice(list(action.choices)))
    if kind == 4:
        return str(draw.choice((0, 1, 2, -1, 3, 10**12, 0.5, "nan", "inf", "1e999", "0x1", "١")))
    if kind == 5:
        return draw.choice(("shipped", "eap", "capital", "given", "m0@1", "a0.h0", "new", "out.json", "1,2", "2,2,2"))
    if kind == 6 and action is not None and action.default is not None:
        return str(action.default)
    return make_safe(str(draw_value(draw)))


def draw_words(draw: Random, command: Command, options: list[argparse.Action], artefacts: list[str]) -> list[str]:
    """A command line: the command's example or its bare name, with words replaced, dropped, doubled and added."""
    words = shlex.split(command.example)[1:] if draw.randrange(2) else command.name.split()
    start = len(command.name.split())
    for place in range(start, len(words)):
        if not words[place].startswith("--") and draw.randrange(2):
            words[place] = draw_argument(draw, None, artefacts)
    for _ in range(draw.randrange(5) if options else 0):
        action = draw.choice(options)
        value = draw_argument(draw, action, artefacts)
        if not action.option_strings:
            words.append(value)
        elif action.nargs == 0:
            words.append(action.option_strings[-1])
        else:
            name = action.option_strings[-1]
            words += draw.choice(([name, value], [f"{name}={value}"]))
    if len(words) > start and draw.randrange(4) == 0:
        del words[draw.randrange(start, len(words))]
    if draw.randrange(10) == 0:
        words.append(draw.choice(("--json", "--help", "--version", "--", "-", "", "--jso", "--nothing")))
    return words


def stop_at_model(name: str, *given: Any, **named: Any) -> NoReturn:
    """In place of `load_model`: what it refuses before it loads, and an end."""
    check_folder(name)
    raise UserError("fuzzing ends where a model would be loaded")


@contextlib.contextmanager
def enter(workspace: Path) -> Iterator[None]:
    """Work in the workspace, with nothing of the machine's own and no model, server or encoder."""
    places = {"MEMORY_CIRCUITS_RUNS": "runs", "MEMORY_CIRCUITS_SWEEPS": "sweeps", "HOME": str(workspace)}
    with (
        contextlib.chdir(workspace),
        mock.patch.dict(os.environ, places),
        mock.patch("probes.models.load_model", stop_at_model),
        mock.patch("workbench.commands.application.run_server", return_value=0),
        mock.patch("workbench.commands.application.check_address"),
    ):
        yield


def run_line(words: list[str], whole: bool) -> None:
    """Run a command line, or parse it alone. Raises UserError with its one line where it is refused.

    Fails for other exit codes, more lines, and characters that a terminal would obey.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(words) if whole else parse_options(words) and 0
        except SystemExit as error:
            code = 0 if error.code in (None, 0) else -1
    told = err.getvalue()
    assert code in (0, 1, 2), f"exit code {code}"
    if found := HARMFUL.search(out.getvalue() + told):
        raise AssertionError(f"{found[0]!r} is printed")
    # `memory verify` and `bank show --verify` answer with their faults, and end with 2 when there are any.
    answered = bool(out.getvalue()) and not told
    if code == 2:
        assert answered or (not out.getvalue() and told.count("\n") == 1), f"{words} prints {told[:200]!r}"
        raise UserError(told or out.getvalue()[:LONGEST])


def prepare_commands(only: Callable[[Command], bool] = lambda command: True) -> Callable[[Path], Attempt]:
    """Command lines of some commands."""

    def prepare(workspace: Path) -> Attempt:
        artefacts = make_artefacts(workspace)
        chosen = [(command, list_options(command)) for command in COMMANDS if only(command)]

        def attempt(draw: Random) -> Read:
            command, options = draw.choice(chosen)
            words = draw_words(draw, command, options, artefacts)

            def read() -> None:
                with enter(workspace):
                    run_line(words, command.name not in LONG)

            return read

        return attempt

    return prepare


TARGETS = (Target("command line", prepare_commands()),)
