"""Two plain charts for the model card, as SVG: lines over steps, and grouped bars; no colour is the only cue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 52, 190, 34, 46
INK, GRID = "#22313f", "#d8dee4"
# Okabe and Ito's colours, readable with any colour vision; each comes with a dash and a mark of its own.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name and points (x, percent)."""

    name: str
    points: Sequence[tuple[float, float]]


def place_x(x: float, low: float, high: float) -> float:
    """Horizontal place of a value."""
    return LEFT + (x - low) / max(high - low, 1e-9) * (WIDTH - LEFT - RIGHT)


def place_y(percent: float) -> float:
    """Vertical place of a percentage."""
    return TOP + (1 - percent / 100) * (HEIGHT - TOP - BOTTOM)


def draw_text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    """One line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{INK}">{escape(text)}</text>'


def draw_frame(title: str, below: str) -> list[str]:
    """Title, percent axis with its grid, and the label below."""
    parts = [draw_text(LEFT, 18, title, size=14), draw_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, below, "middle")]
    for percent in range(0, 101, 20):
        y = place_y(percent)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(draw_text(LEFT - 6, y + 4, f"{percent}%", "end"))
    return parts


def close(parts: list[str]) -> str:
    """The whole document."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"


def draw_lines(title: str, below: str, series: Sequence[Series]) -> str:
    """Lines over a common horizontal axis, named beside their ends' legend."""
    values = [x for line in series for x, _ in line.points]
    low, high = min(values), max(values)
    parts = draw_frame(title, below)
    for x in sorted(set(values)):
        parts.append(draw_text(place_x(x, low, high), HEIGHT - BOTTOM + 16, f"{x:g}", "middle", 10))
    for number, line in enumerate(series):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        points = " ".join(f"{place_x(x, low, high):.1f},{place_y(y):.1f}" for x, y in line.points)
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{points}" {style}/>')
        y = TOP + 10 + 20 * number
        parts.append(f'<line x1="{WIDTH - RIGHT + 12}" x2="{WIDTH - RIGHT + 40}" y1="{y}" y2="{y}" {style}/>')
        parts.append(draw_text(WIDTH - RIGHT + 46, y + 4, line.name, size=11))
    return close(parts)


def draw_bars(title: str, below: str, groups: Sequence[str], series: Sequence[Series]) -> str:
    """Groups of bars, one bar a series; a point's x is the number of its group. Values stand above the bars."""
    parts = draw_frame(title, below)
    room = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    width = 0.8 * room / max(1, len(series))
    for number, group in enumerate(groups):
        parts.append(draw_text(LEFT + (number + 0.5) * room, HEIGHT - BOTTOM + 16, group, "middle", 10))
    for number, line in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        for place, percent in line.points:
            x, y = LEFT + (place + 0.1) * room + number * width, place_y(percent)
            height = HEIGHT - BOTTOM - y
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')
            parts.append(draw_text(x + width / 2, y - 3, f"{percent:.0f}", "middle", 9))
        y = TOP + 10 + 20 * number
        parts.append(f'<rect x="{WIDTH - RIGHT + 12}" y="{y - 6}" width="12" height="12" fill="{colour}"/>')
        parts.append(draw_text(WIDTH - RIGHT + 30, y + 4, f"{number + 1}. {line.name}", size=11))
    return close(parts)
