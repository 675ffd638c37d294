"""`figure`: draws a run for a paper, with the caption that belongs under it."""

from __future__ import annotations

import argparse
import hashlib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.errors import UserError
from workbench.commands.command import PROGRAM, Answer, Command
from workbench.commands.summaries import open_traced
from workbench.commands.terminal import clean_text, show_progress
from workbench.figures.axes import COLUMNS
from workbench.figures.kinds import FILES, KINDS, Figure, Wish, draw_figure
from workbench.figures.themes import THEMES
from workbench.figures.tikz import write_tikz
from workbench.figures.vector import typeset, write_scene
from workbench.formats.page import write_page
from workbench.storage import write_file

# Text below this size cannot be read on paper.
READABLE = 5.0


def write_html(figure: Figure) -> bytes:
    """A page with the figure and its caption."""
    return write_page(figure.scene.title, write_scene(figure.scene), figure.caption)


WRITERS: dict[str, Callable[[Figure], bytes]] = {
    ".svg": lambda figure: write_scene(figure.scene, figure.caption).encode("utf-8", "backslashreplace"),
    ".pdf": lambda figure: typeset(figure.scene, "pdf"),
    ".png": lambda figure: typeset(figure.scene, "png"),
    ".tex": lambda figure: write_tikz(figure.scene, figure.caption).encode("utf-8", "backslashreplace"),
    ".html": write_html,
}


def declare_figure(parser: argparse.ArgumentParser) -> None:
    """The kind, what is drawn, and how it looks."""
    kinds = "; ".join(f"{name}: {kind.label} ({kind.takes})" for name, kind in KINDS.items())
    parser.add_argument("kind", metavar="KIND", choices=tuple(KINDS), help=kinds)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, its name, or a file as KIND takes it")
    parser.add_argument(
        "--out", metavar="FILE", required=True, help="file to write; its ending says the format: " + ", ".join(WRITERS)
    )
    parser.add_argument(
        "--columns",
        type=int,
        choices=tuple(COLUMNS),
        default=2,
        help="width in columns of the paper (default: %(default)s)",
    )
    themes = "; ".join(f"{name}: {theme.label}" for name, theme in THEMES.items())
    parser.add_argument("--theme", choices=tuple(THEMES), default="screen", help=f"{themes} (default: %(default)s)")
    parser.add_argument("--edges", metavar="N", type=int, help="circuit, difference: the N strongest edges")
    parser.add_argument(
        "--head", metavar="HEAD", default="", help="attention: for example a3.h1 (default: the strongest)"
    )
    parser.add_argument("--fact", metavar="ID", default="", help="ledger: the ledger of this fact (default: the first)")
    parser.add_argument("--view", metavar="ID", default="", help="circuit: a view of the run that the app saved")


def build_command(options: argparse.Namespace) -> str:
    """The command line that draws this figure again, defaults left out."""
    words = [PROGRAM, "figure", options.kind, *options.runs]
    for name, default in (
        ("columns", 2),
        ("theme", "screen"),
        ("edges", None),
        ("head", ""),
        ("fact", ""),
        ("view", ""),
    ):
        value = getattr(options, name)
        if value != default:
            words += [f"--{name}", str(value)]
    return shlex.join([*words, "--out", options.out])


def open_sources(kind: str, names: list[str]) -> list[tuple[Path, Any]]:
    """What the arguments name: path and run or circuit; None where the kind reads a file of its own.

    Raises UserError for a wrong number of them, or one that is not there.
    """
    wanted = KINDS[kind].count
    if len(names) != wanted:
        raise UserError(f"figure {kind} takes {KINDS[kind].takes}: {len(names)} arguments were given, {wanted} wanted")
    if kind in FILES and Path(names[0]).is_file():
        return [(Path(names[0]), None)]
    return [open_traced(name) for name in names]


def draw(options: argparse.Namespace) -> Answer:
    """Write the figure, and its caption beside it."""
    out = Path(options.out)
    writer = WRITERS.get(out.suffix.lower())
    if writer is None:
        raise UserError(f"--out is {options.out[:200]!r}: its name must end in one of {', '.join(WRITERS)}")
    if options.edges is not None and options.edges < 1:
        raise UserError(f"--edges is {options.edges}: give 1 or more")
    wish = Wish(
        options.columns, options.theme, options.edges, options.head, options.fact, options.view, build_command(options)
    )
    sources = open_sources(options.kind, options.runs)
    with show_progress() as tick:
        figure = draw_figure(options.kind, sources, wish, tick)
    data, beside = writer(figure), out.with_name(f"{out.name}.caption.txt")
    write_file(out, data)
    write_file(beside, figure.caption.encode("utf-8", "backslashreplace") + b"\n")
    scene = figure.scene
    document = {
        "file": str(out),
        "sha256": hashlib.sha256(data).hexdigest(),
        "caption_file": str(beside),
        "caption": figure.caption,
        "width_points": round(scene.width, 2),
        "height_points": round(scene.height, 2),
        "smallest_text_points": round(scene.smallest, 2),
    }
    size = f"{scene.width / 72:.2f} x {scene.height / 72:.2f} inches"
    lines = [f"wrote {clean_text(out)}, {size}; its caption: {clean_text(beside)}"]
    if 0 < scene.smallest < READABLE:
        lines.append(f"its smallest text is {scene.smallest:.1f} points: draw fewer --edges, or on two --columns")
    return Answer(document, "\n".join([*lines, "", clean_text(figure.caption)]))


FIGURE = Command(
    "figure",
    "Draw a run for a paper: circuit, difference, maps, ledger, curves; vector, with its caption.",
    "memory-circuits figure circuit runs/france-capital-1a2b3c4d --columns 1 --theme grey --out circuit.pdf",
    declare_figure,
    draw,
)
