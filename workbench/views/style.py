"""Shapes and colours by kind of component; blue is positive, orange-red negative: safe for colour-blind readers."""

from __future__ import annotations

from dataclasses import dataclass

from circuits.graph import Kind

POSITIVE = "#2166ac"
NEGATIVE = "#c4472b"
MOVE = "#8a93a0"
INK = "#1f2933"
FAINT = "#7b8794"
BAND = "#f5f7fa"
LINE = "#d9dee5"
# Dashes of an edge that hurts the answer, so that its sign does not rest on colour alone.
HURTS = "12 4"


@dataclass(frozen=True, slots=True)
class Style:
    """How a kind is drawn: shape, fill, colour of the text on it, width and height in pixels, name in the legend."""

    shape: str
    fill: str
    ink: str
    width: float
    height: float
    caption: str


STYLES: dict[Kind, Style] = {
    Kind.EMBEDDING: Style("box", "#ffffff", INK, 22, 20, "token embedding"),
    Kind.HEAD: Style("circle", "#486581", "#ffffff", 25, 25, "attention head"),
    Kind.KEY_VALUE: Style("circle", "#cbd2d9", INK, 19, 19, "key-value head (source of attention)"),
    Kind.EXPLICIT: Style("diamond", "#0f8a6a", "#ffffff", 30, 30, "head reading explicit memory"),
    Kind.LEARNED: Style("hexagon", "#9a6bc0", "#ffffff", 30, 26, "memory-bank block of learned key-values"),
    Kind.MLP: Style("square", "#e9b949", INK, 24, 24, "MLP"),
    Kind.BANK: Style("hexagon", "#7a4fa3", "#ffffff", 30, 26, "memory-bank block"),
    Kind.LOGITS: Style("box", "#1f2933", "#ffffff", 40, 22, "output logits"),
}


# Colours that follow the page's light or dark theme on the screen (`theme.css`); paper keeps the ones above.
THEMED = {
    POSITIVE: "var(--positive)",
    NEGATIVE: "var(--negative)",
    MOVE: "var(--move)",
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    BAND: "var(--band)",
    LINE: "var(--rule)",
}


def follow_theme(colour: str) -> str:
    """A colour of a line, text or band as the page's theme has it."""
    return THEMED.get(colour, colour)


def follow_fill(fill: str, ink: str) -> tuple[str, str]:
    """Fill and ink of a node: plain ones turn with the theme, a kind's own colour and what is legible on it stay."""
    plain = {"#ffffff": ("var(--paper)", "var(--ink)"), INK: ("var(--ink)", "var(--paper)")}
    return plain.get(fill, (fill, ink))


def pick_colour(score: float) -> str:
    """Colour of a signed score."""
    return NEGATIVE if score < 0 else POSITIVE


def trace_shape(shape: str, width: float, height: float) -> str:
    """SVG path of a shape centred on the origin."""
    x, y = width / 2, height / 2
    if shape == "circle":
        return f"M{-x:g} 0A{x:g} {y:g} 0 1 1 {x:g} 0A{x:g} {y:g} 0 1 1 {-x:g} 0Z"
    if shape == "diamond":
        return f"M0 {-y:g}L{x:g} 0L0 {y:g}L{-x:g} 0Z"
    if shape == "hexagon":
        return f"M{-x:g} 0L{-x / 2:g} {-y:g}L{x / 2:g} {-y:g}L{x:g} 0L{x / 2:g} {y:g}L{-x / 2:g} {y:g}Z"
    corner = 3.0
    return (
        f"M{-x + corner:g} {-y:g}H{x - corner:g}Q{x:g} {-y:g} {x:g} {-y + corner:g}V{y - corner:g}"
        f"Q{x:g} {y:g} {x - corner:g} {y:g}H{-x + corner:g}Q{-x:g} {y:g} {-x:g} {y - corner:g}V{-y + corner:g}"
        f"Q{-x:g} {-y:g} {-x + corner:g} {-y:g}Z"
    )
