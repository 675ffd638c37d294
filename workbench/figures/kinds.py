"""Kinds of figures that `memory-circuits figure` draws: what each takes, its scene and its caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circuits.graph import Kind, parse_component
from probes.errors import UserError
from probes.parquet_tables import read_table
from probes.progress import Tick, quiet
from probes.strict_json import parse_json
from workbench.circuit_files import Traced
from workbench.figures.axes import COLUMNS
from workbench.figures.captions import (
    LENS,
    RECORDED,
    caption_ledger,
    caption_specificity,
    describe_circuit,
    name_hashes,
    write_caption,
)
from workbench.figures.scene import Scene, shrink
from workbench.figures.themes import THEMES, Theme, recolour
from workbench.runs import Run
from workbench.views.drawing import View
from workbench.views.text import show_line


@dataclass(frozen=True, slots=True)
class Wish:
    """What is drawn how: column width and palette by name, edges of a circuit, head of a pattern, fact of a ledger,
    saved view of a circuit.

    `command` draws the same figure again and stands in the caption.
    """

    columns: int = 2
    theme: str = "screen"
    edges: int | None = None
    head: str = ""
    fact: str = ""
    view: str = ""
    command: str = ""

    @property
    def width(self) -> float:
        """Width of the figure in points."""
        return COLUMNS[self.columns]

    @property
    def palette(self) -> Theme:
        """Its colours."""
        return THEMES[self.theme]


@dataclass(frozen=True, slots=True)
class Figure:
    """A finished figure: what is drawn, and the text under it."""

    scene: Scene
    caption: str


@dataclass(frozen=True, slots=True)
class FigureKind:
    """One kind of figure. `takes` says what its arguments are, `count` how many.

    `torch` marks those that run the model again.
    """

    label: str
    takes: str
    count: int
    draw: Callable[[Sequence[Any], Wish, Tick], Figure]
    torch: bool = False


def draw_figure(kind: str, sources: Sequence[Any], wish: Wish, tick: Tick = quiet) -> Figure:
    """A figure of opened sources, each a path with its run or circuit, in its palette."""
    found = KINDS[kind].draw(sources, wish, tick)
    return Figure(recolour(shrink(found.scene, wish.width), wish.palette), found.caption)


def require_run(source: Traced) -> Run:
    """The source as a run. Raises UserError for a circuit file, which holds less."""
    if not isinstance(source, Run):
        raise UserError(
            "this figure needs a whole run: a circuit file has no scores of the whole graph and no attention"
        )
    return source


def figure_circuit(sources: Sequence[Any], wish: Wish, tick: Tick) -> Figure:
    """The circuit's strongest edges, or as a saved view shows them."""
    from workbench.figures.circuits import draw_circuit
    from workbench.views.curation import describe

    path, source = sources[0]
    view = open_view(path, source, wish)
    shown = len(source.circuit.edges) if view.edges is None else min(view.edges, len(source.circuit.edges))
    arranged = describe(view.curation)
    what = describe_circuit(source, shown) + (f" {arranged}." if arranged else "")
    return Figure(draw_circuit(source, wish.width, view), write_caption(what, source, wish.command))


def open_view(path: Path, source: Traced, wish: Wish) -> View:
    """The view that is wished for: a saved one of the run, or its strongest edges.

    Raises UserError when the run has no such saved view.
    """
    from workbench.view_files import load_view
    from workbench.views.svg import view_run

    if not wish.view:
        return view_run(source, wish.edges)
    saved, _ = load_view(path, wish.view, source.circuit)
    return view_run(source, wish.edges or saved.edges, saved.selected, saved.curation)


