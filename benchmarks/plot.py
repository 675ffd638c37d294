"""Panels of lines on two logarithmic axes, as SVG; no colour is the only cue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.demo.charts import COLOURS, DASHES, GRID, draw_text

SIDE, GAP, LEFT, TOP, BOTTOM, LEGEND = 220, 44, 58, 54, 46, 150


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its name and its points, all positive."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over one horizontal axis."""

    axis: str
    lines: Sequence[Line]


def place(value: float, low: float, high: float) -> float:
    """Share of the way from low to high on a logarithmic axis."""
    return (math.log(value) - math.log(low)) / max(math.log(high) - math.log(low), 1e-9)


def list_decades(low: float, high: float) -> list[float]:
    """Powers of ten from below the smallest to above the largest value."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def draw_panel(panel: Panel, left: float, decades: Sequence[float]) -> list[str]:
    """One panel, its upper left corner at (left, TOP)."""
    values = sorted({x for line in panel.lines for x, _ in line.points})
    parts = [draw_text(left + SIDE / 2, TOP + SIDE + 38, panel.axis, "middle")]
    for decade in decades:
        y = TOP + SIDE * (1 - place(decade, decades[0], decades[-1]))
        parts.append(f'<line x1="{left}" x2="{left + SIDE}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(draw_text(left - 6, y + 4, f"{decade:g}", "end", 10))
    for x in values:
        across = left + SIDE * place(x, values[0], values[-1])
        parts.append(draw_text(across, TOP + SIDE + 16, f"{x:g}", "middle", 9))
    for number, line in enumerate(panel.lines):
        points = [
            (left + SIDE * place(x, values[0], values[-1]), TOP + SIDE * (1 - place(y, decades[0], decades[-1])))
            for x, y in line.points
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" {style(number)}/>')
    return parts


def style(number: int) -> str:
    """Colour and dash of a line."""
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
    return f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'


def draw_panels(title: str, panels: Sequence[Panel]) -> str:
    """The whole document: panels side by side with one vertical axis, the legend on the right."""
    decades = list_decades(
        min(y for panel in panels for line in panel.lines for _, y in line.points),
        max(y for panel in panels for line in panel.lines for _, y in line.points),
    )
    width, height = LEFT + len(panels) * (SIDE + GAP) + LEGEND, TOP + SIDE + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        draw_text(LEFT, 22, title, size=14),
        draw_text(LEFT, 42, "seconds; both axes logarithmic", size=11),
    ]
    for number, panel in enumerate(panels):
        parts += draw_panel(panel, LEFT + number * (SIDE + GAP), decades)
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    x = width - LEGEND
    for number, name in enumerate(names):
        y = TOP + 10 + 20 * number
        parts.append(f'<line x1="{x}" x2="{x + 28}" y1="{y}" y2="{y}" {style(number)}/>')
        parts.append(draw_text(x + 34, y + 4, name, size=11))
    return "\n".join([*parts, "</svg>"]) + "\n"
