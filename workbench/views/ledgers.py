"""A ledger as a waterfall that adds up, as tables, and the difference of two; what heads read of a reference.

Every list of steps ends in their sum; nothing is left out, what is not shown alone is in `other parts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuits.graph import parse_component
from probes.errors import UserError
from workbench.answers import Condition
from workbench.ledgers.table import Entry, Ledger, list_rows
from workbench.studies import Level, Reference, Study
from workbench.views.describe import name_component, name_part
from workbench.views.figures import escape_html, style_figure
from workbench.views.style import INK, NEGATIVE, POSITIVE
from workbench.views.text import format_score, shorten, show_line, show_token

if TYPE_CHECKING:
    import plotly.graph_objects as go

Columns = dict[str, list[Any]]
PLACES = {
    "anchor": "model alone (anchor)",
    "explicit": "explicit memory",
    "bank": "bank block",
    "text": "text in the prompt",
}
# Enough layers to read any component's name; only its own numbers are shown.
ANY_LAYERS = 10_000
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Step:
    """One row of a waterfall: what it is, how much it adds, and whether it is the sum of those before."""

    name: str
    value: float
    total: bool = False


def name_entry(entry: Entry) -> str:
    """A format in words: `level 1: bank block, cluster 3`."""
    label = f", {shorten(show_line(entry.label), 40)}" if entry.label and entry.kind != "anchor" else ""
    place = PLACES.get(entry.kind, entry.kind)
    return place if entry.kind == "anchor" else f"{entry.name}: {place}{label}" if entry.name != "text" else place


def list_steps(ledger: Ledger, parts: int) -> list[Step]:
    """Rows of the waterfall: a format each, or its `parts` strongest parts, the others together, and its residual."""
    steps = []
    for entry in ledger.entries:
        if not parts:
            steps.append(Step(name_entry(entry), entry.share))
            continue
        shown = entry.parts[:parts]
        steps += [Step(f"{entry.name}: {describe_step(part.component, part.token)}", part.share) for part in shown]
        hidden = entry.others + len(entry.parts) - len(shown)
        rest = entry.rest + math.fsum(part.share for part in entry.parts[parts:])
        # What is left by rounding alone is no row of its own.
        noise = hidden and abs(entry.residual) < ROUNDING * (1 + abs(entry.share))
        if hidden:
            steps.append(Step(f"{entry.name}: {hidden:,} other parts", rest + (entry.residual if noise else 0.0)))
        if not noise:
            steps.append(Step(f"{entry.name}: residual", entry.residual))
    if ledger.held:
        steps.append(Step("attention that removed memories keep", ledger.held))
    return [*steps, Step("margin", math.fsum(step.value for step in steps), total=True)]


def describe_step(name: str, token: str) -> str:
    """A component's id with the token that it brings."""
    return f"{name} {show_token(token)}" if token else name


def describe_component(name: str) -> str:
    """A component of a ledger in words; its id where it is of no known kind."""
    try:
        component = parse_component(name, ANY_LAYERS)
    except UserError:
        return name
    return name_part(component) if component.part >= 0 else name_component(component)


def subtract(first: Ledger, second: Ledger) -> list[Step]:
    """Difference of two rivals' log-probabilities, format by format: the ledger of their log odds."""
    others = {entry.name: entry.share for entry in second.entries}
    steps = [Step(name_entry(entry), entry.share - others.get(entry.name, 0.0)) for entry in first.entries]
    steps.append(Step("attention that removed memories keep", first.held - second.held))
    steps = [step for step in steps if step.value]
    return [*steps, Step("log odds", math.fsum(step.value for step in steps), total=True)]


