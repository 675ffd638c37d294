"""Plotly figures of components: layer maps, effect against specificity, tags of heads, changes by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.views.components import KINDS, LABELS, SPECIFIC, Map, Quantity, Row, name_class
from workbench.views.figures import DIVERGING, SEQUENTIAL, escape_html, style_figure
from workbench.views.style import FAINT, POSITIVE
from workbench.views.text import format_score, show_decimals

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Shapes as in the graph, so that a kind is known by its outline; the class shows in colour and by its side of the line.
SYMBOLS = {"heads": "circle", "units": "square", "bank": "hexagon", "memories": "diamond"}
COLOURS = {"specific": POSITIVE, "abstract": "#d9822b", "undecided": "#627d98", "inert": "#bcccdc"}
# Points of the scatter: an SVG with more is slow to move.
MOST = 1500


def draw_map(values: Map, quantity: Quantity, unit: str) -> go.Figure:
    """Layer map of a quantity; an invisible marker on every cell carries its component for clicks."""
    import plotly.graph_objects as go

    table, unit = values.values, quantity.unit or unit
    size = np.abs(table[~np.isnan(table)])
    limit = float(size.max()) if size.size and size.max() > 0 else 1.0
    limit = 1.0 if unit == "share" else limit
    figure = go.Figure(
        go.Heatmap(
            z=[[None if np.isnan(cell) else float(cell) for cell in row] for row in table],
            x=list(range(len(values.columns))),
            y=list(range(len(table))),
            colorscale=DIVERGING if quantity.signed else SEQUENTIAL,
            zmin=-limit if quantity.signed else 0,
            zmax=limit,
            xgap=2 if len(values.columns) <= 32 else 0.5,
            ygap=2,
            hoverinfo="skip",
            colorbar={"title": {"text": unit, "side": "top"}, "thickness": 12, "outlinewidth": 0},
        )
    )
    cells = sorted(values.names)
    figure.add_trace(
        go.Scatter(
            x=[column for _, column in cells],
            y=[layer for layer, _ in cells],
            mode="markers",
            marker={"size": 16, "opacity": 0, "symbol": "square"},
            customdata=[[values.names[cell]] for cell in cells],
            text=[f"{escape_html(values.names[cell])}<br>{describe_value(table[cell], unit)}" for cell in cells],
            hoverinfo="text",
        )
    )
    step = max(1, len(values.columns) // 16)
    shown = list(range(0, len(values.columns), step))
    figure.update_xaxes(tickvals=shown, ticktext=[escape_html(values.columns[place]) for place in shown])
    figure.update_yaxes(title="layer", dtick=1 if len(table) <= 16 else 4)
    return style_figure(figure, 100 + 26 * max(len(table), 2))


def describe_value(value: float, unit: str) -> str:
    """A cell's number with its unit."""
    if np.isnan(value):
        return "no value"
    return (
        f"{show_decimals(float(value))} {unit}"
        if unit in ("share", "facts", "relations")
        else format_score(float(value), unit)
    )


def choose_points(rows: Sequence[Row]) -> list[Row]:
    """Rows that the scatter draws: those with an index and an effect, at most `MOST`, the largest effects."""
    drawable = [row for row in rows if row["index"] is not None and row["largest"]]
    return sorted(drawable, key=lambda row: -abs(row["largest"]))[:MOST]


def scatter_components(rows: Sequence[Row], unit: str, selected: str) -> go.Figure:
    """Effect against specificity: one point a component, the selected one with its interval."""
    import plotly.graph_objects as go

    figure = go.Figure()
    points = choose_points(rows)
    for label in LABELS:
        own = [row for row in points if row["label"] == label]
        if not own:
            continue
        figure.add_trace(
            go.Scatter(
                name=label,
                x=[abs(row["largest"]) for row in own],
                y=[row["index"] for row in own],
                mode="markers",
                marker={
                    "color": COLOURS[label],
                    "size": 9,
                    "opacity": 0.85,
                    "symbol": [SYMBOLS[row["kind"]] for row in own],
                    "line": {"color": "#ffffff", "width": 0.8},
                },
                customdata=[[row["component"]] for row in own],
                text=[describe_point(row, unit) for row in own],
                hoverinfo="text",
            )
        )
    if chosen := [row for row in points if row["component"] == selected]:
        figure.add_trace(mark_chosen(chosen[0]))
    figure.add_hline(y=SPECIFIC, line={"color": FAINT, "width": 1, "dash": "dot"})
    figure.update_xaxes(type="log", title=f"largest effect on a fact, absolute ({escape_html(unit)}, logarithmic)")
    figure.update_yaxes(title="specificity index", range=[-0.04, 1.04], tickvals=[0, 0.25, 0.5, 0.75, 1])
    style_figure(figure, 420)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.1, "x": 0}, hovermode="closest")


def mark_chosen(row: Row) -> go.Scatter:
    """A ring about the selected point, with its interval."""
    import plotly.graph_objects as go

    low, high = (row["index"] if row[end] is None else row[end] for end in ("low", "high"))
    return go.Scatter(
        x=[abs(row["largest"])],
        y=[row["index"]],
        mode="markers",
        marker={"color": "rgba(0,0,0,0)", "size": 17, "line": {"color": "#f0a202", "width": 3}},
        error_y={
            "type": "data",
            "array": [high - row["index"]],
            "arrayminus": [row["index"] - low],
            "color": "#b87700",
        },
        hoverinfo="skip",
        showlegend=False,
    )


def describe_point(row: Row, unit: str) -> str:
    """Hover text of a component."""
    interval = "" if row["low"] is None else f" [{show_decimals(row['low'])}, {show_decimals(row['high'])}]"
    return (
        f"{escape_html(str(row['component']))} ({KINDS[row['kind']]})<br>{name_class(row)}<br>"
        f"index {show_decimals(row['index'])}{interval}<br>largest "
        f"{format_score(row['largest'], escape_html(unit))} on {escape_html(str(row['strongest']))}"
    )


def map_finder(rows: Sequence[dict[str, Any]]) -> Map:
    """Layer by head map of one finder's scores."""
    layers, heads = (1 + max((row[name] for row in rows), default=-1) for name in ("layer", "head"))
    values = np.full((layers, heads), np.nan)
    names = {}
    for row in rows:
        values[row["layer"], row["head"]] = row["value"]
        names[row["layer"], row["head"]] = f"a{row['layer']}.h{row['head']}"
    return Map(values, names, tuple(f"h{head}" for head in range(heads)))


def draw_layers(rows: Sequence[dict[str, Any]], title: str) -> go.Figure:
    """Bars by layer with their intervals."""
    import plotly.graph_objects as go

    values = [row["value"] for row in rows]
    figure = go.Figure(
        go.Bar(
            x=[row["layer"] for row in rows],
            y=values,
            marker={"color": POSITIVE},
            error_y={
                "type": "data",
                "array": [row["high"] - row["value"] for row in rows],
                "arrayminus": [row["value"] - row["low"] for row in rows],
            },
            hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="layer", dtick=1 if len(rows) <= 16 else 4)
    figure.update_yaxes(title=escape_html(title))
    return style_figure(figure, 260)
