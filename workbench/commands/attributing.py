"""`attribute`: ledgers of a whole table of facts, as one table of Parquet parts that can be resumed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from probes.errors import UserError
from workbench import pipeline
from workbench.commands.command import Answer, Command
from workbench.commands.ledgers import WAYS, check_options, declare_ledgers
from workbench.commands.questions import declare_model, declare_seed, read_settings
from workbench.commands.terminal import clean_text, format_pairs, show_progress


def declare_attribute(parser: argparse.ArgumentParser) -> None:
    """The facts, where the table goes, and what is attached."""
    parser.add_argument(
        "facts",
        metavar="FACTS",
        help="a .csv, .jsonl or .parquet table: ids of shipped facts (column id), or id, subject, relation, object, "
        "prompt, answer of your own",
    )
    parser.add_argument(
        "--out", metavar="TABLE", required=True, help="folder of the table; one that was stopped goes on"
    )
    declare_model(parser)
    declare_ledgers(parser)
    parser.set_defaults(top=1000, at_least=0.01)
    declare_removal(parser)
    parser.add_argument(
        "--chunk", metavar="N", type=int, default=32, help="facts that run together (default: %(default)s)"
    )
    declare_seed(parser)


def declare_removal(parser: argparse.ArgumentParser) -> None:
    """One way of removing explicit memories."""
    parser.add_argument(
        "--removal",
        choices=WAYS,
        default=WAYS[0],
        help="how an explicit memory that is off is removed: out of the softmax (renormalised), or read as zero with "
        "its attention kept (contribution) (default: %(default)s)",
    )


def attribute_facts(options: argparse.Namespace) -> Answer:
    """Measure all facts of the table."""
    check_options(options)
    if not 1 <= options.chunk <= 4096:
        raise UserError(f"--chunk is {options.chunk}: give a whole number from 1 to 4096")
    settings = read_settings(options)
    from workbench.ledgers.bulk import attribute

    with show_progress() as tick:
        engine = pipeline.open_engine(settings, tick)
        found = attribute(
            engine,
            Path(options.facts).expanduser(),
            Path(options.out).expanduser(),
            settings,
            options.removal,
            options.top,
            options.at_least,
            options.chunk,
            tick,
        )
    return Answer({"out": options.out, **found}, describe_counts(found, options.out))


def describe_counts(found: dict[str, Any], out: str) -> str:
    """Counts as text."""
    pairs: list[tuple[str, object]] = [("facts", found["facts"]), ("measured", found["measured"])]
    pairs += [(f"not measured, {clean_text(reason)}", count) for reason, count in found["not_measured"].items()]
    pairs += [("rows", found["rows"]), ("chunks", f"{found['chunks']}, {found['resumed']} there already")]
    return format_pairs([*pairs, ("table", out)])


ATTRIBUTE = Command(
    "attribute",
    "Write the ledgers of many facts as one table: a row a fact and component, resumable.",
    "memory-circuits attribute facts.csv --text auto --out table",
    declare_attribute,
    attribute_facts,
)
