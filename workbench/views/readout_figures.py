"""Plotly figures of read-outs, by layer and position: lens tables, probes, states put back; and classes of circuits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.lens_tables import LensTable
from workbench.views.figures import DIVERGING, SEQUENTIAL, escape_html, style_figure
from workbench.views.style import FAINT, NEGATIVE, POSITIVE
from workbench.views.tables import Columns
from workbench.views.text import shorten, show_line, show_token

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Positions beyond which a cell has no room for its token.
WRITTEN = 24


def name_depth(depth: int, depths: int) -> str:
    """What a depth of the stream is called."""
    return "after the last" if depth == depths - 1 else f"before {depth}"


def label_positions(tokens: Sequence[str]) -> list[str]:
    """Numbered tokens as labels of an axis."""
    return [escape_html(f"{position} {shorten(show_token(token), 14)}") for position, token in enumerate(tokens)]


def draw_lens(table: LensTable) -> go.Figure:
    """Most probable next token at every layer and position, shaded by probability; framed where the answer."""
    import plotly.graph_objects as go

    depths, width = len(table.best), len(table.tokens)
    cells = [[escape_html(shorten(show_token(text), 10)) for text in row] for row in table.best]
    ranks = [
        [
            f"{show_token(best)}, probability {chance:.3f}; {show_token(table.answer)}: {own:.3f}, rank {rank}"
            for best, chance, own, rank in zip(*rows, strict=True)
        ]
        for rows in zip(table.best, table.probability, table.answer_probability, table.answer_rank, strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=[list(row) for row in table.probability],
            text=cells,
            texttemplate="%{text}" if width <= WRITTEN else None,
            customdata=[[escape_html(text) for text in row] for row in ranks],
            hovertemplate="%{y}, %{x}<br>%{customdata}<extra></extra>",
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=1,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "probability", "side": "top"}, "thickness": 10, "outlinewidth": 0},
        )
    )
    for depth, row in enumerate(table.answer_rank):
        for position, rank in enumerate(row):
            if rank == 1:
                figure.add_shape(
                    type="rect",
                    x0=position - 0.47,
                    x1=position + 0.47,
                    y0=depth - 0.45,
                    y1=depth + 0.45,
                    line={"color": "#f0a202", "width": 2},
                )
    label_grid(figure, [name_depth(depth, depths) for depth in range(depths)], table.tokens)
    return style_figure(figure, 130 + 28 * depths)


def label_grid(figure: go.Figure, rows: Sequence[str], tokens: Sequence[str]) -> None:
    """Layers upwards, tokens across."""
    figure.update_yaxes(title="stream, by layer", tickvals=list(range(len(rows))), ticktext=list(rows))
    figure.update_xaxes(tickvals=list(range(len(tokens))), ticktext=label_positions(tokens), tickangle=-45)


def tabulate_lens(table: LensTable) -> Columns:
    """One row a depth, one column a position: the most probable token and its probability."""
    depths = len(table.best)
    columns: Columns = {"stream": [name_depth(depth, depths) for depth in range(depths)]}
    for position, token in enumerate(table.tokens):
        columns[f"{position} {show_token(token)}"] = [
            f"{show_token(table.best[depth][position])} {table.probability[depth][position]:.2f}"
            for depth in range(depths)
        ]
    return columns


def tabulate_answer(table: LensTable) -> Columns:
    """Probability and rank of the answer at the last position, by depth."""
    depths = len(table.best)
    return {
        "stream": [name_depth(depth, depths) for depth in range(depths)],
        "best token": [show_token(row[-1]) for row in table.best],
        "its probability": [row[-1] for row in table.probability],
        "probability of the answer": [row[-1] for row in table.answer_probability],
        "rank of the answer": [row[-1] for row in table.answer_rank],
    }


def draw_lines(rows: Sequence[dict[str, Any]], lines: dict[str, str], title: str) -> go.Figure:
    """Lines by layer; `lines` names the keys that are drawn, each with its label. Dashes tell them apart too."""
    import plotly.graph_objects as go

    colours, dashes = (POSITIVE, NEGATIVE, "#7a4fa3", FAINT), ("solid", "dash", "dot", "dashdot")
    figure = go.Figure()
    for place, (key, label) in enumerate(lines.items()):
        figure.add_trace(
            go.Scatter(
                name=escape_html(label),
                x=[row["layer"] for row in rows],
                y=[row[key] for row in rows],
                mode="lines+markers",
                line={"color": colours[place % 4], "dash": dashes[place % 4]},
                hovertemplate=f"{escape_html(label)}, depth %{{x}}: %{{y:.3f}}<extra></extra>",
            )
        )
    figure.update_xaxes(title="before layer (the last: after them all)", dtick=1 if len(rows) <= 17 else 4)
    figure.update_yaxes(title=escape_html(title))
    style_figure(figure, 320)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.15, "x": 0})


def draw_restored(found: dict[str, Any]) -> go.Figure:
    """Share of the metric that a state brings back, by layer and position; 1 is the clean run, 0 the corrupted one."""
    import plotly.graph_objects as go

    shares, tokens = found["share"], found["tokens"]
    limit = max((abs(value) for row in shares for value in row), default=1.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            colorscale=DIVERGING,
            zmin=-limit,
            zmax=limit,
            xgap=1,
            ygap=1,
            hovertemplate="layer %{y}, %{x}<br>share brought back %{z:.3f}<extra></extra>",
            colorbar={"title": {"text": "share", "side": "top"}, "thickness": 10, "outlinewidth": 0},
        )
    )
    label_grid(figure, [str(layer) for layer in range(len(shares))], tokens)
    return style_figure(figure, 130 + 28 * max(len(shares), 2))


def tabulate_restored(found: dict[str, Any]) -> Columns:
    """One row a position, one column a layer: the share brought back."""
    columns: Columns = {
        "position": [f"{position} {show_token(token)}" for position, token in enumerate(found["tokens"])]
    }
    return columns | {f"layer {layer}": list(row) for layer, row in enumerate(found["share"])}


def tabulate_classes(found: dict[str, Any]) -> Columns:
    """One row a class of circuits, those of the most texts first."""
    rows = found["classes"]

    def spell(counts: Sequence[dict[str, Any]]) -> str:
        return ", ".join(f"{show_token(one['text'])} ×{one['members']}" for one in counts[:4])

    return {
        "edges of the first member": [show_line(" + ".join(row["edges"])) for row in rows],
        "verdict": [row["verdict"] for row in rows],
        "rate": [row["rate"]["value"] for row in rows],
        "low": [row["rate"]["low"] for row in rows],
        "high": [row["rate"]["high"] for row in rows],
        "members": [row["members"] for row in rows],
        "facts": [len(row["facts"]) if "facts" in row else None for row in rows],
        "variability": [row["variability"] for row in rows],
        "weight": [row["weight"] for row in rows],
        "inputs": [spell(row["inputs"]) for row in rows],
        "outputs": [spell(row["outputs"]) for row in rows],
    }


def scatter_classes(found: dict[str, Any]) -> go.Figure:
    """Rate of occurrence against variability of the output, one point a class; the dotted line is the threshold."""
    import plotly.graph_objects as go

    looks = {"specific": (POSITIVE, "circle"), "abstract": ("#d9822b", "square"), "undecided": ("#627d98", "diamond")}
    figure = go.Figure()
    for verdict, (colour, symbol) in looks.items():
        own = [(place, row) for place, row in enumerate(found["classes"]) if row["verdict"] == verdict]
        if not own:
            continue
        figure.add_trace(
            go.Scatter(
                name=verdict,
                x=[row["rate"]["value"] for _, row in own],
                y=[row["variability"] for _, row in own],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 10, "opacity": 0.8},
                customdata=[[place] for place, _ in own],
                text=[
                    f"{escape_html(shorten(' + '.join(row['edges']), 80))}<br>{row['members']} members"
                    for _, row in own
                ],
                hoverinfo="text",
            )
        )
    figure.add_hline(y=found["settings"]["fraction"], line={"color": FAINT, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="rate: share of texts that hold a member", range=[-0.03, 1.03])
    figure.update_yaxes(title="variability of the output (share)", range=[-0.04, 1.04])
    style_figure(figure, 340)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12, "x": 0})
