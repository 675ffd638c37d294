"""Placement drawn: cost against usage with the intervals where each format is cheapest, moves of facts, caches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probes.facts import Fact
from workbench.costs.formats import Formats
from workbench.costs.tiers import CacheUse
from workbench.ledgers.placing import Placement
from workbench.placement import FORMATS, Move
from workbench.stored import Place
from workbench.views.figures import style_figure
from workbench.views.style import INK, POSITIVE
from workbench.views.text import show_line

if TYPE_CHECKING:
    import plotly.graph_objects as go

Columns = dict[str, list[Any]]
NAMES = {"text": "text", "explicit": "explicit memory", "parameters": "parameters"}
# Colour, dash and symbol of each format: told apart without colour too.
LOOKS = {
    "text": ("#627d98", "dot", "triangle-up"),
    "explicit": ("#0f8a6a", "solid", "diamond"),
    "parameters": (POSITIVE, "dash", "circle"),
}
LEVEL_COLOUR = "#7a4fa3"
LEVEL_DASHES = ("dashdot", "longdash", "longdashdot")
POINTS = 121
GRID = "#e4e7eb"


def find_range(formats: Formats, usage: Sequence[float]) -> tuple[float, float]:
    """Powers of ten that hold both ends of the interval and every usage above 0, a decade to spare."""
    low, high = formats.interval
    ends = [value for value in (low, high, *usage) if 0 < value < math.inf]
    return math.floor(math.log10(min(ends))) - 1, math.ceil(math.log10(max(ends))) + 1


def name_ranges(formats: Formats) -> list[tuple[str, float, float]]:
    """Formats with the reads between which each is the cheapest; explicit memory may never be."""
    low, high = formats.interval
    if low < high:
        return [("text", 0.0, low), ("explicit", low, high), ("parameters", high, math.inf)]
    middle = formats.write["parameters"] / formats.read["text"]
    return [("text", 0.0, middle), ("parameters", middle, math.inf)]


def draw_costs(formats: Formats, levels: Sequence[Place], placements: Sequence[Placement]) -> go.Figure:
    """Writing once and reading n times, in TFlops, by format, both axes logarithmic; facts as ticks at the bottom."""
    import plotly.graph_objects as go

    start, end = find_range(formats, [one.usage for one in placements])
    reads = [10 ** (start + (end - start) * point / (POINTS - 1)) for point in range(POINTS)]
    figure = go.Figure()
    lines = [(NAMES[form], form, *LOOKS[form][:2], formats.write[form], formats.read[form]) for form in FORMATS]
    lines += [
        (place.name, "", LEVEL_COLOUR, LEVEL_DASHES[number % len(LEVEL_DASHES)], place.write, place.read)
        for number, place in enumerate(levels)
    ]
    for name, form, colour, dash, write, read in lines:
        figure.add_trace(
            go.Scatter(
                x=reads,
                y=[write + count * read for count in reads],
                name=name,
                mode="lines",
                line={"color": colour, "dash": dash, "width": 2.5 if form else 1.5},
                hovertemplate=f"{name}<br>%{{x:.3g}} reads: %{{y:.3g}} TFlops<extra></extra>",
            )
        )
    for form, low, high in name_ranges(formats):
        shade_range(figure, form, max(low, reads[0]), min(high, reads[-1]))
    lowest = min(write + reads[0] * read for *_, write, read in lines)
    add_ticks(figure, placements, reads[0], lowest / 3)
    powers = {"type": "log", "exponentformat": "power", "dtick": 1}
    figure.update_xaxes(title="expected reads of the fact, n", range=[start, end], **powers)
    figure.update_yaxes(title="write + n · read, TFlops", **powers)
    style_figure(figure, 430)
    figure.update_xaxes(showgrid=True, gridcolor=GRID)
    figure.update_yaxes(showgrid=True, gridcolor=GRID)
    return figure.update_layout(
        showlegend=True, legend={"orientation": "h", "y": -0.2, "x": 0}, margin={"t": 40, "b": 10, "l": 10, "r": 10}
    )


def shade_range(figure: go.Figure, form: str, low: float, high: float) -> None:
    """Where a format is the cheapest, shaded and named."""
    if high > low:
        figure.add_vrect(
            x0=low,
            x1=high,
            fillcolor=LOOKS[form][0],
            opacity=0.09,
            line_width=0,
        )
        # Along a logarithmic axis notes are placed by the power of ten.
        figure.add_annotation(
            x=(math.log10(low) + math.log10(high)) / 2,
            y=1,
            yref="paper",
            yanchor="bottom",
            text=f"{NAMES[form]} cheapest",
            showarrow=False,
            font={"size": 11, "color": INK},
        )


def add_ticks(figure: go.Figure, placements: Sequence[Placement], left: float, height: float) -> None:
    """Facts by their expected reads, one mark a number of reads; facts without any stand at the left edge."""
    import plotly.graph_objects as go

    for form in FORMATS:
        counts = Counter(one.usage for one in placements if one.recommended == form)
        if not counts:
            continue
        usage = sorted(counts)
        figure.add_trace(
            go.Scatter(
                x=[max(count, left) for count in usage],
                y=[height] * len(usage),
                mode="markers",
                name=f"facts best in {NAMES[form]}",
                marker={
                    "symbol": LOOKS[form][2],
                    "size": [7 + 3 * math.log10(counts[count]) for count in usage],
                    "color": LOOKS[form][0],
                    "line": {"color": "#ffffff", "width": 0.5},
                },
                text=[f"{counts[count]:,} facts of {count:g} reads" for count in usage],
                hovertemplate="%{text}<extra></extra>",
            )
        )


def tabulate_ranges(formats: Formats) -> Columns:
    """Each format's costs and the reads between which it is the cheapest."""
    ranges = {form: (low, high) for form, low, high in name_ranges(formats)}
    return {
        "format": [NAMES[form] for form in FORMATS],
        "write once, TFlops": [formats.write[form] for form in FORMATS],
        "read once, TFlops": [formats.read[form] for form in FORMATS],
        "cheapest from, reads": [ranges[form][0] if form in ranges else None for form in FORMATS],
        "to, reads": [
            None if form not in ranges or math.isinf(ranges[form][1]) else ranges[form][1] for form in FORMATS
        ],
    }


