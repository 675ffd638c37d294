"""Measured tables inside our documents: written as Markdown, kept between two markers, held by tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probes.errors import UserError
from workbench.storage import write_file

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def render_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(line) + " |" for line in body])


def split_document(document: Path) -> tuple[str, str, str]:
    """A document before, within and after its tables. Raises UserError when it has no place for them."""
    text = document.read_text(encoding="utf-8") if document.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    tables, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{document} has no place for tables: it needs the lines {BEGIN} and {END}")
    return before, tables.strip(), after


def read_tables(document: Path) -> str:
    """The tables that a document carries. Raises UserError when it has no place for them."""
    return split_document(document)[1]


def place_tables(document: Path, tables: str) -> None:
    """Put tables in the place of those that a document carries. Raises UserError when it has no place for them."""
    before, _, after = split_document(document)
    write_file(document, f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}".encode())
