"""Faithfulness against the number of edges kept, as a plot and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.size_curves import SizeCurve
from workbench.views.figures import style_figure
from workbench.views.style import FAINT, POSITIVE
from workbench.views.tables import Columns

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_sizes(curve: SizeCurve, edges: int) -> go.Figure:
    """The circuit's curve, random circuits with their range, and an upright line at the slider's number of edges."""
    import plotly.graph_objects as go

    sizes = list(curve.edges)
    figure = go.Figure(
        [
            go.Scatter(
                x=sizes, y=list(curve.high), mode="lines", line={"width": 0}, hoverinfo="skip", showlegend=False
            ),
            go.Scatter(
                x=sizes,
                y=list(curve.low),
                mode="lines",
                line={"width": 0},
                fill="tonexty",
                fillcolor="rgba(123,135,148,0.25)",
                name=f"random, range of {curve.draws}",
            ),
            go.Scatter(
                x=sizes,
                y=list(curve.random),
                mode="lines+markers",
                line={"color": FAINT, "dash": "dash"},
                marker={"symbol": "x"},
                name=f"random, mean of {curve.draws}",
            ),
            go.Scatter(
                x=sizes, y=list(curve.faithfulness), mode="lines+markers", line={"color": POSITIVE}, name="this circuit"
            ),
        ]
    )
    figure.add_hline(y=1.0, line={"color": FAINT, "width": 1, "dash": "dot"})
    figure.add_vline(x=edges, line={"color": FAINT, "width": 1})
    figure.update_xaxes(type="log", title="edges kept")
    figure.update_yaxes(title="faithfulness")
    style_figure(figure, 300)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.2, "x": 0})


def tabulate_sizes(curve: SizeCurve) -> Columns:
    """One row a size."""
    return {
        "edges": list(curve.edges),
        "faithfulness": list(curve.faithfulness),
        f"random, mean of {curve.draws}": list(curve.random),
        "random, smallest": list(curve.low),
        "random, largest": list(curve.high),
    }