def tabulate_places(places: Sequence[Place]) -> Columns:
    """Text, explicit memory, bank levels and anchor as they are."""
    return {
        "place": [place.name for place in places],
        "what is there": [show_line(place.holds) for place in places],
        "MB": [place.bytes / 1e6 for place in places],
        "write one reference, TFlops": [place.write for place in places],
        "read it once, TFlops": [place.read for place in places],
        "facts that can be read there": [place.facts for place in places],
        "formula": [place.source for place in places],
    }


def tabulate_placements(placements: Sequence[Placement], facts: Mapping[str, Fact]) -> Columns:
    """One row a fact: usage, where it lives, where it should, and what moving saves."""

    def describe(name: str, field: str) -> str:
        return show_line(str(getattr(facts[name], field))) if name in facts else ""

    return {
        "fact": [show_line(one.fact) for one in placements],
        "subject": [describe(one.fact, "subject") for one in placements],
        "relation": [describe(one.fact, "relation") for one in placements],
        "reads": [one.usage for one in placements],
        "lives in": [NAMES.get(one.lives, one.lives) for one in placements],
        "by": [one.entry for one in placements],
        "its share": [one.share if one.entry else None for one in placements],
        "recommended": [NAMES[one.recommended] for one in placements],
        "saving anew, TFlops": [one.saving for one in placements],
        "saving if moved, TFlops": [one.saving_moved for one in placements],
    }


