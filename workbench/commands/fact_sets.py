"""Options of commands that look at many facts at once, and how those that are left out are told."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from probes.errors import UserError
from workbench.commands.questions import DEFAULTS, declare_seed
from workbench.commands.terminal import clean_text
from workbench.fact_items import Skipped, build_items, choose_facts, keep_known
from workbench.settings import Settings

if TYPE_CHECKING:
    from circuits.component_effects import Item
    from probes.facts import Fact
    from probes.progress import Tick
    from workbench.engine import Engine


def declare_facts(parser: argparse.ArgumentParser, limit: int, wordings: int) -> None:
    """Which facts in how many wordings, of which model with which memories."""
    parser.add_argument("--fact", metavar="ID", action="append", default=[], help="a shipped fact; repeatable")
    parser.add_argument(
        "--relation",
        metavar="NAME",
        action="append",
        default=[],
        help="facts of this relation; repeatable; all if none",
    )
    parser.add_argument("--split", metavar="NAME", default="", help="only facts of this split")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=limit, help="facts of each relation at most (default: %(default)s)"
    )
    parser.add_argument(
        "--wordings", metavar="N", type=int, default=wordings, help="prompts of a fact at most (default: %(default)s)"
    )
    for name in ("model", "bank", "memory", "text", "device"):
        parser.add_argument(
            f"--{name}",
            metavar="NAME|FOLDER",
            default=getattr(DEFAULTS, name),
            help="as in trace (default: %(default)s)",
        )
    declare_seed(parser)


def read_settings(options: argparse.Namespace) -> Settings:
    """Settings of the options. Raises UserError for counts below 1."""
    for name in ("limit", "wordings"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}: give 1 or more")
    names = ("model", "bank", "memory", "text", "device", "seed")
    return Settings(**{name: getattr(options, name) for name in names})


def gather_items(
    engine: Engine, options: argparse.Namespace, settings: Settings
) -> tuple[list[Fact], list[Item], list[Skipped]]:
    """The chosen facts, what is run of them, and which were left out. Raises UserError when none is left."""
    facts = choose_facts(engine.facts, options.fact, options.relation, options.split, options.limit, options.seed)
    items, skipped = build_items(engine, facts, settings, options.wordings)
    if not items:
        raise UserError(f"no fact is left to look at: {describe_skipped(skipped)}")
    return facts, items, skipped


def gather_known(
    engine: Engine, options: argparse.Namespace, settings: Settings, tick: Tick
) -> tuple[list[Item], list[Skipped]]:
    """What is run of the chosen facts that the model answers in at least one wording, and which were left out.

    Raises UserError when none is left.
    """
    from circuits.component_effects import measure_effects

    _, items, skipped = gather_items(engine, options, settings)
    kept, unknown = keep_known(items, measure_effects(engine.model, items, tick).known.tolist())
    skipped += unknown
    if not kept:
        raise UserError(f"no fact is left to look at: {describe_skipped(skipped)}")
    return [items[place] for place in kept], skipped


def describe_skipped(skipped: Sequence[Skipped]) -> str:
    """How many facts were left out for each reason, with one of them; empty when there are none."""
    counts = Counter(one.reason for one in skipped)
    first = {one.reason: one.fact for one in reversed(skipped)}
    lines = [f"left out {count}: {reason} ({first[reason]})" for reason, count in counts.most_common()]
    return clean_text("; ".join(lines))


def tell_skipped(skipped: Sequence[Skipped]) -> str:
    """A line on the facts that were left out, to put behind an answer's first; nothing where there are none."""
    return f"\n{describe_skipped(skipped)}" if skipped else ""
