"""A drawing as an SVG file: text stays text, no scripts, the same drawing gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

from circuits.graph import Kind
from workbench.circuit_files import Traced
from workbench.views.curation import Curation
from workbench.views.drawing import Drawing, Glyph, Line, Text, View
from workbench.views.layout import lay_out
from workbench.views.style import FAINT, HURTS, INK, MOVE, NEGATIVE, POSITIVE, STYLES, trace_shape
from workbench.views.text import measure_width, show_line

FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
LEGEND_ROW = 24.0
CAPTION_ROW = 15.0
PINNED = ' stroke-dasharray="3 2"'


def write_text(text: Text) -> str:
    """One line of text."""
    turn = f' transform="rotate({text.angle:g} {text.x:.1f} {text.y:.1f})"' if text.angle else ""
    bold = ' font-weight="600"' if text.bold else ""
    return (
        f'<text x="{text.x:.1f}" y="{text.y:.1f}" font-size="{text.size:g}" fill="{text.colour}" '
        f'text-anchor="{text.anchor}" dominant-baseline="central"{bold}{turn}>{escape(show_line(text.text))}</text>'
    )


def write_line(line: Line) -> str:
    """One edge, move or connector, its description as a tooltip."""
    pattern = line.dash or ("4 3" if line.dashed else "")
    dash = f" stroke-dasharray={quoteattr(pattern)}" if pattern else ""
    opacity = 0.65 if line.dashed else 0.8
    return (
        f'<path d="{line.path}" fill="none" stroke="{line.colour}" stroke-width="{line.width:g}" '
        f'stroke-opacity="{opacity:g}" stroke-linecap="{"butt" if line.dash else "round"}"{dash}>'
        f"<title>{escape(show_line(line.title))}</title></path>"
    )


def write_ring(glyph: Glyph, wider: float, dash: str) -> str:
    """An outline around a node."""
    return (
        f'<path d="{trace_shape(glyph.shape, glyph.width + wider, glyph.height + wider)}" fill="none" '
        f'stroke="{INK}" stroke-width="1.6"{dash}/>'
    )


def write_glyph(glyph: Glyph, selected: bool) -> str:
    """One node or memory with its label; a supernode has a second outline, a pinned node a dashed one."""
    ring = write_ring(glyph, 9, "") if selected else write_ring(glyph, 9, PINNED) if glyph.pinned else ""
    if glyph.members:
        ring += write_ring(glyph, 5, "")
    if glyph.mark:
        place = f'x="{glyph.width / 2 + 5:.1f}" y="{-glyph.height / 2 - 3:.1f}"'
        ring += f'<text {place} font-size="9" fill="{INK}" text-anchor="middle">{escape(glyph.mark)}</text>'
    size = 12.5 if glyph.shape == "box" else 10.5
    label = (
        f'<text font-size="{size:g}" fill="{glyph.ink}" text-anchor="middle" dominant-baseline="central">'
        f"{escape(show_line(glyph.label))}</text>"
    )
    return (
        f'<g transform="translate({glyph.x:.1f} {glyph.y:.1f})"><title>{escape(show_line(glyph.title))}</title>{ring}'
        f'<path d="{trace_shape(glyph.shape, glyph.width, glyph.height)}" fill="{glyph.fill}" '
        f'stroke="{glyph.stroke}" stroke-width="1.6"/>{label}</g>'
    )


def wrap(text: str, width: float, size: float) -> list[str]:
    """Lines of a paragraph by estimated width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and measure_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def list_legend(drawing: Drawing) -> list[tuple[str, str, str, str]]:
    """Legend of what the drawing holds: shape (or `line`, `dash`), colour, outline, caption."""
    kinds = {glyph.kind for glyph in drawing.glyphs}
    rows = [(STYLES[kind].shape, STYLES[kind].fill, INK, STYLES[kind].caption) for kind in Kind if kind in kinds]
    rows += [("line", POSITIVE, "", "helps the answer"), (HURTS, NEGATIVE, "", "hurts the answer")]
    if any(line.role == "move" for line in drawing.lines):
        rows.append(("dash", MOVE, "", "attention between positions"))
    if drawing.legend:
        rows = [row for row in rows if row[0] not in ("line", HURTS)]
        rows += [(shape, colour, "", caption) for shape, colour, caption in drawing.legend]
    if any(glyph.members for glyph in drawing.glyphs):
        rows.append(("box", "#ffffff", INK, "supernode (number of its nodes)"))
    return rows


def read_dash(shape: str) -> str:
    """Pattern of a legend entry's line: none for `line`, the usual one for `dash`, else as it is written."""
    return {"line": "", "dash": "4 3"}.get(shape, shape)


