"""The command line: finds the command, prints its answer, and turns what a person can mend into one line.

Exit codes: 0 done, 1 done and the answer is no (`replay` with numbers that moved, `doctor` with something broken),
2 something a person can mend, 130 stopped with Ctrl-C, 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from probes.errors import UserError
from workbench.commands.application import APP
from workbench.commands.asking import ASK
from workbench.commands.command import Answer, Command
from workbench.commands.demo import EVALUATE, TRAIN
from workbench.commands.exporting import EXPORT
from workbench.commands.facts import FACTS
from workbench.commands.health import DOCTOR
from workbench.commands.listing import RUNS, SHOW
from workbench.commands.terminal import clean_text
from workbench.commands.traces import TRACE
from workbench.commands.verifying import CHECK, REPLAY

PROGRAM = "memory-circuits"
COMMANDS: tuple[Command, ...] = (
    FACTS,
    ASK,
    TRACE,
    SHOW,
    RUNS,
    EXPORT,
    REPLAY,
    CHECK,
    DOCTOR,
    APP,
    TRAIN,
    EVALUATE,
)
FAMILIES = {"demo": "Train the demo model again, or measure it."}


class Parser(argparse.ArgumentParser):
    """argparse's parser, except that what it refuses is a UserError."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the command's name and where to read more."""
        raise UserError(f"{message}; `{self.prog} --help` says more")


def find_version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        return "not installed"


def build_parser() -> Parser:
    """Parser of the whole command line; every command's parser has its Command under `command`."""
    parser = Parser(
        prog=PROGRAM,
        description="Shows where a fact lives in a language model: in its parameters, a memory block,\n"
        "an explicit memory, or text in the prompt.",
        epilog="example:\n  memory-circuits facts --bucket 0 --limit 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {find_version()}")
    families = {"": parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)}
    for command in COMMANDS:
        family, _, name = command.name.rpartition(" ")
        if family not in families:
            parent = families[""].add_parser(family, help=FAMILIES[family], description=FAMILIES[family])
            families[family] = parent.add_subparsers(
                title="commands", metavar="COMMAND", required=True, parser_class=Parser
            )
        child = families[family].add_parser(
            name,
            help=command.summary,
            description=command.summary,
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.declare(child)
        child.add_argument("--json", action="store_true", help="print one JSON document instead of text")
        child.set_defaults(command=command)
    return parser


def print_answer(answer: Answer, as_json: bool) -> None:
    """Print an answer on standard output; one without a document has printed what there was already."""
    if answer.document is None:
        return
    if as_json:
        print(json.dumps(answer.document, indent=1, sort_keys=True, allow_nan=False))
    else:
        print(answer.text)


def print_error(message: str, as_json: bool) -> None:
    """Print one line on standard error."""
    line = clean_text(message)
    print(json.dumps({"error": line}) if as_json else f"{PROGRAM}: {line}", file=sys.stderr)


def open_streams() -> None:
    """Let a stream that cannot show a character show its escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Point standard output nowhere, so that the interpreter's last flush cannot fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of a command line; for `--help` and `--version` the process ends here."""
    try:
        return build_parser().parse_args(arguments)
    except SystemExit:
        sys.stdout.flush()
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on these arguments (the process's own when left out) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    open_streams()
    try:
        options = parse_options(given)
        answer: Answer = options.command.answer(options)
        print_answer(answer, as_json)
        sys.stdout.flush()
    except UserError as error:
        print_error(str(error), as_json)
        return 2
    except KeyboardInterrupt:
        print_error("stopped; nothing was left half-written", as_json)
        return 130
    except BrokenPipeError:
        discard_output()
        return 141
    return answer.code


if __name__ == "__main__":
    sys.exit(main())
