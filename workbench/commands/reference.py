"""Writes what documents repeat from the source: `docs/commands.md` and the README's list of files (`make docs`)."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

from workbench.cli import __doc__ as exit_codes
from workbench.commands.command import PROGRAM, Command
from workbench.commands.papers_document import write_parts
from workbench.commands.parsing import COMMANDS

PACKAGES = ("pages", "workbench", "circuits", "probes")
TREE_START = "<!-- tree: written by `make docs` from the first line of every file -->"
TREE_END = "<!-- /tree -->"


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


def read_caption(path: Path) -> str:
    """First line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def list_files(root: Path) -> Iterator[str]:
    """Lines of the README's list of files: each package, folder by folder, every module with its caption."""
    folders = [path for name in PACKAGES for path in sorted({file.parent for file in (root / name).rglob("*.py")})]
    for folder in folders:
        modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        width = max((len(path.name) for path in modules), default=0)
        start = folder / "__init__.py"
        yield f"{folder.relative_to(root).as_posix()}/  {read_caption(start) if start.is_file() else ''}".rstrip()
        yield from (f"    {path.name.ljust(width)}  {read_caption(path)}" for path in modules)


def place_tree(readme: str, root: Path) -> str:
    """README with its list of files written anew. Raises ValueError when it has no place for one."""
    before, rest = readme.split(TREE_START, 1)
    _, after = rest.split(TREE_END, 1)
    return "\n".join([before + TREE_START, "```text", *list_files(root), "```", TREE_END + after])


def main() -> None:
    """Write the documents of the repository that this file lies in."""
    root = Path(__file__).parents[2]
    (root / "docs" / "commands.md").write_text(write_reference(), encoding="utf-8")
    write_parts(root / "docs" / "papers.md")
    readme = root / "README.md"
    readme.write_text(place_tree(readme.read_text(encoding="utf-8"), root), encoding="utf-8")


if __name__ == "__main__":
    main()
