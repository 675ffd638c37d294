"""docs/papers.md: the tables of published figures beside ours, between markers (`make docs`)."""

from __future__ import annotations

from pathlib import Path

from workbench.commands.papers import PAPERS
from workbench.costs.published import render_claims


def list_markers(paper: str) -> tuple[str, str]:
    """Lines around a paper's table."""
    return f"<!-- {paper}: begin -->", f"<!-- {paper}: end -->"


def render_part(paper: str) -> str:
    """A paper's table as Markdown."""
    return render_claims(PAPERS[paper]())


def read_part(document: Path, paper: str) -> str:
    """The table that the document carries."""
    text, (begin, end) = document.read_text(), list_markers(paper)
    return text[text.index(begin) + len(begin) : text.index(end)].strip()


def write_parts(document: Path) -> None:
    """Put fresh tables in the place of the document's."""
    text = document.read_text()
    for paper in PAPERS:
        begin, end = list_markers(paper)
        head, tail = text.index(begin) + len(begin), text.index(end)
        text = f"{text[:head]}\n\n{render_part(paper)}\n\n{text[tail:]}"
    document.write_text(text)
