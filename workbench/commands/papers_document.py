"""docs/papers.md: the tables of published figures and directions beside ours, between markers (`make docs`)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from workbench.commands.papers import DIRECTIONS, PAPERS
from workbench.costs.directions import HEADS, hash_weights, read_heads, render_directions
from workbench.costs.published import render_claims
from workbench.library import find_shipped

# What the memory-head finder is compared with, and the options of `heads` that are kept; texts are short.
FINDERS, HEADS_OPTIONS = ("memory", "retrieval", "induction"), {"window": 16, "limit": 64, "batch": 8, "seed": 0}


def list_markers(part: str) -> tuple[str, str]:
    """Lines around a table."""
    return f"<!-- {part}: begin -->", f"<!-- {part}: end -->"


def list_parts() -> list[str]:
    """Names of all tables: a paper's figures under its name, its directions under `NAME directions`."""
    return [part for paper in PAPERS for part in (paper, f"{paper} directions")]


def render_part(part: str) -> str:
    """A table as Markdown."""
    paper, _, directions = part.partition(" ")
    return render_directions(DIRECTIONS[paper](find_shipped())) if directions else render_claims(PAPERS[paper]())


def read_part(document: Path, part: str) -> str:
    """The table that the document carries."""
    text, (begin, end) = document.read_text(), list_markers(part)
    return text[text.index(begin) + len(begin) : text.index(end)].strip()


def write_parts(document: Path) -> None:
    """Put fresh tables in the place of the document's; heads are measured where the shipped weights are new."""
    if not read_heads(find_shipped()):
        keep_heads(find_shipped())
    text = document.read_text()
    for part in list_parts():
        begin, end = list_markers(part)
        head, tail = text.index(begin) + len(begin), text.index(end)
        text = f"{text[:head]}\n\n{render_part(part)}\n\n{text[tail:]}"
    document.write_text(text)


def keep_heads(folder: Path) -> None:
    """Compare the finders of heads on the shipped model (some 15 s) and keep that beside it, with its weights' hash."""
    from workbench.commands.heads import find_heads
    from workbench.storage import write_file

    found = find_heads(
        argparse.Namespace(finder=list(FINDERS), model="shipped", texts=[], split="never-seen", **HEADS_OPTIONS)
    ).document
    kept = {
        "weights_sha256": hash_weights(folder),
        **HEADS_OPTIONS,
        "texts": found["texts"],
        "comparisons": found["comparisons"],
    }
    write_file(folder / HEADS, (json.dumps(kept, indent=1) + "\n").encode())
