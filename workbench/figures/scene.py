"""Vector marks in points, y downwards: what every figure is, whatever file it goes into.

A path is a tuple of steps `(letter, points)` with absolute points: M and L one, C three, Z none. There is nothing else,
so that each writer is a few lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from workbench.views.text import measure_width

Point = tuple[float, float]
Step = tuple[str, tuple[Point, ...]]

# Control points of a quarter of a circle as a cubic curve, as a share of the radius.
QUARTER = 0.5522847498
_PIECES = re.compile(r"([A-Za-z])|(-?\d*\.?\d+(?:e-?\d+)?)")
_COUNTS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "Q": 4, "A": 7, "Z": 0}


@dataclass(frozen=True, slots=True)
class Shape:
    """An outline, filled (`fill`) or drawn (`stroke`) or both; an empty colour is none.

    `dash` is the length of a dash and of the gap after it, in points; empty: drawn through. `title` says what it is.
    """

    steps: tuple[Step, ...]
    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    dash: tuple[float, ...] = ()
    opacity: float = 1.0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """One line of text, its middle at height `y`; `anchor` is start, middle or end, `angle` clockwise in degrees."""

    x: float
    y: float
    text: str
    size: float
    colour: str
    anchor: str = "middle"
    angle: float = 0.0
    bold: bool = False


Mark = Shape | Label


@dataclass(frozen=True, slots=True)
class Scene:
    """A figure of `width` by `height` points."""

    width: float
    height: float
    marks: tuple[Mark, ...]
    title: str = ""

    @property
    def smallest(self) -> float:
        """Size of its smallest text in points, 0 without any."""
        return min((mark.size for mark in self.marks if isinstance(mark, Label) and mark.text), default=0.0)


def trace_line(*points: Point) -> tuple[Step, ...]:
    """Steps of straight lines through points."""
    return ("M", (points[0],)), *(("L", (point,)) for point in points[1:])


def trace_box(x: float, y: float, width: float, height: float) -> tuple[Step, ...]:
    """Steps of a rectangle."""
    return (*trace_line((x, y), (x + width, y), (x + width, y + height), (x, y + height)), ("Z", ()))


def trace_circle(x: float, y: float, radius: float) -> tuple[Step, ...]:
    """Steps of a circle."""
    return (*trace_path(f"M{x - radius} {y}"), *bow((x - radius, y), (x + radius, y), radius, radius, 1.0),
            *bow((x + radius, y), (x - radius, y), radius, radius, 1.0), ("Z", ()))  # fmt: skip


def bow(start: Point, end: Point, rx: float, ry: float, turn: float) -> Iterator[Step]:
    """Half an ellipse from one end of its horizontal axis to the other, as two quarters; `turn` 1 is clockwise."""
    assert abs(abs(end[0] - start[0]) - 2 * rx) < 1e-2 and abs(end[1] - start[1]) < 1e-2, "half ellipses only"
    way = 1.0 if end[0] > start[0] else -1.0
    middle, top = (start[0] + end[0]) / 2, start[1] - way * turn * ry
    rise = way * turn * ry * QUARTER
    yield "C", ((start[0], start[1] - rise), (middle - way * rx * QUARTER, top), (middle, top))
    yield "C", ((middle + way * rx * QUARTER, top), (end[0], end[1] - rise), end)


def trace_path(path: str) -> tuple[Step, ...]:
    """Steps of an SVG path with M, L, H, V, C, Q, Z, half ellipses A, and relative forms of the straight ones."""
    found: list[Step] = []
    here = start = (0.0, 0.0)
    for letter, numbers in split_path(path):
        x, y = here if letter.islower() else (0.0, 0.0)
        match letter.upper():
            case "M":
                start = here = (x + numbers[0], y + numbers[1])
                found.append(("M", (here,)))
            case "Z":
                here = start
                found.append(("Z", ()))
            case "C":
                assert letter == "C"
                points = tuple(zip(numbers[::2], numbers[1::2], strict=True))
                here = points[2]
                found.append(("C", points))
            case "Q":
                assert letter == "Q"
                pull, end = (numbers[0], numbers[1]), (numbers[2], numbers[3])
                found.append(("C", (mix(here, pull), mix(end, pull), end)))
                here = end
            case "A":
                assert letter == "A"
                end = (numbers[5], numbers[6])
                found += bow(here, end, numbers[0], numbers[1], 1.0 if numbers[4] else -1.0)
                here = end
            case "H":
                here = (x + numbers[0], here[1])
                found.append(("L", (here,)))
            case "V":
                here = (here[0], y + numbers[0])
                found.append(("L", (here,)))
            case _:
                here = (x + numbers[0], y + numbers[1])
                found.append(("L", (here,)))
    return tuple(found)


def mix(end: Point, pull: Point) -> Point:
    """Control point of a cubic curve that equals a quadratic one, at this end."""
    return end[0] + (pull[0] - end[0]) * 2 / 3, end[1] + (pull[1] - end[1]) * 2 / 3


def split_path(path: str) -> Iterator[tuple[str, list[float]]]:
    """Commands of an SVG path with their numbers, a repeated command spelled out."""
    letter, numbers = "", list[float]()
    for word, number in _PIECES.findall(path):
        if word:
            letter, numbers = word, []
            if _COUNTS[word.upper()] == 0:
                yield letter, []
            continue
        numbers.append(float(number))
        if len(numbers) == _COUNTS[letter.upper()]:
            yield letter, numbers
            letter, numbers = {"M": "L", "m": "l"}.get(letter, letter), []


def move(mark: Mark, x: float, y: float, scale: float = 1.0) -> Mark:
    """A mark moved by (x, y) and then scaled about the origin."""
    if isinstance(mark, Label):
        return replace(mark, x=(mark.x + x) * scale, y=(mark.y + y) * scale, size=mark.size * scale)
    steps = tuple(
        (letter, tuple(((a + x) * scale, (b + y) * scale) for a, b in points)) for letter, points in mark.steps
    )
    return replace(mark, steps=steps, width=mark.width * scale, dash=tuple(length * scale for length in mark.dash))


def list_corners(mark: Mark) -> Iterable[Point]:
    """Points between which a mark lies; of a turned text its two ends."""
    if isinstance(mark, Shape):
        return [point for _, points in mark.steps for point in points]
    wide = measure_width(mark.text, mark.size)
    left = mark.x - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[mark.anchor]
    half = mark.size * 0.65
    corners = [(left, mark.y - half), (left + wide, mark.y + half)]
    return corners if not mark.angle else [turn_point(corner, (mark.x, mark.y), mark.angle) for corner in corners]


def turn_point(point: Point, about: Point, angle: float) -> Point:
    """A point turned clockwise."""
    from math import cos, radians, sin

    x, y, way = point[0] - about[0], point[1] - about[1], radians(angle)
    return about[0] + x * cos(way) - y * sin(way), about[1] + x * sin(way) + y * cos(way)


def shrink(scene: Scene, width: float) -> Scene:
    """A scene no wider than a column."""
    scale = min(width / scene.width, 1.0)
    if scale == 1.0:
        return scene
    marks = tuple(move(mark, 0.0, 0.0, scale) for mark in scene.marks)
    return Scene(scene.width * scale, scene.height * scale, marks, scene.title)


def crop(marks: Sequence[Mark], title: str, margin: float, scale: float = 1.0) -> Scene:
    """A scene around marks, moved to its corner and then scaled."""
    corners = [point for mark in marks for point in list_corners(mark)] or [(0.0, 0.0)]
    left, top = min(x for x, _ in corners) - margin, min(y for _, y in corners) - margin
    right, bottom = max(x for x, _ in corners) + margin, max(y for _, y in corners) + margin
    moved = tuple(move(mark, -left, -top, scale) for mark in marks)
    return Scene((right - left) * scale, (bottom - top) * scale, moved, title)
