"""Text for a terminal: tokens and file contents made harmless, tables, and progress on standard error."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

ELLIPSIS = "…"
# Longer than any sane name, and still an end to one that is not.
NAME_WIDTH = 400

# Besides control characters (Cc), these could recolour, reorder or hide what a terminal shows: format characters such
# as direction overrides and zero-width joiners (Cf), lone surrogates (Cs), line and paragraph separators (Zl, Zp).
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escape_character(character: str) -> str:
    """A character as itself, or as a visible escape such as `\\n` or `\\x1b` when it could act on a terminal."""
    if unicodedata.category(character) not in _HARMFUL:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def clean_text(text: object) -> str:
    """Any value as one line that no terminal will obey: control characters become visible escapes."""
    plain = str(text)
    return plain if plain.isascii() and plain.isprintable() else "".join(map(escape_character, plain))


def clean_lines(text: str) -> str:
    """Text that no terminal will obey, its line ends and tabs kept."""
    return "".join(character if character in "\n\t" else escape_character(character) for character in text)


def shorten(text: object, width: int) -> str:
    """Clean text of at most `width` characters, an ellipsis in place of what was cut."""
    plain = clean_text(text)
    return plain if len(plain) <= width else plain[: width - 1] + ELLIPSIS


def quote(text: object) -> str:
    """A token in quotes, so that its spaces show."""
    return f"“{clean_text(text)}”"


def measure_width(text: str) -> int:
    """Columns of a terminal that a text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def format_cell(value: object, width: int) -> str:
    """A table cell: numbers with four significant digits, nothing for None, all else as shortened clean text."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else shorten(value, width)


def format_table(headings: Sequence[str], rows: Sequence[Sequence[object]], width: int = 44) -> str:
    """Rows under headings in aligned columns, numbers to the right.

    A cell is cut at `width` characters, except in the first column: what names a row is typed again, so it stays whole.
    """
    cells = [[format_cell(value, width if column else NAME_WIDTH) for column, value in enumerate(row)] for row in rows]
    widths = [
        max(measure_width(text) for text in (heading, *(row[column] for row in cells)))
        for column, heading in enumerate(headings)
    ]
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(headings))]

    def join(texts: Sequence[str]) -> str:
        padded = []
        for text, wide, right in zip(texts, widths, numeric, strict=True):
            gap = " " * (wide - measure_width(text))
            padded.append(gap + text if right else text + gap)
        return "  ".join(padded).rstrip()

    return "\n".join([join(headings), join(["─" * wide for wide in widths]), *map(join, cells)])


def format_pairs(pairs: Sequence[tuple[str, object]]) -> str:
    """Names and values, one pair a line, values aligned; pairs whose value is None are left out."""
    shown = [(name, value) for name, value in pairs if value is not None]
    wide = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(wide)}  {clean_text(value)}" for name, value in shown)


@contextmanager
def show_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A tick `(label, done, total)` that draws a bar on standard error, or does nothing when that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda label, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda label, done, total: progress.update(
            task, description=clean_text(label), completed=done, total=total or None
        )