def figure_difference(sources: Sequence[Any], wish: Wish, tick: Tick) -> Figure:
    """Edges of either circuit by how much stronger they are in the first."""
    from workbench.figures.circuits import draw_difference

    first, second = (require_run(source) for _, source in sources)
    scene, found = draw_difference(first, second, wish.width, wish.edges)
    counts = [f"{found.count(where)} {word}" for where, word in WHERE.items()]
    warnings = "".join(f" Note: {warning}." for warning in found.warnings)
    what = (
        f"Edge scores of the second run minus the first's, of edges in either circuit: {', '.join(counts)} (Jaccard "
        f"{found.jaccard:.2f}).{warnings} Second: {show_line(second.title)}; {name_hashes(second.about)}"
    )
    return Figure(scene, write_caption(what, first, wish.command))


def figure_map(sources: Sequence[Any], wish: Wish, tick: Tick) -> Figure:
    """Layer by head map."""
    from workbench.figures.maps import draw_map

    run = require_run(sources[0][1])
    what = "Node scores summed over positions: how much the metric drops when that component is ablated."
    return Figure(draw_map(run, wish.width, wish.palette), write_caption(what, run, wish.command))


def choose_head(run: Run, name: str) -> tuple[int, int]:
    """Layer and head of a name such as a3.h1; left out, of the circuit's strongest head.

    Raises UserError when the model has no such head.
    """
    plan = run.circuit.plan
    heads = [node for node in run.circuit.nodes if node.component.kind in (Kind.HEAD, Kind.EXPLICIT)]
    if not name and heads:
        component = max(heads, key=lambda node: (abs(node.score), node.id)).component
    elif not name:
        raise UserError("the circuit has no head: name one, --head a3.h1")
    else:
        component = parse_component(name.split("@")[0], plan.layers)
    if (
        component.kind not in (Kind.HEAD, Kind.EXPLICIT)
        or component.layer >= plan.layers
        or component.head >= plan.heads
    ):
        raise UserError(f"{name[:80]!r} is no head of this model: it has a0.h0 to a{plan.layers - 1}.h{plan.heads - 1}")
    return component.layer, component.head


def figure_attention(sources: Sequence[Any], wish: Wish, tick: Tick) -> Figure:
    """Attention of one head with its memories."""
    from workbench.figures.maps import draw_attention

    run = require_run(sources[0][1])
    if not run.recording.context.size:
        raise UserError("a run over several pairs has no attention pattern: trace one question")
    layer, head = choose_head(run, wish.head)
    what = (
        f"Attention of head {head} of layer {layer} on the clean prompt: one softmax over explicit memories (slots of "
        "a memory summed) and context."
    )
    scene = draw_attention(run, layer, head, wish.width, wish.palette)
    return Figure(
        scene,
        write_caption(what, run, wish.command, RECORDED),
    )


def figure_lens(sources: Sequence[Any], wish: Wish, tick: Tick) -> Figure:
    """Logit lens at every position, with the run's memories attached; runs the model again."""
    from workbench.figures.maps import draw_lens
    from workbench.lens_tables import read_run

    run = require_run(sources[0][1])
    table = read_run(run, tick)
    what = "Logit lens: the best next token where the stream before each layer is unembedded, by its probability."
    scene = draw_lens(table.best, np.array(table.probability), table.tokens, wish.width, wish.palette, "Logit lens")
    return Figure(
        scene,
        write_caption(what, run, wish.command, LENS),
    )


def figure_ledger(sources: Sequence[Any], wish: Wish, tick: Tick) -> Figure:
    """Waterfall of one ledger."""
    from workbench.figures.charts import draw_waterfall
    from workbench.ledgers.table import load_ledgers

    path = find_file(sources[0][0], "ledger.json", "memory-circuits ledger --run RUN")
    ledgers = [one for one in load_ledgers(path) if not wish.fact or one.fact == wish.fact]
    if not ledgers:
        raise UserError(f"{path} has no ledger of {wish.fact[:80]!r}")
    ledger = ledgers[0]
    about = parse_json(path.read_bytes())
    return Figure(draw_waterfall(ledger, wish.width), caption_ledger(ledger, about, wish.command))


