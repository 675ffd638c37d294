"""Charts: ledger waterfall, faithfulness curves, specificity scatter, costs of the formats by reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from probes.errors import UserError
from workbench.costs.formats import Formats
from workbench.figures.axes import SMALL, TEXT, Frame, Scale, draw_key, widen, write_tick
from workbench.figures.scene import Label, Mark, Point, Scene, Shape, crop, trace_box, trace_circle, trace_line
from workbench.ledgers.table import Ledger
from workbench.views.style import FAINT, INK, LINE, NEGATIVE, POSITIVE
from workbench.views.text import format_score, measure_width, shorten

ROW = 15.0
# Shapes of classes in the scatter stay apart without colour by their ring.
CLASSES = {"specific": "#7a4fa3", "abstract": "#0f8a6a", "undecided": "#8a93a0", "inert": "#d9dee5"}
FORMS = {"text": FAINT, "explicit": "#0f8a6a", "parameters": POSITIVE}
NAMED = 6


def list_steps(ledger: Ledger) -> list[tuple[str, float]]:
    """Name and share of each step of the waterfall; together they are the margin."""
    steps = [(shorten(entry.name, 26), entry.share) for entry in ledger.entries]
    return [*steps, ("held attention", ledger.held)] if ledger.held else steps


def draw_waterfall(ledger: Ledger, width: float) -> Scene:
    """One bar a format from where the last ended, and the margin as their sum."""
    steps = list_steps(ledger)
    names = [name for name, _ in steps] + ["margin"]
    left = 8 + max(measure_width(name, TEXT) for name in names)
    ends = [0.0]
    for _, share in steps:
        ends.append(ends[-1] + share)
    scale = widen([*ends, ledger.margin], 0.16)
    frame = Frame(left, 6, width - left - 8, ROW * len(names), scale, Scale(0, len(names)))
    marks: list[Mark] = []
    zero = frame.place(0, 0)[0]
    marks.append(Shape(trace_line((zero, frame.top), (zero, frame.top + frame.height)), stroke=FAINT, width=0.5))
    for row, (name, share) in enumerate([*steps, ("margin", ledger.margin)]):
        total = name == "margin" and row == len(steps)
        marks += draw_step(frame, row, name, 0.0 if total else ends[row], share, total)
    bottom = frame.top + frame.height
    for tick in scale.list_ticks(max(3, int(frame.width / 45))):
        marks.append(Label(frame.place(tick, 0)[0], bottom + 7, write_tick(tick), SMALL, INK))
    foil = f" against {ledger.foil.strip()}" if ledger.foil else ""
    name = f"{ledger.metric} of {ledger.answer.strip()}{foil}, {ledger.unit}"
    marks.append(Label(frame.left + frame.width / 2, bottom + 18, name, TEXT, INK))
    return crop(marks, f"Ledger of {ledger.fact}", 2.0)


def draw_step(frame: Frame, row: int, name: str, start: float, share: float, total: bool) -> list[Mark]:
    """One bar with its name, its number, and the line down to the next."""
    y = frame.top + row * ROW
    first, last = sorted((frame.place(start, 0)[0], frame.place(start + share, 0)[0]))
    colour = INK if total else POSITIVE if share >= 0 else NEGATIVE
    marks: list[Mark] = [
        Label(frame.left - 6, y + ROW / 2, name, TEXT, INK, "end", bold=total),
        Shape(trace_box(first, y + 2.5, max(last - first, 0.4), ROW - 5), fill=colour, title=f"{name} {share:+.4g}"),
    ]
    if not total:
        end = frame.place(start + share, 0)[0]
        marks.append(Shape(trace_line((end, y + 2.5), (end, y + ROW + 2.5)), stroke=FAINT, width=0.4))
    number, beside = format_score(share), last + 3 + measure_width(format_score(share), SMALL)
    fits = beside < frame.left + frame.width + 6
    marks.append(Label(last + 3 if fits else first - 3, y + ROW / 2, number, SMALL, INK, "start" if fits else "end"))
    return marks


def draw_faithfulness(curves: Mapping[str, Any], width: float) -> Scene:
    """Normalised faithfulness by the share of edges kept, of circuits by two rankings and of random ones."""
    kinds = {
        "absolute": ("by absolute score", POSITIVE, False),
        "signed": ("by signed score", "#0f8a6a", False),
        "random": (f"random, mean of {curves['draws']}", FAINT, True),
    }
    values = [value for kind in kinds for value in curves[kind]["faithfulness"]]
    shares = [100 * share for kind in kinds for share in curves[kind]["shares"] if share > 0]
    frame = Frame(
        38, 24, width - 46, min(width * 0.5, 150), Scale(min(shares), max(shares), True), widen([*values, 1.0])
    )
    marks = frame.draw("% of all edges kept", "faithfulness")
    marks.append(frame.rule([(frame.x.low, 1.0), (frame.x.high, 1.0)], INK, 0.6, True))
    for kind, (_, colour, dashed) in kinds.items():
        curve = curves[kind]
        points = [(100 * s, f) for s, f in zip(curve["shares"], curve["faithfulness"], strict=True) if s > 0]
        marks.append(frame.rule(points, colour, 1.3, dashed))
        marks += [Shape(trace_circle(*frame.place(*point), 1.8), fill=colour) for point in points]
    key = [(name, colour, "dash" if dashed else "line") for name, colour, dashed in kinds.values()]
    return crop([*marks, *draw_key(key, frame.left, 6, width)], "Faithfulness by size of the circuit", 2.0)


def draw_specificity(rows: Sequence[Mapping[str, Any]], width: float) -> Scene:
    """Every component that has an index: the index across, its largest effect on a fact upwards."""
    known = [row for row in rows if row.get("index") is not None]
    if not known:
        raise UserError("no component of the table has a specificity index: measure more facts (`specificity --limit`)")
    points = [(float(row["index"]), abs(float(row["largest"]))) for row in known]
    across = [x for x, _ in points]
    frame = Frame(
        38, 16, width - 46, min(width * 0.55, 170),
        Scale(min(0.0, *across), max(1.0, *across)), widen([y for _, y in points]),
    )  # fmt: skip
    marks = frame.draw("specificity index (1: one fact alone)", "largest effect, nats")
    order = sorted(range(len(known)), key=lambda place: points[place][1])
    for place in order:
        row, (x, y) = known[place], frame.place(*points[place])
        title = f"{row['component']}: index {points[place][0]:.3f}, largest effect {points[place][1]:.3f} nats"
        colour = CLASSES.get(str(row["label"]), FAINT)
        marks.append(Shape(trace_circle(x, y, 2.4), fill=colour, stroke="#ffffff", width=0.3, title=title))
    taken: list[Point] = []
    for place in reversed(order):
        x, y = frame.place(*points[place])
        if len(taken) < NAMED and all(abs(x - a) > 34 or abs(y - b) > 8 for a, b in taken):
            taken.append((x, y))
            end = x > frame.left + frame.width - 40
            marks.append(
                Label(x - 4 if end else x + 4, y, str(known[place]["component"]), SMALL, INK, "end" if end else "start")
            )
    present = [name for name in CLASSES if any(row["label"] == name for row in known)]
    key = draw_key([(name, CLASSES[name], "dot") for name in present], frame.left, 5, width)
    return crop([*marks, *key], "Specificity of components", 2.0)


def draw_costs(formats: Formats, width: float) -> Scene:
    """Operations of writing a reference once and reading it, by reads, for each format; where each is cheapest."""
    low, high = formats.interval
    ends = 10.0 ** math.floor(math.log10(max(low, 1e-3)) - 1), 10.0 ** math.ceil(math.log10(max(high, low, 1.0)) + 1)
    costs = [formats.cost(form, reads) for form in FORMS for reads in ends]
    lowest, highest = min(cost for cost in costs if cost > 0), max(costs)
    scale = Scale(10.0 ** math.floor(math.log10(lowest)), 10.0 ** math.ceil(math.log10(highest)), True)
    frame = Frame(42, 16, width - 50, min(width * 0.55, 170), Scale(*ends, True), scale)
    marks = frame.draw("expected reads of the reference", "TFlops, written once and read")
    for reads in (low, high):
        if ends[0] < reads < ends[1]:
            marks.append(frame.rule([(reads, scale.low), (reads, scale.high)], LINE, 0.8, True))
            x, _ = frame.place(reads, scale.low)
            marks.append(Label(x + 2, frame.top + 6, f"{reads:.4g}", SMALL, INK, "start"))
    steps = [10 ** (math.log10(ends[0]) + place / 60 * math.log10(ends[1] / ends[0])) for place in range(61)]
    for form, colour in FORMS.items():
        points = [(reads, formats.cost(form, reads)) for reads in steps]
        marks.append(frame.rule(points, colour, 1.4, form == "text"))
    key = [(form, colour, "dash" if form == "text" else "line") for form, colour in FORMS.items()]
    return crop([*marks, *draw_key(key, frame.left, 5, width)], "Cost of each memory format", 2.0)
