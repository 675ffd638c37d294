"""Writes `docs/commands.md` from the commands' own options: `python -m workbench.commands.reference`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from workbench.cli import COMMANDS, PROGRAM
from workbench.cli import __doc__ as exit_codes
from workbench.commands.command import Command


def name_option(action: argparse.Action) -> str:
    """An option or argument as it is typed."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    value = f"{{{'|'.join(map(str, action.choices))}}}" if action.choices else action.metavar or action.dest
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")


def describe_option(action: argparse.Action) -> str:
    """An option's help with its default filled in, on one line of a Markdown list."""
    text = (action.help or "").replace("%(default)s", str(action.default))
    return f"- `{name_option(action)}`: {text}" + (" (required)" if action.required and action.option_strings else "")


def describe_command(command: Command) -> Iterator[str]:
    """Lines of one command: summary, example, options."""
    parser = argparse.ArgumentParser(add_help=False)
    command.declare(parser)
    yield from (f"## {PROGRAM} {command.name}", "", command.summary, "", "```sh", command.example, "```", "")
    # argparse has no public way to list what was declared.
    yield from map(describe_option, parser._actions)
    yield from ("- `--json`: print one JSON document instead of text", "")


def write_reference() -> str:
    """The reference of all commands as Markdown."""
    codes = " ".join((exit_codes or "").split("\n\n", 1)[1].split())
    lines = [
        "# Commands",
        "",
        "Made from the commands themselves by `make docs`; every command has `--help` too.",
        "",
        "Progress is drawn on standard error and only on a terminal. With `--json`, standard output holds one JSON",
        'document and nothing else, and an error is `{"error": ...}` on standard error.',
        "",
        codes,
        "",
    ]
    for command in COMMANDS:
        lines += describe_command(command)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(write_reference())
