"""Cost against length, batch size and layers, as a table and a plot: `python benchmarks/scaling.py`.

Random weights, logit difference, positions summed. One of the three is varied at a time, from 32 tokens, one pair and
the shape's own layers. *Bare* are the passes that EAP cannot do without, as in `benchmarks/attribution.py`.
`--write` puts the table into docs/benchmarks.md and the plot into docs/images/scaling.svg.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from options import describe, read_options
from plot import Line, Panel, draw_panels
from shapes import LENGTH, build_config, build_shape, draw_inputs, format_table, measure, run_backward, run_forward

from circuits.attribution import attribute
from circuits.problem import Inputs, pose_problem
from probes.models import Model
from probes.progress import quiet
from workbench.documents import place_tables
from workbench.storage import write_file

DOCS = Path(__file__).parents[1] / "docs"
AXES = ("tokens", "batch", "layers")
Row = dict[str, object]


def compare(model: Model, inputs: Inputs, repeats: int, clock: str) -> Row:
    """Seconds of the bare passes and of EAP, and their ratio."""

    def run_bare() -> None:
        run_forward(model, inputs.counterfactual)
        run_backward(model, inputs.clean)

    def run_eap() -> None:
        attribute(pose_problem(model, inputs, summed=True, differentiable=True), quiet)

    seconds = measure({"bare": run_bare, "EAP": run_eap}, repeats, clock)
    ratio = seconds["EAP"] / seconds["bare"]
    return {"bare, s": seconds["bare"], "EAP, s": seconds["EAP"], "EAP / bare": ratio}


def list_settings(options: argparse.Namespace, own_layers: int) -> Iterator[tuple[str, int, int, int]]:
    """What is varied, with tokens, batch size and layers; a model's settings stand together."""
    for length in options.lengths:
        yield "tokens", length, 1, own_layers
    for batch in options.batches:
        yield "batch", LENGTH, batch, own_layers
    for layers in options.layers:
        yield "layers", LENGTH, 1, layers


def measure_shape(options: argparse.Namespace, shape: str, folder: Path) -> Iterator[Row]:
    """Rows of one shape."""
    model: Model | None = None
    config = build_config(shape)
    for varied, length, batch, layers in list_settings(options, config.num_hidden_layers):
        if model is None or model.layers != layers:
            model = build_shape(shape, folder / f"{varied}-{layers}", options.dtype, options.device, layers)
        seconds = compare(model, draw_inputs(model, batch, length), options.repeats, options.clock)
        row = {"shape": shape, "varied": varied, "tokens": length, "batch": batch, "layers": layers} | seconds
        print(row, file=sys.stderr, flush=True)
        yield row


def draw(rows: list[Row]) -> str:
    """The plot: a panel for each thing that is varied, with two lines a shape."""
    panels = []
    for axis in AXES:
        lines = [
            Line(f"{shape}, {side}", [(float(str(row[axis])), float(str(row[f"{side}, s"]))) for row in chosen])
            for shape in dict.fromkeys(str(row["shape"]) for row in rows)
            for side in ("bare", "EAP")
            if (chosen := [row for row in rows if (row["shape"], row["varied"]) == (shape, axis)])
        ]
        panels.append(Panel(axis, lines))
    return draw_panels("Seconds of EAP over all edges beside the bare passes", panels)


def main() -> None:
    """Print the table; with --write put it and the plot into the documents."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128, 256, 512, 1024, 2048])
    own.add_argument("--layers", type=int, nargs="+", default=[3, 6, 12, 24])
    own.add_argument("--write", action="store_true", help="write table and plot into docs/")
    options = read_options(__doc__, own=own)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            rows += measure_shape(options, shape, Path(temporary) / shape)
    text = f"{describe(options)}\n{format_table(rows)}"
    print(text)
    if options.write:
        image = "![Seconds of EAP and of the bare passes against tokens, batch size and layers](images/scaling.svg)"
        place_tables(DOCS / "benchmarks.md", f"{text}\n\n{image}")
        write_file(DOCS / "images" / "scaling.svg", draw(rows).encode())


if __name__ == "__main__":
    main()
