"""Axes of a chart: scales, ticks, and the frame that turns numbers into points on paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.figures.scene import Label, Mark, Point, Shape, trace_line
from workbench.views.style import FAINT, INK, LINE

# Widths of a column and of two with the gap between, in points: 3.25 and 6.75 inches.
COLUMNS = {1: 234.0, 2: 486.0}
# Sizes of text in points: names, and numbers beside them.
TEXT, SMALL = 8.0, 7.0
DASH = (4.0, 3.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers from `low` to `high` on an axis, evenly or (`log`) by their logarithm."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Place on the axis, 0 to 1 for what is between the ends."""
        ends = (self.low, self.high, value)
        low, high, here = (math.log10(end) for end in ends) if self.log else ends
        return (here - low) / ((high - low) or 1.0)

    def list_ticks(self, count: int = 5) -> list[float]:
        """Round numbers between the ends, about `count` of them; decades where the scale is logarithmic."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((last - first + 1) / max(count, 1)))
            return [10.0**power for power in range(first, last + 1, step)]
        rough = (self.high - self.low) / max(count, 1) or 1.0
        size = 10.0 ** math.floor(math.log10(rough))
        step_size = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step_size - 1e-9), math.floor(self.high / step_size + 1e-9)
        return [round(step_size * index, 12) for index in range(first, last + 1)]


def widen(values: Sequence[float], share: float = 0.06) -> Scale:
    """Even scale around values, 0 among them, with some room."""
    low, high = min(0.0, *values), max(0.0, *values)
    room = (high - low) * share or 1.0
    return Scale(low - room if low < 0 else low, high + room if high > 0 else high)


def write_tick(value: float) -> str:
    """A tick's number, short, with a true minus."""
    text = (
        f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
        if value and not 1e-3 <= abs(value) < 1e5
        else f"{value:g}"
    )
    return text.replace("-", "−")


@dataclass(frozen=True, slots=True)
class Frame:
    """The field of a chart on paper and the scales of its axes."""

    left: float
    top: float
    width: float
    height: float
    x: Scale
    y: Scale

    def place(self, x: float, y: float) -> Point:
        """Point of a pair of numbers."""
        return self.left + self.width * self.x.share(x), self.top + self.height * (1 - self.y.share(y))

    def draw(self, x_name: str, y_name: str) -> list[Mark]:
        """Axes with ticks and names."""
        bottom, right = self.top + self.height, self.left + self.width
        marks: list[Mark] = []
        for tick in self.x.list_ticks(max(3, int(self.width / 40))):
            x, _ = self.place(tick, self.y.low)
            marks.append(Shape(trace_line((x, bottom), (x, bottom + 2.5)), stroke=FAINT, width=0.5))
            marks.append(Label(x, bottom + 8, write_tick(tick), SMALL, INK))
        for tick in self.y.list_ticks(max(3, int(self.height / 28))):
            _, y = self.place(self.x.low, tick)
            marks.append(Shape(trace_line((self.left, y), (right, y)), stroke=LINE, width=0.4))
            marks.append(Label(self.left - 4, y, write_tick(tick), SMALL, INK, "end"))
        marks.append(
            Shape(trace_line((self.left, self.top), (self.left, bottom), (right, bottom)), stroke=FAINT, width=0.6)
        )
        marks.append(Label(self.left + self.width / 2, bottom + 19, x_name, TEXT, INK))
        marks.append(Label(8, self.top + self.height / 2, y_name, TEXT, INK, angle=-90))
        return marks

    def rule(self, points: Sequence[Point], colour: str, width: float = 1.2, dashed: bool = False) -> Shape:
        """A line through pairs of numbers."""
        steps = trace_line(*(self.place(*point) for point in points))
        return Shape(steps, stroke=colour, width=width, dash=DASH if dashed else ())


def draw_key(names: Sequence[tuple[str, str, str]], left: float, y: float, right: float) -> list[Mark]:
    """Legend in rows from `left`: name, colour, and `line`, `dash` or `dot`."""
    from workbench.figures.scene import trace_circle
    from workbench.views.text import measure_width

    marks: list[Mark] = []
    x = left
    for name, colour, kind in names:
        wide = 20 + measure_width(name, SMALL) + 8
        if x + wide > right and x > left:
            x, y = left, y + 10
        if kind == "dot":
            marks.append(Shape(trace_circle(x + 8, y, 2.4), fill=colour))
        else:
            marks.append(
                Shape(trace_line((x, y), (x + 15, y)), stroke=colour, width=1.4, dash=DASH if kind == "dash" else ())
            )
        marks.append(Label(x + 20, y, name, SMALL, INK, "start"))
        x += wide
    return marks
