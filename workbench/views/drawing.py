"""A drawing as values: what is where, in pixels, y downwards. Screen and paper are both drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from circuits.graph import Kind
from workbench.views.curation import Curation


@dataclass(frozen=True, slots=True)
class View:
    """What of a circuit is shown and under which names.

    `edges` keeps that many of the strongest edges (None: all), `selected` is a node id. `output` names the logits
    node, `blocks` and `levels` the sources in the memory lane (explicit-memory blocks and bank levels by index).
    `curation` is what a reader made of the graph. `labels` and `boxes` are filled in by the layout: what is written on
    nodes instead of their own names, and which of them stand for a supernode.
    """

    edges: int | None = None
    selected: str = ""
    output: str = "output"
    blocks: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    curation: Curation = field(default_factory=Curation)
    labels: Mapping[str, str] = field(default_factory=dict)
    boxes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Glyph:
    """A node, a supernode of so many `members`, or a memory in its lane (`memory:…`, not selectable).

    `x`, `y` are its centre, `title` says it all. A pinned one has a dashed ring; `mark` is the number of its note.
    """

    id: str
    kind: Kind
    shape: str
    x: float
    y: float
    width: float
    height: float
    label: str
    title: str
    fill: str
    ink: str
    stroke: str
    score: float
    members: int = 0
    pinned: bool = False
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """An edge, a move of attention (`move`) or a memory's connector (`memory`), by `role`; `path` is an SVG path.

    `dash` is the pattern of an edge that is not drawn through, as SVG writes it; empty: drawn through.
    """

    source: str
    target: str
    role: str
    path: str
    colour: str
    width: float
    title: str
    dash: str = ""

    @property
    def dashed(self) -> bool:
        """Whether the line is no residual-stream edge."""
        return self.role in ("move", "memory")


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text; `anchor` is start, middle or end, `angle` in degrees about its own point."""

    x: float
    y: float
    text: str
    size: float
    colour: str
    anchor: str = "middle"
    angle: float = 0.0
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """A background rectangle: a layer or a memory lane."""

    x: float
    y: float
    width: float
    height: float
    fill: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished picture. `shown` edges of `kept` in the circuit, of `total` in the whole graph.

    `notes` are lines to stand below it, each with the number that its node bears; `legend` are further entries of the
    legend: shape (`line` or a pattern of dashes), colour and caption.
    """

    width: float
    height: float
    bands: tuple[Band, ...]
    lines: tuple[Line, ...]
    glyphs: tuple[Glyph, ...]
    texts: tuple[Text, ...]
    selected: str
    shown: int
    kept: int
    total: int
    caption: str
    notes: tuple[str, ...] = ()
    legend: tuple[tuple[str, str, str], ...] = ()
