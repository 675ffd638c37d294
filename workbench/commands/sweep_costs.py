"""`sweep-costs`: what a sweep of many facts would take on GPUs, from passes counted on a sample."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields

from probes.errors import UserError
from probes.facts import Fact
from workbench import pipeline
from workbench.commands.attributing import declare_removal
from workbench.commands.command import Answer, Command
from workbench.commands.questions import declare_model, declare_seed
from workbench.commands.sweeping import declare_measures, read_order
from workbench.commands.terminal import format_table, show_progress
from workbench.engine import Engine
from workbench.sweeps.estimates import SHAPES, Assumptions, count_passes, estimate
from workbench.sweeps.overhead import measure_overhead
from workbench.sweeps.workers import keep_threads

# Samples of facts; the first is counted and warms up, the others are timed.
SAMPLES = 4
UNITS = {
    "peak": "peak of a GPU in TFLOP/s; 989 is an H100's in bfloat16, dense",
    "utilisation": "share of the peak that is reached",
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
        default=64,
        help="shipped facts, evenly spread, whose passes are counted, and so many more whose time is measured "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--overhead",
        metavar="X",
        type=float,
        help="time of a sweep over that of its bare passes (default: measured on the model, median of "
        f"{SAMPLES - 1} samples)",
    )
    for field in fields(Assumptions)[1:]:
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


def draw_samples(facts: Sequence[Fact], size: int) -> list[Sequence[Fact]]:
    """`SAMPLES` samples of `size` facts each, evenly spread; they share facts only where there are not enough."""
    count = min(size, len(facts))
    spread = [facts[place * len(facts) // (count * SAMPLES)] for place in range(count * SAMPLES)]
    return [spread[first::SAMPLES] for first in range(SAMPLES)]


def describe_overhead(options: argparse.Namespace, engine: Engine) -> str:
    """Where the overhead comes from."""
    if options.overhead is not None:
        return "given"
    return f"measured on {engine.model.name}, {options.threads} threads, median of {SAMPLES - 1} samples"


def show_sweep_costs(options: argparse.Namespace) -> Answer:
    """Count the passes of a sample, time a sweep of others, and put both into GPU-hours."""
    for name, some in (("facts", [options.facts]), ("sample", [options.sample]), ("gpus", options.gpus)):
        if any(not 1 <= number <= 10**9 for number in some):
            raise UserError(f"--{name} is {' '.join(map(str, some))}: give whole numbers from 1")
    given = {name: getattr(options, name) for name in UNITS}
    for name, value in {**given, "overhead": options.overhead}.items():
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name} is {value}: give a number above 0")
    order = read_order(options)
    with show_progress() as tick, keep_threads(order.threads):
        engine = pipeline.open_engine(order.settings, tick)
        samples = draw_samples(engine.facts, options.sample)
        tick("counting passes", 0, 1)
        passes, count = count_passes(engine, order, samples[0]), len(samples[0])
        overhead = options.overhead or measure_overhead(engine, order, samples)
    assumed = Assumptions(overhead, **given)
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
        "overhead_measured": options.overhead is None,
        "estimates": [one.to_json() for one in found],
    }
    rows = [[one.model, one.gpus, one.each, one.copies, one.hours, one.gpu_hours] for one in found]
    table = format_table(("model", "GPUs", "GPUs a copy", "copies", "hours", "GPU-hours"), rows)
    text = (
        f"{options.facts:,} facts by {' and '.join(order.methods)} ({', '.join(order.conditions)})\n\n{table}\n\n"
        f"counted on {count} shipped facts, a fact: {passes.forward:.4g} tokens forwards, {passes.backward:.4g} "
        f"backwards, in {passes.rows:.4g} rows\n"
        f"overhead (time of a sweep / that of its bare passes): {overhead:.3g}, {describe_overhead(options, engine)}\n"
        f"assumed: {assumed.peak:g} TFLOP/s x {assumed.utilisation:g}, {assumed.gigabytes:g} GB of which "
        f"{assumed.weights:.0%} for weights in 16 bits, prompts as long as the shipped ones, the overhead that of "
        "larger models too; no hours: the model does not fit"
    )
    return Answer(document, text)


SWEEP_COSTS = Command(
    "sweep-costs",
    "Say what a sweep of many facts would take on GPUs, for models of 1, 8 and 70 billion parameters.",
    "memory-circuits sweep-costs --facts 100000 --gpus 1 8 64 --memory own --text auto",
    declare_sweep_costs,
    show_sweep_costs,
)
