"""From the picture of a circuit (`views/svg.py`) to a scene: the one layout is for screen and paper.

Reads what our own writer writes (groups moved by `translate`, rectangles, paths, text), nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from workbench.figures.scene import Label, Mark, Scene, Shape, crop, move, trace_box, trace_circle, trace_path

_NAMESPACE = "{http://www.w3.org/2000/svg}"
_TURN = re.compile(r"rotate\((-?[\d.]+)")
_MOVE = re.compile(r"translate\((-?[\d.]+)[ ,]+(-?[\d.]+)\)")
# Background of the whole picture, and what no reader sees.
_SILENT = ("title", "desc", "defs", "style")


def read_svg(text: str, scale: float = 1.0, margin: float = 2.0) -> Scene:
    """Scene of a picture that `views.svg.write_svg` wrote, cropped to what is drawn, sizes times `scale`."""
    root = ElementTree.fromstring(text.encode())
    title = root.findtext(f"{_NAMESPACE}title") or ""
    return crop([mark for mark in read_group(root) if not is_empty(mark)], title, margin, scale)


def is_empty(mark: Mark) -> bool:
    """Whether nothing of a mark shows."""
    return not mark.text.strip() if isinstance(mark, Label) else not (mark.fill or mark.stroke)


def read_group(group: ElementTree.Element) -> Iterator[Mark]:
    """Marks of a group, moved with it."""
    title = group.findtext(f"{_NAMESPACE}title") or ""
    place = _MOVE.search(group.get("transform", ""))
    x, y = (float(place[1]), float(place[2])) if place else (0.0, 0.0)
    for child in group:
        tag = child.tag.removeprefix(_NAMESPACE)
        if tag in _SILENT or child.get("width") == "100%":
            continue
        if tag == "g":
            marks = list(read_group(child))
        elif tag == "text":
            marks = [read_text(child)]
        else:
            marks = [read_shape(tag, child, title if place else "")]
        yield from (move(mark, x, y) for mark in marks)


def read_text(element: ElementTree.Element) -> Label:
    """A line of text."""
    turn, size = _TURN.search(element.get("transform", "")), float(element.get("font-size", 11))
    # A label's height is that of its middle, which is about a third of its size above the line that it stands on.
    rise = 0.0 if element.get("dominant-baseline") == "central" else size * 0.35
    return Label(
        float(element.get("x", 0)),
        float(element.get("y", 0)) - rise,
        element.text or "",
        size,
        element.get("fill", "#000000"),
        element.get("text-anchor", "start"),
        float(turn[1]) if turn else 0.0,
        bool(element.get("font-weight")),
    )


def read_shape(tag: str, element: ElementTree.Element, title: str) -> Mark:
    """A rectangle, circle or path."""
    numbers = {name: float(element.get(name, 0)) for name in ("x", "y", "width", "height", "cx", "cy", "r")}
    if tag == "rect":
        steps = trace_box(*(numbers[name] for name in ("x", "y", "width", "height")))
    elif tag == "circle":
        steps = trace_circle(numbers["cx"], numbers["cy"], numbers["r"])
    else:
        assert tag == "path", f"no figure has a <{tag}>"
        steps = trace_path(element.get("d", ""))
    fill, stroke = element.get("fill", "none"), element.get("stroke", "none")
    shape = Shape(
        steps,
        "" if fill == "none" else fill,
        "" if stroke == "none" else stroke,
        float(element.get("stroke-width", 1)),
        tuple(float(length) for length in element.get("stroke-dasharray", "").split()),
        float(element.get("stroke-opacity", element.get("fill-opacity", element.get("opacity", 1)))),
        element.findtext(f"{_NAMESPACE}title") or title,
    )
    place = _MOVE.search(element.get("transform", ""))
    return move(shape, float(place[1]), float(place[2])) if place else shape
