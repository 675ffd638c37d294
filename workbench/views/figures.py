"""Plotly figures of a run: layer by head map, answers by condition, curves; attention of a head as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.graph import Component, Kind
from workbench.answers import Condition
from workbench.runs import Run
from workbench.views.style import MOVE, NEGATIVE, POSITIVE
from workbench.views.text import format_score, shorten, show_line, show_token

if TYPE_CHECKING:
    import plotly.graph_objects as go

DIVERGING = [[0.0, NEGATIVE], [0.25, "#e8a995"], [0.5, "#ffffff"], [0.75, "#93b8dc"], [1.0, POSITIVE]]
SEQUENTIAL = [[0.0, "#ffffff"], [0.25, "#d5e3f0"], [0.6, "#7ba7d1"], [1.0, "#174a80"]]
EXTRA = {Kind.EXPLICIT: "explicit", Kind.LEARNED: "learned", Kind.MLP: "MLP", Kind.BANK: "bank"}


def style_figure(figure: go.Figure, height: int) -> go.Figure:
    """Calm defaults: no grid, small margins; paper and ink are left to the page's light or dark theme."""
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12},
        showlegend=False,
    )
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False)
    return figure


def draw_nothing() -> go.Figure:
    """An empty figure: the first one of a process takes longest, because plotly prepares what it draws with."""
    import plotly.graph_objects as go

    return style_figure(go.Figure(go.Heatmap(z=[[0.0]])), 100)


def sum_scores(run: Run) -> tuple[np.ndarray, list[str], dict[tuple[int, int], str]]:
    """Node scores summed over positions, `[layer, column]`; names of the columns; the strongest node of each cell.

    Columns are the heads, then explicit memory (all heads and blocks), MLP and bank blocks (all levels) where the
    model has them; a cell without a component is nan.
    """
    plan, writers = run.circuit.plan, run.scores.wiring.writers
    present = [kind for kind in EXTRA if any(writer.kind is kind for writer in writers)]
    columns = [f"h{head}" for head in range(plan.heads)] + [EXTRA[kind] for kind in present]
    table = np.full((plan.layers, len(columns)), np.nan)
    strongest: dict[tuple[int, int], tuple[float, str]] = {}
    for index, writer in enumerate(writers):
        column = find_column(writer, plan.heads, present)
        if column is None:
            continue
        scores = run.scores.nodes[:, index]
        place = writer.layer, column
        table[place] = np.nansum([table[place], scores.sum()])
        position = int(np.abs(scores).argmax())
        candidate = (float(abs(scores[position])), f"{writer.name}@{position}")
        strongest[place] = max(strongest.get(place, (-1.0, "")), candidate)
    return table, columns, {place: node for place, (_, node) in strongest.items()}


def find_column(writer: Component, heads: int, present: Sequence[Kind]) -> int | None:
    """Column of a writer in the map; None for the embedding."""
    if writer.kind is Kind.HEAD:
        return writer.head
    return heads + present.index(writer.kind) if writer.kind in present else None


def map_scores(run: Run) -> go.Figure:
    """Layer by head map of node scores; an invisible marker on every cell carries its strongest node for clicks."""
    import plotly.graph_objects as go

    table, columns, strongest = sum_scores(run)
    limit = float(np.nanmax(np.abs(table))) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=[[None if np.isnan(cell) else float(cell) for cell in row] for row in table],
            x=columns,
            y=list(range(len(table))),
            colorscale=DIVERGING,
            zmin=-limit,
            zmax=limit,
            xgap=2,
            ygap=2,
            hoverinfo="skip",
            colorbar={"title": {"text": run.circuit.unit, "side": "top"}, "thickness": 12, "outlinewidth": 0},
        )
    )
    cells = sorted(strongest)
    figure.add_trace(
        go.Scatter(
            x=[columns[column] for _, column in cells],
            y=[layer for layer, _ in cells],
            mode="markers",
            marker={"size": 18, "opacity": 0, "symbol": "square"},
            customdata=[[strongest[cell]] for cell in cells],
            text=[
                f"layer {layer}, {columns[column]}: {format_score(float(table[layer, column]), run.circuit.unit)}"
                f"<br>strongest at {strongest[layer, column]}"
                for layer, column in cells
            ],
            hoverinfo="text",
        )
    )
    figure.update_xaxes(side="bottom", type="category")
    figure.update_yaxes(title="layer", dtick=1 if len(table) <= 16 else 4)
    return style_figure(figure, 90 + 26 * len(table))


