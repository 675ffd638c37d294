"""Figures and tables of sweeps: components by their mean value, the spread of values, formats by relation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.ledgers.table import METHOD as LEDGER
from workbench.settings import METHODS
from workbench.views.figures import DIVERGING, escape_html, style_figure
from workbench.views.style import MOVE, NEGATIVE, POSITIVE
from workbench.views.text import shorten, show_line

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.views.tables import Columns

Rows = Sequence[Sequence[Any]]


def tabulate_outcomes(rows: Rows) -> Columns:
    """One row for each sweep, condition, method and outcome."""
    return {
        "sweep": [show_line(row[0]) for row in rows],
        "condition": [show_line(row[1]) for row in rows],
        "method": [name_method(row[2]) for row in rows],
        "outcome": [f"not measured: {show_line(row[3])}" if row[3] else "measured" for row in rows],
        "facts": [row[4] for row in rows],
    }


def draw_components(rows: Rows, unit: str) -> go.Figure:
    """Bars of mean values with their standard deviation, the largest mean size on top; blue helps the answer."""
    import plotly.graph_objects as go

    names = [escape_html(shorten(str(row[0]), 40)) for row in rows]
    figure = go.Figure(
        go.Bar(
            x=[row[1] for row in rows],
            y=list(range(len(rows))),
            orientation="h",
            error_x={
                "type": "data",
                "array": [row[4] or 0.0 for row in rows],
                "thickness": 1,
                "width": 2,
                "color": MOVE,
            },
            marker={"color": [POSITIVE if row[1] >= 0 else NEGATIVE for row in rows]},
            customdata=[[name, row[2], row[3]] for name, row in zip(names, rows, strict=True)],
            hovertemplate="%{customdata[0]}<br>mean %{x:.4g}<br>mean size %{customdata[1]:.4g}"
            "<br>%{customdata[2]:,} rows<extra></extra>",
        )
    )
    figure.update_xaxes(title=escape_html(f"mean value, {unit}"))
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=names, autorange="reversed", tickfont={"size": 10})
    return style_figure(figure, 120 + 18 * max(len(rows), 4))


def draw_values(rows: Rows, unit: str) -> go.Figure:
    """Histogram of values; the count is drawn on a logarithmic scale, as most values are near 0."""
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Bar(
            x=[row[0] + row[1] / 2 for row in rows],
            y=[row[2] for row in rows],
            width=[row[1] for row in rows],
            marker={"color": POSITIVE, "line": {"width": 0}},
            hovertemplate="%{x:.4g}<br>%{y:,} rows<extra></extra>",
        )
    )
    figure.update_xaxes(title=escape_html(f"value, {unit}"))
    figure.update_yaxes(title="rows", type="log")
    return style_figure(figure, 320)


def draw_formats(rows: Rows, unit: str) -> go.Figure:
    """Map of mean shares: relations downwards, formats across."""
    import plotly.graph_objects as go

    relations, formats = sorted({str(row[0]) for row in rows}), sorted({str(row[1]) for row in rows})
    means = {(str(row[0]), str(row[1])): row[2] for row in rows}
    limit = max((abs(value) for value in means.values()), default=0.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=[[means.get((relation, form)) for form in formats] for relation in relations],
            x=[escape_html(form) for form in formats],
            y=[escape_html(shorten(relation, 40)) for relation in relations],
            colorscale=DIVERGING,
            zmin=-limit,
            zmax=limit,
            hovertemplate="%{y}<br>%{x}<br>mean share %{z:.4g}<extra></extra>",
            colorbar={"title": {"text": escape_html(unit), "side": "top"}, "thickness": 10, "outlinewidth": 0},
        )
    )
    figure.update_yaxes(type="category", autorange="reversed")
    return style_figure(figure, 120 + 22 * max(len(relations), 4))


def tabulate_components(rows: Rows, unit: str) -> Columns:
    """The bars as a table: mean, standard deviation over the rows, mean size, number of rows."""
    return {
        "component": [show_line(str(row[0])) for row in rows],
        f"mean, {unit}": [row[1] for row in rows],
        "standard deviation": [row[4] for row in rows],
        "mean size": [row[2] for row in rows],
        "rows (n)": [row[3] for row in rows],
    }


def tabulate_values(rows: Rows) -> Columns:
    """The histogram as a table."""
    return {
        "from": [row[0] for row in rows],
        "to": [row[0] + row[1] for row in rows],
        "rows (n)": [row[2] for row in rows],
    }


def tabulate_formats(rows: Rows, unit: str) -> Columns:
    """The map of formats as a table."""
    return {
        "relation": [show_line(str(row[0])) for row in rows],
        "format": [show_line(str(row[1])) for row in rows],
        f"mean share, {unit}": [row[2] for row in rows],
        "rows (n)": [row[3] for row in rows],
    }


def name_method(name: str) -> str:
    """A method by its label; a ledger's, which says in a sentence how it was divided, by what it is."""
    if name in METHODS:
        return METHODS[name].label
    return "Margin divided over formats (ledger)" if name == LEDGER else shorten(show_line(name), 60)


def pick_method(kinds: Mapping[str, Sequence[str]]) -> str:
    """The method to begin with: one whose rows are components of a ledger, else EAP, else the first."""
    ledgers = [method for method, rows in kinds.items() if "component" in rows]
    return (ledgers or [method for method in kinds if method == "eap"] or list(kinds))[0]


def choose_first(there: Sequence[str], wanted: Sequence[str]) -> int:
    """Place of the first wanted value that there is, else 0."""
    return next((there.index(value) for value in wanted if value in there), 0)