def draw_waterfall(steps: Sequence[Step], unit: str) -> go.Figure:
    """Rows from top to bottom; each starts where the one before ended, the last is their sum."""
    import plotly.graph_objects as go

    names = [escape_html(shorten(step.name, 58)) for step in steps]
    figure = go.Figure(
        go.Waterfall(
            orientation="h",
            y=list(range(len(steps))),
            x=[step.value for step in steps],
            measure=["total" if step.total else "relative" for step in steps],
            text=[f"<b>{format_score(step.value)}</b>" if step.total else format_score(step.value) for step in steps],
            textposition="outside",
            cliponaxis=False,
            customdata=names,
            hovertemplate="%{customdata}<br>%{text} " + unit + "<extra></extra>",
            increasing={"marker": {"color": POSITIVE}},
            decreasing={"marker": {"color": NEGATIVE, "line": {"color": INK, "width": 1}}},
            totals={"marker": {"color": INK}},
            connector={"line": {"color": "#9fb3c8", "width": 1, "dash": "dot"}},
        )
    )
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    low, high = find_extent(steps)
    margin = 0.12 * (high - low or 1.0)
    figure.update_xaxes(title=unit, range=[low - margin, high + margin], showgrid=True, gridcolor="#e4e7eb")
    figure.update_yaxes(autorange="reversed", tickvals=list(range(len(steps))), ticktext=names, automargin=True)
    return style_axis(style_figure(figure, 90 + 26 * len(steps)))


def style_axis(figure: go.Figure) -> go.Figure:
    """The value axis of a horizontal figure keeps its grid."""
    return figure.update_xaxes(showgrid=True, gridcolor="#e4e7eb")


def find_extent(steps: Sequence[Step]) -> tuple[float, float]:
    """Lowest and highest point that a waterfall reaches, 0 among them."""
    level, points = 0.0, [0.0]
    for step in steps:
        level = step.value if step.total else level + step.value
        points.append(level)
    return min(points), max(points)


def tabulate_steps(steps: Sequence[Step], unit: str) -> Columns:
    """The waterfall as a table, with the running sum."""
    level, running = 0.0, []
    for step in steps:
        level = step.value if step.total else level + step.value
        running.append(level)
    return {"row": [step.name for step in steps], unit: [step.value for step in steps], f"sum, {unit}": running}


def tabulate_ledger(ledger: Ledger) -> Columns:
    """Every row of a ledger; those that are not formats add up to the margin."""
    rows = list_rows(ledger)
    return {
        "row": [row["row"] for row in rows],
        "place": [row["format"] for row in rows],
        "which": [show_line(row["label"]) for row in rows],
        "component": [row.get("component", "") for row in rows],
        "in words": [describe_component(row["component"]) if row.get("component") else "" for row in rows],
        "token": [show_token(row["token"]) if row.get("token") else "" for row in rows],
        f"share, {ledger.unit}": [row["share"] for row in rows],
        "alone": [row.get("alone") for row in rows],
        "last": [row.get("last") for row in rows],
        "effect": [row.get("effect") for row in rows],
        "parts": [row.get("count") for row in rows],
    }


def tabulate_interactions(ledger: Ledger) -> Columns:
    """Pairs of formats, the strongest first."""
    pairs = sorted(ledger.interactions, key=lambda pair: -abs(pair.value))
    return {
        "one": [pair.first for pair in pairs],
        "other": [pair.second for pair in pairs],
        f"interaction, {ledger.unit}": [pair.value for pair in pairs],
        "kind": [pair.word for pair in pairs],
    }


def tabulate_combinations(ledger: Ledger) -> Columns:
    """The margin of every combination of formats, fewest first."""
    rows = sorted(ledger.combinations, key=lambda row: (len(row[0]), row[0]))
    return {
        "on": [", ".join(on) or "nothing attached" for on, _ in rows],
        f"margin, {ledger.unit}": [margin for _, margin in rows],
    }


def list_readers(reference: Reference) -> list[tuple[int, int, float]]:
    """Heads that read a reference: layer, head and the share of its attention that goes there, strongest first."""
    found = [
        (layer, head, math.fsum(slots))
        for layer, heads in zip(reference.layers, reference.attention, strict=True)
        for head, slots in enumerate(heads)
    ]
    return sorted(found, key=lambda one: (-one[2], one[0], one[1]))