def gather_attention(run: Run, layer: int, head: int) -> tuple[np.ndarray, list[str]]:
    """Attention of a head, `[query, column]`: each memory block (its slots summed), then the context's tokens."""
    context = np.asarray(run.recording.context[layer, head], dtype=float)
    names = [f"{position} {shorten(show_token(token), 14)}" for position, token in enumerate(run.tokens)]
    layers = run.circuit.plan.explicit_layers
    if layer not in layers or run.recording.memory.size == 0:
        return context, names
    memory = np.asarray(run.recording.memory[layers.index(layer), head], dtype=float).sum(-1)
    blocks = [f"memory {block + 1}" for block in range(memory.shape[-1])]
    return np.concatenate([memory, context], axis=-1), [*blocks, *names]


def draw_curves(curves: dict[str, Any]) -> go.Figure:
    """Normalised faithfulness against the share of edges kept, of circuits by two rankings and of random ones."""
    import plotly.graph_objects as go

    lines = {"absolute": ("by absolute score", POSITIVE), "signed": ("by signed score", "#7ba7d1")}
    lines["random"] = (f"random, mean of {curves['draws']}", "#9fb3c8")
    figure = go.Figure()
    for kind, (name, colour) in lines.items():
        curve = curves[kind]
        shares = [100 * share for share in curve["shares"]]
        figure.add_trace(
            go.Scatter(x=shares, y=curve["faithfulness"], name=name, mode="lines+markers", line={"color": colour})
        )
    figure.add_hline(y=1.0, line={"color": MOVE, "width": 1, "dash": "dot"})
    figure.update_xaxes(type="log", title="% of all edges", tickvals=[0.1, 1, 10, 100])
    figure.update_yaxes(title="faithfulness")
    style_figure(figure, 300)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.15, "x": 0})


def escape_html(text: str) -> str:
    """Text that Plotly shows as it is: its labels understand a little HTML."""
    return show_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def draw_probabilities(conditions: Sequence[Condition], names: Sequence[str], tokens: Sequence[int]) -> go.Figure:
    """Probability of the chosen next tokens in every available condition, as bars; `names` label the tokens."""
    import plotly.graph_objects as go

    available = [condition for condition in conditions if condition.available]
    colours = [POSITIVE, NEGATIVE, "#627d98", "#9fb3c8"]
    figure = go.Figure()
    for place, (name, token) in enumerate(zip(names, tokens, strict=True)):
        values = [find_probability(condition, token) for condition in available]
        figure.add_trace(
            go.Bar(
                name=escape_html(name),
                x=[condition.name for condition in available],
                y=values,
                marker={"color": colours[place % len(colours)]},
                text=["" if value is None else f"{value:.2f}" for value in values],
                textposition="outside",
                cliponaxis=False,
            )
        )
    figure.update_yaxes(title="probability", range=[0, 1.08], tickvals=[0, 0.5, 1])
    figure.update_layout(barmode="group", bargap=0.35)
    style_figure(figure, 260)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.15, "x": 0})


def find_probability(condition: Condition, token: int) -> float | None:
    """Probability of a token in a condition, None when it is not among those kept."""
    known: list[Any] = [*condition.top, *([condition.answer] if condition.answer else [])]
    return next((prediction.probability for prediction in known if prediction.token == token), None)
