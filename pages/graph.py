"""What is drawn by our own scripts: the circuit's graph, a reference text's tokens, a head's attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from workbench.runs import Run
from workbench.views.drawing import Drawing
from workbench.views.graph_component import (
    diff_data,
    encode_attention,
    encode_drawing,
    encode_tokens,
    read_source,
    sign_data,
)

_graph, _tokens, _attention = map(read_source, ("graph", "tokens", "attention"))
_mount_graph = st.components.v2.component("circuit_graph", html=_graph.html, css=_graph.css, js=_graph.js)
_mount_tokens = st.components.v2.component("reference_tokens", html=_tokens.html, css=_tokens.css, js=_tokens.js)
_mount_attention = st.components.v2.component(
    "attention_pattern", html=_attention.html, css=_attention.css, js=_attention.js
)

# The picture is as wide as the page allows; it grows no higher than this, in pixels and in its own size.
HIGHEST, LARGEST_SCALE = 820, 1.25

# Under this name a session keeps which picture each graph of the present page has been sent.
SENT = "pictures-sent"


def read_selected(key: str) -> str:
    """Selected node of a mounted graph, as the browser last said; read it before mounting."""
    state: Any = st.session_state.get(key) or {}
    return str(state.get("selected") or "")


def read_log(key: str) -> tuple[str, list[Any]]:
    """What was done in a mounted graph, as the browser last said: a name of its page load, and numbered entries."""
    state: Any = st.session_state.get(key) or {}
    log = state.get("log")
    entries = log.get("entries") if isinstance(log, dict) else None
    return (str(log.get("page", "")), entries) if isinstance(entries, list) else ("", [])


def read_click(key: str) -> str:
    """What the point stands for that was clicked in a plot, by the first of its custom data; empty when none was."""
    event: Any = st.session_state.get(key) or {}
    points = (event.get("selection") or {}).get("points") or []
    data = points[0].get("customdata") if points else None
    return str(data[0]) if isinstance(data, list | tuple) and data else ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing made ready for the browser: its data and their hash, by which the script knows whether to redraw."""

    drawing: Drawing
    data: dict[str, Any]
    sign: str


def prepare(drawing: Drawing) -> Picture:
    """A drawing for `mount_graph`."""
    data = encode_drawing(drawing)
    return Picture(drawing, data, sign_data(data))


def choose_picture(key: str, picture: Picture) -> dict[str, Any]:
    """What of a picture to send to its graph: nothing, what changed since the last one, or all of it.

    The script still has the last picture that the graph was sent, or asks for the whole of the present one.
    """
    sent: dict[str, Picture] = st.session_state.setdefault(SENT, {})
    state: Any = st.session_state.get(key) or {}
    last = None if state.get("missing") == picture.sign else sent.get(key)
    sent[key] = picture
    if last is None:
        return {"graph": picture.data}
    if last.sign == picture.sign:
        return {}
    return {"change": diff_data(last.data, picture.data), "base": last.sign}


def mount_graph(key: str, picture: Picture, run: str, selected: str, curated: dict[str, Any] | None = None) -> None:
    """Draw the circuit; clicks and keys change what `read_selected` and `read_log` read.

    `curated` is what the script has to know of the reader's curation (`curating.encode_curation`); None: the graph can
    be looked at only.
    """
    if key in st.session_state and (st.session_state[key] or {}).get("selected") != selected:
        st.session_state[key]["selected"] = selected
    _mount_graph(
        key=key,
        data={
            **choose_picture(key, picture),
            "sign": picture.sign,
            "run": run,
            "selected": selected,
            "height": round(min(picture.drawing.height * LARGEST_SCALE, HIGHEST)),
            "curated": curated is not None,
            **(curated or {}),
        },
        default={"selected": selected, "log": {}},
        on_selected_change=lambda: None,
        on_log_change=lambda: None,
        on_missing_change=lambda: None,
    )


def mount_tokens(key: str, tokens: list[str], kept: dict[int, float]) -> None:
    """Draw a reference text; `kept` gives for each kept token the attention it received (0..1)."""
    _mount_tokens(key=key, data={"tokens": encode_tokens(tokens, kept)})


def mount_attention(key: str, run: Run, layer: int, head: int, position: int) -> None:
    """Draw the attention pattern of a head as a table of shaded cells; the row of `position` is marked."""
    _mount_attention(key=key, data=encode_attention(run, layer, head, position))
