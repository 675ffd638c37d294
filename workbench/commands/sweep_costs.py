"""`sweep-costs`: what a sweep of many facts would take on GPUs, from passes counted on a sample."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields

from probes.errors import UserError
from workbench import pipeline
from workbench.commands.attributing import declare_removal
from workbench.commands.command import Answer, Command
from workbench.commands.questions import declare_model, declare_seed
from workbench.commands.sweeping import declare_measures, read_order
from workbench.commands.terminal import format_table, show_progress
from workbench.sweeps.estimates import SHAPES, Assumptions, count_passes, estimate

UNITS = {
    "peak": "peak of a GPU in TFLOP/s; 989 is an H100's in bfloat16, dense",
    "utilisation": "share of the peak that is reached",
    "overhead": "wall time over that of the bare passes; `python benchmarks/sweep.py` measures it",
    "gigabytes": "memory of a GPU in GB",
    "weights": "share of a GPU's memory that weights may take",
}


def declare_sweep_costs(parser: argparse.ArgumentParser) -> None:
    """How many facts on how many GPUs, what is measured, and what is assumed."""
    parser.add_argument("--facts", metavar="N", type=int, default=100_000, help="facts (default: %(default)s)")
    parser.add_argument(
        "--gpus", metavar="N", type=int, nargs="+", default=[1, 8, 64], help="numbers of GPUs (default: 1 8 64)"
    )
    parser.add_argument(
        "--sample",
        metavar="N",
        type=int,
        default=32,
        help="shipped facts, evenly spread, whose passes are counted (default: %(default)s)",
    )
    for field in fields(Assumptions):
        parser.add_argument(
            f"--{field.name}",
            metavar="X",
            type=float,
            default=field.default,
            help=f"{UNITS[field.name]} (default: %(default)s)",
        )
    declare_measures(parser)
    declare_model(parser)
    declare_removal(parser)
    parser.set_defaults(threads=1)
    declare_seed(parser)


def show_sweep_costs(options: argparse.Namespace) -> Answer:
    """Count the passes of a sample and put them into GPU-hours."""
    for name, some in (("facts", [options.facts]), ("sample", [options.sample]), ("gpus", options.gpus)):
        if any(not 1 <= number <= 10**9 for number in some):
            raise UserError(f"--{name} is {' '.join(map(str, some))}: give whole numbers from 1")
    assumed = Assumptions(**{field.name: getattr(options, field.name) for field in fields(Assumptions)})
    for name, value in asdict(assumed).items():
        if not 0 < value < float("inf"):
            raise UserError(f"--{name} is {value}: give a number above 0")
    order = read_order(options)
    with show_progress() as tick:
        engine = pipeline.open_engine(order.settings, tick)
        count = min(options.sample, len(engine.facts))
        chosen = [engine.facts[place * len(engine.facts) // count] for place in range(count)]
        passes = count_passes(engine, order, chosen)
    found = [
        estimate(name, shape, passes, options.facts, gpus, assumed)
        for name, shape in SHAPES.items()
        for gpus in sorted(set(options.gpus))
    ]
    document = {
        "facts": options.facts,
        "sample": count,
        "methods": list(order.methods),
        "conditions": list(order.conditions),
        "passes": asdict(passes),
        "assumed": asdict(assumed),
        "estimates": [one.to_json() for one in found],
    }
    rows = [[one.model, one.gpus, one.each, one.copies, one.hours, one.gpu_hours] for one in found]
    table = format_table(("model", "GPUs", "GPUs a copy", "copies", "hours", "GPU-hours"), rows)
    text = (
        f"{options.facts:,} facts by {' and '.join(order.methods)} ({', '.join(order.conditions)})\n\n{table}\n\n"
        f"counted on {count} shipped facts, a fact: {passes.forward:.4g} tokens forwards, {passes.backward:.4g} "
        f"backwards, in {passes.rows:.4g} rows\nassumed: {assumed.peak:g} TFLOP/s x {assumed.utilisation:g}, overhead "
        f"{assumed.overhead:g}, {assumed.gigabytes:g} GB of which {assumed.weights:.0%} for weights in 16 bits, "
        "prompts as long as the shipped ones; no hours: the model does not fit"
    )
    return Answer(document, text)


SWEEP_COSTS = Command(
    "sweep-costs",
    "Say what a sweep of many facts would take on GPUs, for models of 1, 8 and 70 billion parameters.",
    "memory-circuits sweep-costs --facts 100000 --gpus 1 8 64 --memory own --text auto",
    declare_sweep_costs,
    show_sweep_costs,
)