def tabulate_moves(moves: Mapping[tuple[str, str], int]) -> Columns:
    """Facts by where they live and where they should, most first."""
    rows = sorted(moves.items(), key=lambda item: (-item[1], item[0]))
    return {
        "lives in": [NAMES.get(lives, lives) for (lives, _), _ in rows],
        "recommended": [NAMES.get(wanted, wanted) for (_, wanted), _ in rows],
        "facts": [count for _, count in rows],
        "moves": ["no" if lives == wanted else "yes" if lives in NAMES else "?" for (lives, wanted), _ in rows],
    }


def draw_moves(moves: Mapping[tuple[str, str], int]) -> go.Figure:
    """Facts from where they live (left) to where the cost model would keep them (right); widths are their number."""
    import plotly.graph_objects as go

    left = sorted({lives for lives, _ in moves}, key=lambda name: (name not in FORMATS, name))
    right = [form for form in FORMATS if any(wanted == form for _, wanted in moves)]
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for (lives, wanted), count in moves.items():
        before[lives] += count
        after[wanted] += count
    labels = [f"{NAMES.get(name, name)}: {before[name]:,}" for name in left]
    labels += [f"{NAMES[name]}: {after[name]:,}" for name in right]
    colours = [LOOKS[name][0] if name in LOOKS else "#9fb3c8" for name in (*left, *right)]
    ordered = sorted(moves.items())
    figure = go.Figure(
        go.Sankey(
            node={"label": labels, "color": colours, "pad": 22, "thickness": 16, "line": {"width": 0}},
            link={
                "source": [left.index(lives) for (lives, _), _ in ordered],
                "target": [len(left) + right.index(wanted) for (_, wanted), _ in ordered],
                "value": [count for _, count in ordered],
                "color": "rgba(98, 125, 152, 0.28)",
            },
        )
    )
    return style_figure(figure, 260)


def tabulate_move(moves: Sequence[Move]) -> Columns:
    """What moving the selection to each format costs and saves."""
    return {
        "to": [NAMES[move.target] for move in moves],
        "facts moved": [move.facts for move in moves],
        "left where they are": [move.skipped for move in moves],
        "writing them, TFlops": [move.write for move in moves],
        "their reads now, TFlops": [move.before for move in moves],
        "their reads then, TFlops": [move.after for move in moves],
        "saved in all, TFlops": [move.saved for move in moves],
    }


def draw_caches(capacities: Sequence[float], uses: Sequence[CacheUse], chosen: float) -> go.Figure:
    """Share of requests that a cache answers, by level, as its size grows; the chosen size is marked."""
    import plotly.graph_objects as go

    dashes = ("solid", "dash", "dot", "dashdot")
    figure = go.Figure()
    for level in range(len(uses[0].hits)):
        figure.add_trace(
            go.Scatter(
                x=[capacity / 1e6 for capacity in capacities],
                y=[use.hits[level] for use in uses],
                name=f"level {level + 1}",
                mode="lines+markers",
                line={"dash": dashes[level % len(dashes)], "color": LEVEL_COLOUR if level else POSITIVE},
                hovertemplate=f"level {level + 1}<br>%{{x:.4g}} MB: %{{y:.3f}}<extra></extra>",
            )
        )
    figure.add_vline(x=chosen / 1e6, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(type="log", title="cache, MB", exponentformat="power", dtick=1)
    figure.update_yaxes(title="share of requests from the cache", range=[-0.02, 1.02])
    style_figure(figure, 300)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.15, "x": 0})


def tabulate_caches(capacities: Sequence[float], uses: Sequence[CacheUse]) -> Columns:
    """One row a size of the cache."""
    levels = len(uses[0].hits) if uses else 0
    columns: Columns = {"cache, MB": [capacity / 1e6 for capacity in capacities]}
    for level in range(levels):
        columns[f"level {level + 1} from the cache, share"] = [use.hits[level] for use in uses]
    columns["mean wait a text, ms"] = [1000 * use.seconds for use in uses]
    return columns
