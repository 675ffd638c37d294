"""What our browser components draw as data, and their own markup, style and script.

Untrusted text travels as data only; the script puts it in place with `textContent` and `setAttribute`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from workbench.runs import Run
from workbench.views.drawing import Drawing
from workbench.views.figures import gather_attention
from workbench.views.style import follow_fill, follow_theme, trace_shape
from workbench.views.svg import is_line, list_legend, read_dash


@dataclass(frozen=True, slots=True)
class Source:
    """Markup, style and script of a component."""

    html: str
    css: str
    js: str


def read_source(name: str) -> Source:
    """The three files `NAME.html`, `NAME.css`, `NAME.js` beside this module; the style begins with `theme.css`."""
    folder = files("workbench.views")
    html, css, js = ((folder / f"{name}.{ending}").read_text(encoding="utf-8") for ending in ("html", "css", "js"))
    return Source(html, (folder / "theme.css").read_text(encoding="utf-8") + css, js)


def encode_drawing(drawing: Drawing) -> dict[str, Any]:
    """A drawing as a JSON object, shapes as SVG paths, colours those of the page's theme."""
    return {
        "width": drawing.width,
        "height": drawing.height,
        "caption": drawing.caption,
        "bands": [[b.x, b.y, b.width, b.height, follow_theme(b.fill)] for b in drawing.bands],
        "lines": [
            {
                "d": n.path,
                "c": follow_theme(n.colour),
                "w": n.width,
                "a": n.source,
                "b": n.target,
                "r": n.role,
                "t": n.title,
                "p": n.dash,
            }
            for n in drawing.lines
        ],
        "nodes": [
            {
                "id": g.id,
                "x": g.x,
                "y": g.y,
                "d": trace_shape(g.shape, g.width, g.height),
                "ring": trace_shape(g.shape, g.width + 9, g.height + 9),
                "fill": follow_fill(g.fill, g.ink)[0],
                "ink": follow_fill(g.fill, g.ink)[1],
                "stroke": follow_theme(g.stroke),
                "label": g.label,
                "t": g.title,
                "box": g.shape == "box",
                "fixed": g.id.startswith("memory:"),
                "members": g.members,
                "inner": trace_shape(g.shape, g.width + 5, g.height + 5) if g.members else "",
                "mark": g.mark,
                "w": g.width,
                "h": g.height,
            }
            for g in drawing.glyphs
        ],
        "texts": [[t.x, t.y, t.text, t.size, follow_theme(t.colour), t.anchor, t.angle] for t in drawing.texts],
        "legend": [
            {
                "line": is_line(shape),
                "dash": read_dash(shape) if is_line(shape) else "",
                "d": "" if is_line(shape) else trace_shape(shape, 16, 12 if shape == "box" else 14),
                "fill": follow_theme(fill) if is_line(shape) else follow_fill(fill, "")[0],
                "stroke": follow_theme(stroke),
                "text": caption,
            }
            for shape, fill, stroke, caption in list_legend(drawing)
        ],
    }


def sign_data(data: dict[str, Any]) -> str:
    """Short hash of a component's data: it redraws only when this changes, which keeps zoom and focus."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def diff_data(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What makes the new data of a drawing out of the old: each list as parts, all else as it is.

    A part is either `[first, count]`, items of the old list that stay, or `{"item": …}`, one that it did not have.
    """
    return {name: diff_list(old[name], value) if isinstance(value, list) else value for name, value in new.items()}


def diff_list(old: list[Any], new: list[Any]) -> list[Any]:
    """Parts that make the new list out of the old one."""
    places = {json.dumps(item): place for place, item in enumerate(old)}
    parts: list[Any] = []
    for item in new:
        place = places.get(json.dumps(item))
        if place is None:
            parts.append({"item": item})
        elif parts and isinstance(parts[-1], list) and sum(parts[-1]) == place:
            parts[-1][1] += 1
        else:
            parts.append([place, 1])
    return parts


def encode_tokens(tokens: list[str], kept: dict[int, float]) -> list[dict[str, Any]]:
    """Tokens of a reference as data for the token strip: text, whether kept as a slot, attention it received (0..1)."""
    return [
        {"text": text, "kept": index in kept, "share": round(kept.get(index, 0.0), 4)}
        for index, text in enumerate(tokens)
    ]


def encode_attention(run: Run, layer: int, head: int, position: int) -> dict[str, Any]:
    """Attention of a head as data for its table: `weights[row][column]` are probabilities, memory blocks come first."""
    weights, columns = gather_attention(run, layer, head)
    rows = columns[len(columns) - len(run.tokens) :]
    return {
        "title": f"Attention pattern of head {head} of layer {layer}",
        "rows": rows,
        "columns": columns,
        "memories": len(columns) - len(rows),
        "weights": weights.round(3).tolist(),
        "reading": position,
    }
