"""`paper` and `costs`: published figures and directions beside ours, and what memories cost on a model of your own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.demo import find_demo
from workbench.commands.terminal import clean_text, format_table
from workbench.costs import hierarchical, hierarchical_directions, memory3, memory3_directions
from workbench.costs.directions import Direction
from workbench.costs.formats import (
    Cost,
    Usage,
    compare_formats,
    read_explicit,
    read_text,
    write_explicit,
    write_parameters,
)
from workbench.costs.published import Claim, list_notes
from workbench.costs.shapes import Shape, read_shape
from workbench.library import find_shipped

PAPERS: dict[str, Callable[[], list[Claim]]] = {
    "memory3": memory3.list_claims,
    "hierarchical": hierarchical.list_claims,
}
DIRECTIONS: dict[str, Callable[[Path], list[Direction]]] = {
    "memory3": memory3_directions.list_directions,
    "hierarchical": hierarchical_directions.list_directions,
}
HEADINGS = ("figure", "published", "ours", "unit", "kind", "source", "agrees")
DIRECTION_HEADINGS = ("direction", "published", "ours", "95 %", "unit", "n", "source", "shown")


def declare_paper(parser: argparse.ArgumentParser) -> None:
    """Which paper."""
    parser.add_argument("paper", metavar="PAPER", choices=sorted(PAPERS), help=" or ".join(sorted(PAPERS)))
    parser.add_argument("--demo", metavar="FOLDER", help="demo model whose directions are read; left out, the shipped")


def compare_paper(options: argparse.Namespace) -> Answer:
    """Every figure that a paper's configuration decides, beside ours, and every direction measured on a demo model."""
    claims = PAPERS[options.paper]()
    rows = [[c.name, c.published, c.ours, c.unit, c.kind, c.source, "yes" if c.ok else f"NO: {c.note}"] for c in claims]
    agreeing = sum(claim.ok for claim in claims)
    lines = [format_table(HEADINGS, rows, width=52), f"{agreeing} of {len(claims)} agree to the digits printed"]
    found = DIRECTIONS[options.paper](find_demo(options.demo))
    text = "\n".join([*lines, *list_notes(claims), "", format_directions(found)])
    return Answer({"rows": [*(claim.to_json() for claim in claims), *(one.to_json() for one in found)]}, text)


def format_directions(found: list[Direction]) -> str:
    """The table of directions with what a reader should know of single rows."""
    if not found:
        return "no direction was measured: `memory-circuits demo evaluate FOLDER --card FILE` measures them"
    rows = [
        [d.name, d.published, d.ours, f"{d.low:g} to {d.high:g}", d.unit, f"{d.n} {d.of}", d.source, mark_direction(d)]
        for d in found
    ]
    shown = sum(direction.ok for direction in found)
    notes = list(dict.fromkeys(direction.note for direction in found if direction.note))
    table = format_table(DIRECTION_HEADINGS, rows, width=64)
    return "\n".join([table, f"{shown} of {len(found)} directions shown by the demo model", *notes])


def mark_direction(direction: Direction) -> str:
    """Whether a direction is shown, in a word."""
    return "yes" if direction.ok else "NO"


def declare_costs(parser: argparse.ArgumentParser) -> None:
    """The model and how its memories are used."""
    parser.add_argument("--model", metavar="FOLDER", help="folder of a checkpoint; left out, the shipped model")
    parser.add_argument("--memory-layers", metavar="N", type=int, help="first N layers keep memories; left out, half")
    for name, value, text in (
        ("reference", 128, "tokens of a reference"),
        ("kept", 8, "tokens kept a key-value head"),
        ("chunk", 64, "tokens that read one set of memories"),
        ("training", 2048, "tokens of a training sequence"),
    ):
        parser.add_argument(f"--{name}", metavar="N", type=int, default=value, help=f"{text} (default: %(default)s)")


def show_costs(options: argparse.Namespace) -> Answer:
    """Operations to write and read each format on one model, term by term, and where each is the cheapest."""
    folder = Path(options.model) if options.model else find_shipped() / "model"
    shape = read_shape(folder)
    usage = check_usage(options, shape)
    formats = compare_formats(shape, usage)
    costs: dict[str, Cost] = {
        "write into parameters": write_parameters(shape, usage),
        "write explicit memory": write_explicit(shape, usage),
        "read explicit memory": read_explicit(shape, usage),
        "read text": read_text(shape, usage),
    }
    rows = [
        [name, term, value]
        for name, cost in costs.items()
        for term, value in [*cost.terms.items(), ("all", cost.total)]
    ]
    low, high = formats.interval
    text = format_table(("cost", "of it", "TFlops"), rows)
    text += (
        f"\nexplicit memory is the cheapest from {low:.4g} to {high:.6g} reads of a reference ({clean_text(folder)})"
    )
    document = {
        "model": str(folder),
        "unit": "TFlops",
        "costs": {name: {"terms": cost.terms, "total": cost.total} for name, cost in costs.items()},
        "interval": [low, high],
    }
    return Answer(document, text)


def check_usage(options: argparse.Namespace, shape: Shape) -> Usage:
    """Usage from the options. Raises `UserError` for a length below 1, or more memory layers than there are."""
    layers = shape.layers // 2 if options.memory_layers is None else options.memory_layers
    if not 1 <= layers <= shape.layers:
        raise UserError(f"--memory-layers is {layers}: the model has 1 to {shape.layers}")
    for name in ("reference", "kept", "chunk", "training"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}: give 1 token or more")
    return Usage(layers, layers, options.reference, options.kept, options.chunk, options.training)


PAPER = Command(
    "paper",
    "Put a paper's figures and directions beside ours: sizes, operations, load times, what the demo model shows.",
    "memory-circuits paper memory3",
    declare_paper,
    compare_paper,
)

COSTS = Command(
    "costs",
    "Say what writing and reading text, explicit memory and parameters costs on a model.",
    "memory-circuits costs --model FOLDER",
    declare_costs,
    show_costs,
)
