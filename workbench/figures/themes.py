"""Palettes of figures: as on screen, for colour-blind readers, for black-and-white print."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from workbench.figures.scene import Label, Mark, Scene
from workbench.views.style import NEGATIVE, POSITIVE, STYLES

BLACK = "#1f2933"


@dataclass(frozen=True, slots=True)
class Theme:
    """A palette: `colours` maps those of the screen, and with `grey` all others become their brightness.

    `struck` strikes negative squares through, so that no sign rests on colour alone; lines that
    hurt are dashed anyway.
    `signed` are the colours of squares from the lowest value over 0 to the highest, `share` those from 0 to 1.
    """

    label: str
    colours: dict[str, str] = field(default_factory=dict)
    grey: bool = False
    struck: bool = False
    signed: tuple[str, str, str] = (NEGATIVE, "#ffffff", POSITIVE)
    share: tuple[str, str] = ("#ffffff", "#174a80")


# Okabe and Ito's palette (Color Universal Design, 2008) for what bears meaning.
_OKABE = {
    POSITIVE: "#0072b2",
    NEGATIVE: "#d55e00",
    "#0f8a6a": "#009e73",
    "#e9b949": "#f0e442",
    "#7a4fa3": "#cc79a7",
    "#9a6bc0": "#e3b0cd",
}
THEMES = {
    "screen": Theme("as on screen: blue helps, orange-red hurts, in dashes"),
    "colour-blind": Theme("Okabe and Ito's colours", _OKABE, False, True, ("#d55e00", "#ffffff", "#0072b2")),
    "grey": Theme(
        "shades of grey",
        {POSITIVE: BLACK, NEGATIVE: "#6b6b6b"},
        True,
        True,
        ("#404040", "#ffffff", "#404040"),
        ("#ffffff", "#303030"),
    ),
}
assert all(colour in {style.fill for style in STYLES.values()} for colour in list(_OKABE)[2:])


def mix_colours(first: str, second: str, share: float) -> str:
    """A colour between two, `share` of the second."""
    parts = (round(int(first[i : i + 2], 16) * (1 - share) + int(second[i : i + 2], 16) * share) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in parts)


def fade(colour: str, theme: Theme) -> str:
    """A colour of the screen in a theme; an empty one stays empty."""
    lower = colour.lower()
    if not lower or lower in theme.colours or not theme.grey:
        return theme.colours.get(lower, lower)
    red, green, blue = (int(lower[i : i + 2], 16) for i in (1, 3, 5))
    # Brightness of ITU-R BT.601.
    level = round(0.299 * red + 0.587 * green + 0.114 * blue)
    return f"#{level:02x}{level:02x}{level:02x}"


def recolour(scene: Scene, theme: Theme) -> Scene:
    """A scene drawn in screen colours, in a theme."""
    return replace(scene, marks=tuple(recolour_mark(mark, theme) for mark in scene.marks))


def recolour_mark(mark: Mark, theme: Theme) -> Mark:
    """One mark in a theme."""
    if isinstance(mark, Label):
        return replace(mark, colour=fade(mark.colour, theme))
    return replace(mark, fill=fade(mark.fill, theme), stroke=fade(mark.stroke, theme))