def mark_kept(reference: Reference, layer: int | None = None, head: int | None = None) -> dict[int, float]:
    """Tokens that a head can read (of all heads: that any can) with the attention each gets (of all: their mean)."""
    places = [
        (place, own)
        for place, at in enumerate(reference.layers)
        for own in range(len(reference.attention[place]))
        if layer is None or (at, own) == (layer, head)
    ]
    kept: dict[int, float] = {}
    for place, own in places:
        slots = reference.attention[place][own]
        tokens = reference.kept[place][own // reference.group] if reference.kept else tuple(range(len(slots)))
        for token, weight in zip(tokens, slots, strict=False):
            if token >= 0:
                kept[token] = kept.get(token, 0.0) + weight / len(places)
    return kept


def tabulate_readers(reference: Reference, ledger: Ledger | None, count: int = 40) -> Columns:
    """The heads that read a reference, each with its attention and, where the ledger lists it, its share."""
    entries = [] if ledger is None else [entry for entry in ledger.entries if entry.name == reference.entry]
    shares = {name: share for entry in entries for name, share in entry.heads}
    readers = list_readers(reference)[:count]
    columns: Columns = {
        "head": [f"a{layer}.h{head}" for layer, head, _ in readers],
        "layer": [layer for layer, _, _ in readers],
        "attention": [weight for _, _, weight in readers],
    }
    if ledger is not None:
        columns[f"share, {ledger.unit}"] = [shares.get(f"a{layer}.h{head}") for layer, head, _ in readers]
    return columns


def map_readers(reference: Reference) -> go.Figure:
    """Layer by head map of the attention that a reference gets."""
    import plotly.graph_objects as go

    from workbench.views.figures import SEQUENTIAL

    table = [[math.fsum(slots) for slots in heads] for heads in reference.attention]
    figure = go.Figure(
        go.Heatmap(
            z=table,
            x=[f"h{head}" for head in range(len(table[0]))] if table else [],
            y=[f"layer {layer}" for layer in reference.layers],
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=1,
            xgap=2,
            ygap=2,
            text=[[f"{value:.2f}" for value in row] for row in table],
            texttemplate="%{text}",
            hovertemplate="%{y}, %{x}: attention %{z:.3f}<extra></extra>",
            colorbar={"title": {"text": "attention", "side": "top"}, "thickness": 10, "outlinewidth": 0},
        )
    )
    return style_figure(figure, 110 + 26 * len(table))


def tabulate_path(path: Sequence[Level]) -> Columns:
    """Every level's clusters that share a parent, with the facts that read each; the path's own is marked."""
    rows = [(level, *sibling) for level in path for sibling in level.siblings]
    return {
        "level": [level.level for level, *_ in rows],
        "cluster": [cluster for _, cluster, _, _ in rows],
        "read": ["← this path" if level.cluster == cluster else "" for level, cluster, _, _ in rows],
        "trained facts": [facts for _, _, facts, _ in rows],
        "for example": [", ".join(show_line(name) for name in names) for *_, names in rows],
    }


def tabulate_answers(answers: Sequence[Condition]) -> Columns:
    """One row an answer: its probability, what that is less than in the first row, and the best tokens."""
    logs = [None if one.answer is None else math.log(max(one.answer.probability, 1e-30)) for one in answers]
    first = logs[0] if logs else None
    return {
        "what is on": [show_line(one.name) for one in answers],
        "says": [show_token(one.top[0].text) if one.top else show_line(one.reason) for one in answers],
        "probability of what it says": [one.top[0].probability if one.top else None for one in answers],
        "probability of the answer": [None if one.answer is None else one.answer.probability for one in answers],
        "change, nats": [None if log is None or first is None else log - first for log in logs],
        "next best": [", ".join(show_token(other.text) for other in one.top[1:4]) for one in answers],
    }


def tabulate_rivals(study: Study) -> Columns:
    """One row an answer of a conflict, likeliest first."""
    says = (study.about.get("conflict") or {}).get("says") or ["" for _ in study.ledgers]
    return {
        "says it": [show_line(str(name)) for name in says],
        "answer": [show_token(ledger.answer) for ledger in study.ledgers],
        "log-probability, nats": [ledger.margin for ledger in study.ledgers],
        "probability": [math.exp(min(ledger.margin, 0.0)) for ledger in study.ledgers],
    }
