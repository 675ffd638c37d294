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


def name_marks(name: str) -> tuple[str, str]:
    """The two lines between which the tables of a name stand."""
    return BEGIN.replace("tables", name), END.replace("tables", name)


def split_document(document: Path, name: str = "tables") -> tuple[str, str, str]:
    """A document before, within and after its tables of a name. Raises UserError when it has no place for them."""
    first, last = name_marks(name)
    text = document.read_text(encoding="utf-8") if document.is_file() else ""
    before, begin, rest = text.partition(first)
    tables, end, after = rest.partition(last)
    if not begin or not end:
        raise UserError(f"{document} has no place for tables: it needs the lines {first} and {last}")
    return before, tables.strip(), after


def read_tables(document: Path, name: str = "tables") -> str:
    """The tables of a name that a document carries. Raises UserError when it has no place for them."""
    return split_document(document, name)[1]


def place_tables(document: Path, tables: str, name: str = "tables") -> None:
    """Put tables in the place of those that a document carries. Raises UserError when it has no place for them."""
    before, _, after = split_document(document, name)
    first, last = name_marks(name)
    write_file(document, f"{before}{first}\n\n{tables}\n\n{last}{after}".encode())
