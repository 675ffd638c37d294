"""`paper` and `costs`: published figures beside ours, and what memories cost on a model of your own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.terminal import clean_text, format_table
from workbench.costs import hierarchical, memory3
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
HEADINGS = ("figure", "published", "ours", "unit", "kind", "source", "agrees")


def declare_paper(parser: argparse.ArgumentParser) -> None:
    """Which paper."""
    parser.add_argument("paper", metavar="PAPER", choices=sorted(PAPERS), help=" or ".join(sorted(PAPERS)))


def compare_paper(options: argparse.Namespace) -> Answer:
    """Every figure of a paper that can be computed from its configuration, beside ours."""
    claims = PAPERS[options.paper]()
    rows = [[c.name, c.published, c.ours, c.unit, c.kind, c.source, "yes" if c.ok else f"NO: {c.note}"] for c in claims]
    agreeing = sum(claim.ok for claim in claims)
    lines = [format_table(HEADINGS, rows, width=52), f"{agreeing} of {len(claims)} agree to the digits printed"]
    return Answer({"rows": [claim.to_json() for claim in claims]}, "\n".join([*lines, *list_notes(claims)]))


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
    "Put a paper's figures beside those computed here: sizes, operations, storage, load times.",
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
