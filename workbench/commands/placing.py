"""`place`: where each fact lives, where the cost model would keep it for its usage, and what moving it saves."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

from probes.errors import UserError
from workbench import pipeline
from workbench.commands.command import Answer, Command
from workbench.commands.ledgers import MARGINS
from workbench.commands.questions import DEFAULTS, declare_model, declare_seed, read_settings
from workbench.commands.terminal import clean_text, format_table, show_progress
from workbench.costs.formats import Usage, compare_formats
from workbench.costs.shapes import read_shape
from workbench.library import find_shipped

SHOWN = 40
HEADINGS = ("fact", "usage", "answered", "lives in", "entry", "share", "recommended", "saving, TFlops", "if moved now")


def declare_place(parser: argparse.ArgumentParser) -> None:
    """The facts with their usage, and what is attached."""
    parser.add_argument(
        "facts",
        metavar="FACTS",
        help="a .csv, .jsonl or .parquet table of facts as for `attribute`, with the column usage: how often each will "
        "be read",
    )
    parser.add_argument("--usage", metavar="N", type=float, help="reads of a fact whose row does not say")
    parser.add_argument("--metric", choices=tuple(MARGINS), default=DEFAULTS.metric, help="(default: %(default)s)")
    parser.add_argument(
        "--reference", metavar="N", type=int, default=128, help="tokens of a reference (default: %(default)s)"
    )
    declare_model(parser)
    parser.set_defaults(memory="own", text="auto")
    declare_seed(parser)


def place_facts(options: argparse.Namespace) -> Answer:
    """Measure where the facts live and cost where they could."""
    if options.reference < 1:
        raise UserError(f"--reference is {options.reference}: give 1 token or more")
    settings = read_settings(options)
    from workbench.ledgers.placing import place, read_usage, sum_savings

    path = Path(options.facts).expanduser()
    usage = read_usage(path, options.usage)
    folder = find_shipped() / "model" if settings.model == "shipped" else Path(settings.model)
    shape = read_shape(folder)
    with show_progress() as tick:
        engine = pipeline.open_engine(settings, tick)
        depth = max(1, shape.layers // 2) if engine.memories is None else max(engine.memories.layers) + 1
        layers = depth if engine.memories is None else len(engine.memories.layers)
        kept = Usage(depth, layers).kept if engine.memories is None else engine.memories.slots
        how = replace(Usage(depth, layers), reference=options.reference, kept=kept)
        formats = compare_formats(shape, how)
        placements, refused = place(engine, path, usage, formats, settings, tick=tick)
    low, high = formats.interval
    rows = [
        [
            one.fact,
            one.usage,
            "yes" if one.known else "no",
            one.lives,
            one.entry,
            one.share,
            one.recommended,
            one.saving,
            one.saving_moved,
        ]
        for one in placements[:SHOWN]
    ]
    moves = Counter((one.lives, one.recommended) for one in placements)
    savings = sum_savings(placements)
    lines = [format_table(HEADINGS, rows)]
    if len(placements) > SHOWN:
        lines.append(f"{len(placements) - SHOWN} more facts: --json lists all")
    lines += [f"{count} facts in {lives}, best in {wanted}" for (lives, wanted), count in sorted(moves.items())]
    if unknown := sum(not one.known for one in placements):
        lines.append(
            f"{unknown} facts are not answered with everything attached: what is measured of them is no knowledge"
        )
    lines += [f"not measured: {clean_text(one.fact)}: {clean_text(one.reason)}" for one in refused[:SHOWN]]
    lines.append(f"explicit memory is the cheapest from {low:.4g} to {high:.6g} reads")
    lines.append(
        f"saving where moving saves: {savings['saving']:.4g} TFlops written anew, {savings['saving_moved']:.4g} TFlops "
        "if what is there stays paid for"
    )
    document = {
        "unit": "TFlops",
        "interval": [low, high],
        "facts": [one.to_json() for one in placements],
        "not_measured": [{"fact": one.fact, "reason": one.reason} for one in refused],
        "savings": savings,
    }
    return Answer(document, "\n".join(lines))


PLACE = Command(
    "place",
    "Say where each fact lives, where the cost model would keep it for its usage, and what moving it saves.",
    "memory-circuits place facts.csv --usage 1000",
    declare_place,
    place_facts,
)
