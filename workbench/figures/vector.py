"""A scene as SVG, and by Typst as PDF (vector, fonts embedded) and PNG: no browser, the same scene the same bytes."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from probes.errors import UserError
from workbench.figures.scene import Label, Mark, Scene, Step
from workbench.views.svg import FONT
from workbench.views.text import show_line

# Typst carries this font, so that a file does not depend on the machine (but for scripts that it lacks).
PRINT_FONT = "'Libertinus Serif', 'DejaVu Sans', sans-serif"
RESOLUTION = 300


def write_number(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{round(value, 2) + 0.0:g}" if abs(value) < 1e5 else f"{value:.0f}"


def write_steps(steps: tuple[Step, ...]) -> str:
    """An SVG path."""
    return "".join(
        letter + " ".join(f"{write_number(x)} {write_number(y)}" for x, y in points) for letter, points in steps
    )


def write_mark(mark: Mark) -> str:
    """One SVG element."""
    if isinstance(mark, Label):
        place = f"{write_number(mark.x)} {write_number(mark.y)}"
        turn = f' transform="rotate({write_number(mark.angle)} {place})"' if mark.angle else ""
        bold = ' font-weight="600"' if mark.bold else ""
        return (
            f'<text x="{write_number(mark.x)}" y="{write_number(mark.y)}" font-size="{write_number(mark.size)}" '
            f'fill="{mark.colour}" text-anchor="{mark.anchor}" dominant-baseline="central"{bold}{turn}>'
            f"{escape(show_line(mark.text))}</text>"
        )
    looks = [f'fill="{mark.fill or "none"}"']
    if mark.stroke:
        looks.append(f'stroke="{mark.stroke}" stroke-width="{write_number(mark.width)}"')
        looks.append(f'stroke-linecap="{"butt" if mark.dash else "round"}"')
    if mark.dash:
        looks.append(f'stroke-dasharray="{" ".join(map(write_number, mark.dash))}"')
    if mark.opacity != 1:
        looks.append(f'{"stroke" if mark.stroke else "fill"}-opacity="{write_number(mark.opacity)}"')
    title = f"<title>{escape(show_line(mark.title))}</title>" if mark.title else ""
    return f'<path d="{write_steps(mark.steps)}" {" ".join(looks)}>{title}</path>'


def write_scene(scene: Scene, description: str = "", font: str = FONT) -> str:
    """Text of an SVG file, a point of the scene a point on paper."""
    size = write_number(scene.width), write_number(scene.height)
    body = "\n".join(write_mark(mark) for mark in scene.marks)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}pt" height="{size[1]}pt" '
        f'viewBox="0 0 {size[0]} {size[1]}" role="img" font-family={quoteattr(font)}>\n'
        f"<title>{escape(show_line(scene.title))}</title>\n<desc>{escape(show_line(description))}</desc>\n{body}\n</svg>\n"
    )


def can_typeset() -> bool:
    """Whether PDF and PNG can be written here."""
    return find_spec("typst") is not None


def load_typst() -> Any:
    """The typesetter. Raises UserError that names the extra when it is not installed."""
    try:
        import typst
    except ImportError:
        raise UserError(
            "PDF and PNG need Typst: pip install 'memory-circuits[figures]'; SVG and TikZ (.tex) need nothing"
        ) from None
    return typst


def typeset(scene: Scene, kind: str) -> bytes:
    """A scene as `pdf` or `png`. Raises UserError when Typst is not installed."""
    typst = load_typst()
    size = write_number(scene.width), write_number(scene.height)
    # No date: the same figure has the same bytes.
    source = (
        f"#set document(date: none)\n#set page(width: {size[0]}pt, height: {size[1]}pt, margin: 0pt)\n"
        f'#image("figure.svg", width: {size[0]}pt)\n'
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "figure.svg").write_text(write_scene(scene, font=PRINT_FONT), encoding="utf-8")
        (folder / "figure.typ").write_text(source, encoding="utf-8")
        try:
            data = typst.compile(str(folder / "figure.typ"), format=kind, ppi=float(RESOLUTION))
        except RuntimeError as error:
            raise UserError(f"Typst could not draw the figure ({str(error)[:200]}): write SVG or TikZ") from None
    return bytes(data[0] if isinstance(data, list) else data)