def figure_faithfulness(sources: Sequence[Any], wish: Wish, tick: Tick) -> Figure:
    """Faithfulness curves that `quality` measured."""
    from workbench.figures.charts import draw_faithfulness
    from workbench.quality import load_quality

    path, run = sources[0][0], require_run(sources[0][1])
    curves = (load_quality(path) or {}).get("curves")
    if curves is None:
        raise UserError(f"{path} has no curves: measure them, memory-circuits quality {path.name} --part curves")
    what = (
        "Normalised faithfulness of circuits by the share of edges that they keep: 0 as everything ablated, 1 (dotted) "
        f"as the whole model; random circuits are the mean of {curves['draws']}."
    )
    return Figure(draw_faithfulness(curves, wish.width), write_caption(what, run, wish.command))


def figure_specificity(sources: Sequence[Any], wish: Wish, tick: Tick) -> Figure:
    """Scatter of a table that `specificity --table` wrote."""
    from pyarrow import ArrowException

    from workbench.figures.charts import draw_specificity

    path = sources[0][0]
    try:
        table = read_table(path)
        about = parse_json((table.schema.metadata or {}).get(b"memory-circuits", b"{}"))
        rows = table.to_pylist()
        scene = draw_specificity(rows, wish.width)
    except (OSError, ArrowException, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is not a table of `memory-circuits specificity --table FILE.parquet` ({str(error)[:120]})"
        ) from None
    return Figure(scene, caption_specificity(about, len(rows), wish.command))


def figure_costs(sources: Sequence[Any], wish: Wish, tick: Tick) -> Figure:
    """Cost of each format by reads, on the run's model."""
    from workbench.costs.formats import Usage, compare_formats
    from workbench.costs.shapes import read_shape
    from workbench.figures.charts import draw_costs
    from workbench.library import find_shipped

    source = sources[0][1]
    settings = source.about.get("settings") or {}
    model = str(settings.get("model", "shipped"))
    shape = read_shape(find_shipped() / "model" if model == "shipped" else Path(model))
    usage = Usage(max(1, shape.layers // 2), max(1, shape.layers // 2))
    formats = compare_formats(shape, usage)
    low, high = formats.interval
    words = (
        f"Operations of writing a reference of {usage.reference} tokens once and reading it, by expected reads; "
        f"explicit memory ({usage.kept} kept tokens, {usage.memory_layers} memory layers) is the cheapest from "
        f"{low:.4g} to {high:.6g} reads. n = 1 model shape. Method: formulas of Yang et al. 2024, section 2.3 and "
        "appendix A; ablation: none; metric: operations, in TFlops.",
        name_hashes(source.about),
        f"Drawn by: {wish.command}",
    )
    return Figure(draw_costs(formats, wish.width), " ".join(words))


def find_file(place: Path, name: str, command: str) -> Path:
    """A file that was named, or that lies in a run's folder. Raises UserError with the command that makes it."""
    path = place / name if place.is_dir() else place
    if not path.is_file():
        raise UserError(f"{place} has no {name}: make it with {command}")
    return path


KINDS: dict[str, FigureKind] = {
    "circuit": FigureKind("a circuit", "RUN or circuit file", 1, figure_circuit),
    "difference": FigureKind("what two circuits do not share", "RUN RUN", 2, figure_difference),
    "map": FigureKind("layer by head map of node scores", "RUN", 1, figure_map),
    "lens": FigureKind("logit lens at every position (runs the model)", "RUN", 1, figure_lens, torch=True),
    "attention": FigureKind("attention of a head with its memories", "RUN", 1, figure_attention),
    "ledger": FigureKind("waterfall of an answer's ledger", "RUN with ledger.json, or ledger file", 1, figure_ledger),
    "faithfulness": FigureKind("faithfulness by size", "RUN with quality.json", 1, figure_faithfulness),
    "specificity": FigureKind("specificity scatter", "table of `specificity --table`", 1, figure_specificity),
    "costs": FigureKind("cost of each memory format by reads", "RUN", 1, figure_costs),
}
# Where an edge of a difference is found, in words.
WHERE = {"both": "in both", "first alone": "in the first alone", "second alone": "in the second alone"}
# Kinds whose argument may be a file that is no run.
FILES = ("ledger", "specificity")