def is_line(shape: str) -> bool:
    """Whether a legend entry is a line: `line`, `dash`, or a pattern of dashes."""
    return shape in ("line", "dash") or shape[:1].isdigit()


def write_legend(drawing: Drawing, width: float, top: float) -> tuple[str, float]:
    """Legend entries in rows, and the height they take."""
    x, y, pieces = 20.0, top + 12, []
    for shape, fill, stroke, caption in list_legend(drawing):
        needed = 34 + measure_width(caption, 11) + 16
        if x + needed > width - 10 and x > 20:
            x, y = 20.0, y + LEGEND_ROW
        if is_line(shape):
            pattern = read_dash(shape)
            dash = f' stroke-dasharray="{pattern}"' if pattern else ""
            pieces.append(f'<path d="M{x:.1f} {y:.1f}h22" stroke="{fill}" stroke-width="3"{dash}/>')
        else:
            pieces.append(
                f'<path d="{trace_shape(shape, 18, 14 if shape == "box" else 16)}" fill="{fill}" stroke="{stroke}" '
                f'stroke-width="0.8" transform="translate({x + 11:.1f} {y:.1f})"/>'
            )
        pieces.append(write_text(Text(x + 30, y, caption, 11, INK, "start")))
        x += needed
    return "\n".join(pieces), y + LEGEND_ROW - top - 6


def write_caption(lines: Iterable[str], top: float) -> str:
    """Caption lines under the legend."""
    return "\n".join(
        write_text(Text(20, top + CAPTION_ROW * place, line, 11, FAINT, "start")) for place, line in enumerate(lines)
    )


def write_svg(drawing: Drawing, title: str = "Circuit", description: str = "") -> str:
    """The drawing with heading, legend and caption as the text of an SVG file.

    `title` stands above; `description` (default: the drawing's caption) is what a screen reader is told and is
    printed below. Untrusted text is safe: it is escaped and control characters are made visible.
    """
    width = max(drawing.width, 640.0)
    paragraphs = [description or drawing.caption, *drawing.notes]
    caption = [line for paragraph in paragraphs for line in wrap(show_line(paragraph), width - 40, 11)]
    legend, taken = write_legend(drawing, width, drawing.height + 40)
    height = drawing.height + 40 + taken + CAPTION_ROW * len(caption) + 14
    heading = write_text(Text(20, 22, title, 15, INK, "start", bold=True))
    bands = [
        f'<rect x="{b.x:.1f}" y="{b.y:.1f}" width="{b.width:.1f}" height="{b.height:.1f}" fill="{b.fill}"/>'
        for b in drawing.bands
    ]
    body = [
        *bands,
        *(write_line(line) for line in drawing.lines),
        *(write_glyph(glyph, glyph.id == drawing.selected and bool(glyph.id)) for glyph in drawing.glyphs),
        *(write_text(text) for text in drawing.texts),
    ]
    shift = max((width - drawing.width) / 2, 0.0)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" font-family={quoteattr(FONT)}>\n'
        f"<title>{escape(show_line(title))}</title>\n"
        f"<desc>{escape(show_line(description or drawing.caption))}</desc>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{heading}\n'
        f'<g transform="translate({shift:.1f} 36)">\n' + "\n".join(body) + "\n</g>\n"
        f"{legend}\n{write_caption(caption, drawing.height + 40 + taken + 6)}\n</svg>\n"
    )


def view_run(run: Traced, edges: int | None = None, selected: str = "", curation: Curation | None = None) -> View:
    """The view of a run under its own names: answer against foil, memories by what they hold."""
    pair = run.pair
    memories = run.about.get("memories") or {}
    explicit, bank = memories.get("explicit") or {}, memories.get("bank") or {}
    answer, foil = str(pair.get("answer", "")).strip(), str(pair.get("foil", "") or "").strip()
    return View(
        edges=edges,
        selected=selected,
        curation=curation or Curation(),
        output="answers"
        if len(run.pairs) > 1
        else f"{answer} − {foil}"
        if foil and run.circuit.metric == "logit-diff"
        else answer or "output",
        blocks=tuple(str(block.get("text") or block.get("id", "")) for block in explicit.get("blocks", [])),
        levels=tuple(f"level {level}, cluster {cluster}" for level, cluster in enumerate(bank.get("path", []), 1)),
    )


def draw_run(run: Traced, edges: int | None = None, selected: str = "", curation: Curation | None = None) -> str:
    """SVG of a saved run's circuit: its strongest `edges` (None: all), one node marked when `selected` is its id.

    `curation` is what a reader made of it: pins, supernodes, names, notes and what is hidden.
    """
    return write_svg(lay_out(run.circuit, run.tokens, view_run(run, edges, selected, curation)), run.title)
