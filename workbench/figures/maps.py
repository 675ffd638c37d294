"""Maps of squares, each a vector rectangle: layer by head, attention with memory, the logit lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.figures.axes import SMALL, TEXT, Scale, write_tick
from workbench.figures.scene import Label, Mark, Scene, Shape, crop, trace_box, trace_line
from workbench.figures.themes import Theme, mix_colours
from workbench.runs import Run
from workbench.views.figures import gather_attention, sum_scores
from workbench.views.style import INK
from workbench.views.text import measure_width, shorten, show_token

LONGEST_NAME = 14
TALLEST, WIDEST = 22.0, 34.0
BAR = 60


@dataclass(frozen=True, slots=True)
class Grid:
    """Values by row (drawn from the top) and column; nan is no square. `texts` stand in the squares."""

    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    row_title: str
    column_title: str
    unit: str
    texts: Sequence[Sequence[str]] = ()


def pick_fill(value: float, limit: float, theme: Theme, signed: bool) -> str:
    """Colour of a value: from 0 to the limit, or from minus the limit."""
    if not signed:
        return mix_colours(*theme.share, min(max(value / limit, 0.0), 1.0))
    low, middle, high = theme.signed
    return mix_colours(middle, high if value >= 0 else low, min(abs(value) / limit, 1.0))


def pick_ink(fill: str) -> str:
    """Colour of text that can be read on a square."""
    level = sum(int(fill[i : i + 2], 16) * part for i, part in ((1, 0.299), (3, 0.587), (5, 0.114)))
    return "#ffffff" if level < 128 else INK


def draw_grid(grid: Grid, width: float, theme: Theme, title: str, signed: bool) -> Scene:
    """The map with names, and its colours beside it."""
    count, wide = len(grid.rows), len(grid.columns)
    left = 18 + max((measure_width(name, SMALL) for name in grid.rows), default=0)
    side = min((width - left - 42) / wide, WIDEST)
    tall = min(max(side, 9.0), TALLEST)
    seen = grid.values[~np.isnan(grid.values)]
    limit = (float(np.abs(seen).max()) if seen.size else 1.0) or 1.0
    limit = limit if signed else 1.0
    marks: list[Mark] = []
    for row in range(count):
        marks.append(Label(left - 4, (row + 0.5) * tall, grid.rows[row], SMALL, INK, "end"))
        for column in range(wide):
            value = float(grid.values[row, column])
            if not np.isnan(value):
                text = grid.texts[row][column] if grid.texts else ""
                marks += draw_square(left + column * side, row * tall, side, tall, value, limit, theme, signed, text)
    slanted = any(measure_width(name, SMALL) > side - 2 for name in grid.columns)
    for column, name in enumerate(grid.columns):
        x = left + (column + 0.5) * side
        marks.append(Label(x + 2, count * tall + 4, name, SMALL, INK, "end", -55) if slanted
                     else Label(x, count * tall + 7, name, SMALL, INK))  # fmt: skip
    drop = max((measure_width(name, SMALL) for name in grid.columns), default=0) * 0.8 + 6 if slanted else 10
    marks.append(Label(left + wide * side / 2, count * tall + drop + 9, grid.column_title, TEXT, INK))
    marks.append(Label(4, count * tall / 2, grid.row_title, TEXT, INK, angle=-90))
    marks += draw_bar(left + wide * side + 8, max(count * tall, 50.0), limit, theme, signed, grid.unit)
    return crop(marks, title, 2.0)


def draw_square(
    x: float, y: float, side: float, tall: float, value: float, limit: float, theme: Theme, signed: bool, text: str
) -> list[Mark]:
    """One square, struck through where it is negative and colour alone shall not say so, with its text."""
    fill = pick_fill(value, limit, theme, signed)
    marks: list[Mark] = [Shape(trace_box(x + 0.4, y + 0.4, side - 0.8, tall - 0.8), fill=fill, title=f"{value:.4g}")]
    if signed and theme.struck and value < -0.02 * limit:
        line = trace_line((x + 1.2, y + tall - 1.2), (x + side - 1.2, y + 1.2))
        marks.append(Shape(line, stroke=pick_ink(fill), width=0.5))
    if text:
        size = min(SMALL, (side - 2) / max(measure_width(text, 1.0), 0.5))
        marks.append(Label(x + side / 2, y + tall / 2, text, max(size, 3.5), pick_ink(fill)))
    return marks


def draw_bar(x: float, height: float, limit: float, theme: Theme, signed: bool, unit: str) -> list[Mark]:
    """The scale of colours as thin rectangles, its ticks and its unit."""
    scale = Scale(-limit if signed else 0.0, limit)
    step = height / BAR
    marks: list[Mark] = []
    for place in range(BAR):
        value = scale.high - (place + 0.5) / BAR * (scale.high - scale.low)
        box = trace_box(x, place * step, 6, step + 0.05)
        marks.append(Shape(box, fill=pick_fill(value, limit, theme, signed)))
    for tick in scale.list_ticks(4):
        marks.append(Label(x + 9, height * (1 - scale.share(tick)), write_tick(tick), SMALL, INK, "start"))
    marks.append(Label(x, -8, unit, SMALL, INK, "start"))
    return marks


def draw_map(run: Run, width: float, theme: Theme) -> Scene:
    """Layer by head map of node scores summed over positions, layer 0 at the bottom."""
    table, columns, _ = sum_scores(run)
    grid = Grid(
        table[::-1], [str(layer) for layer in range(len(table))][::-1], columns, "layer", "head or block",
        run.circuit.unit,
    )  # fmt: skip
    return draw_grid(grid, width, theme, "Layer by head map", signed=True)


def name_tokens(tokens: Sequence[str]) -> list[str]:
    """Short names of positions."""
    return [f"{position} {shorten(show_token(token), LONGEST_NAME)}" for position, token in enumerate(tokens)]


def draw_attention(run: Run, layer: int, head: int, width: float, theme: Theme) -> Scene:
    """Attention of one head: each memory (its slots summed) and each position that it reads, by reading position."""
    weights, _ = gather_attention(run, layer, head)
    memories = weights.shape[1] - weights.shape[0]
    values = np.array(weights, dtype=float)
    later = np.arange(values.shape[1])[None, :] - memories > np.arange(values.shape[0])[:, None]
    values[later] = np.nan
    names = name_tokens(run.tokens)
    columns = [f"memory {block + 1}" for block in range(memories)] + names
    grid = Grid(values, names, columns, "reads", "attends to", "probability")
    return draw_grid(grid, width, theme, f"Attention of head {head} of layer {layer}", signed=False)


def draw_lens(
    best: Sequence[Sequence[str]],
    probability: np.ndarray,
    tokens: Sequence[str],
    width: float,
    theme: Theme,
    title: str,
) -> Scene:
    """Best next token at every depth (from the bottom) and position, coloured by its probability."""
    rows = [f"before {depth}" for depth in range(len(probability) - 1)] + ["output"]
    texts = [[shorten(show_token(token), LONGEST_NAME) for token in row] for row in best][::-1]
    grid = Grid(probability[::-1], rows[::-1], name_tokens(tokens), "layer", "position", "probability", texts)
    return draw_grid(grid, width, theme, title, signed=False)
