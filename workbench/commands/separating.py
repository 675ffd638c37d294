"""`separability`: are facts separable and imitable, as Memory^3 defines it, judged by a model that should lack them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.facts import Fact, find_fact
from workbench.commands.command import Answer, Command
from workbench.commands.facts import match_value
from workbench.commands.questions import declare_model, read_settings
from workbench.commands.terminal import format_table, show_progress

if TYPE_CHECKING:
    from circuits.separability import Verdict
    from workbench.engine import Engine
    from workbench.settings import Settings

REMARK = (
    "Definitions 6 and 7 ask for some model that lacks the fact; this verdict is about the model at hand. Where it\n"
    "does not lack the fact nothing follows (undecided), and a fact that it cannot imitate may be imitable for another."
)
ATTACHED = ("none", "generic", "fetched")


def declare_separability(parser: argparse.ArgumentParser) -> None:
    """The facts, the model, and what is attached to it."""
    parser.add_argument("--fact", metavar="ID", action="append", default=[], help="a shipped fact; repeatable")
    parser.add_argument(
        "--split",
        metavar="NAME",
        default="never-seen",
        help="without --fact, shipped facts of this split (default: %(default)s)",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=int,
        default=20,
        help="facts of the split, drawn by the seed (default: %(default)s)",
    )
    parser.add_argument(
        "--attach",
        choices=ATTACHED,
        default="none",
        help="the bank's blocks on the model that should lack the facts: none, the generic ones in place of the facts' "
        "own (which are so blocked), or the facts' own (default: %(default)s)",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the draw (default: %(default)s)")
    parser.add_argument("--batch", metavar="N", type=int, default=64, help="texts a pass (default: %(default)s)")
    declare_model(parser)


def choose_facts(facts: Sequence[Fact], options: argparse.Namespace) -> list[Fact]:
    """The facts that are asked about. Raises UserError for one that is not there, or named twice."""
    if options.fact:
        if len(set(options.fact)) < len(options.fact):
            raise UserError("a fact is named twice: it would count double in every rate")
        return [find_fact(facts, name) for name in options.fact]
    import random

    found = match_value(facts, "split", options.split)
    return random.Random(options.seed).sample(found, min(options.limit, len(found)))


def judge(engine: Engine, settings: Settings, fact: Fact, options: argparse.Namespace) -> Verdict:
    """Verdict on one fact: realisations are its prompt and paraphrases, its document is tried as t* too."""
    from circuits.separability import Realisation, judge_fact
    from workbench.cases import choose_path

    path: tuple[int, ...] = ()
    if options.attach != "none":
        if engine.bank is None:
            raise UserError("no bank is attached to this model: use --attach none, or name one with --bank")
        own = choose_path(engine, settings, fact, fact.prompt).path
        path = engine.bank.generic_path if options.attach == "generic" else own
    prompts = dict.fromkeys((fact.prompt, *fact.paraphrases, *fact.heldout_paraphrases))
    realisations = [Realisation(prompt, fact.answer) for prompt in prompts]
    texts = [fact.document] if fact.document else []
    return judge_fact(engine.model, engine.attach(path, ()), realisations, texts, options.batch)


def show_separability(options: argparse.Namespace) -> Answer:
    """A verdict a fact, and rates over them."""
    for name, least in (("limit", 1), ("batch", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}: give {least} or more")
    settings = read_settings(options)
    from workbench.engine import open_engine

    with show_progress() as tick:
        engine = open_engine(settings, tick)
        facts = choose_facts(engine.facts, options)
        verdicts = []
        for done, fact in enumerate(facts):
            tick("facts judged", done, len(facts))
            verdicts.append(judge(engine, settings, fact, options))
    rates = list_rates(verdicts, options.seed)
    found = [{"fact": fact.id, **own.to_json()} for fact, own in zip(facts, verdicts, strict=True)]
    text = "\n\n".join((format_verdicts(found), format_rates(rates), REMARK))
    return Answer({"attached": options.attach, "facts": found, "rows": rates, "remark": REMARK}, text)


def list_rates(verdicts: Sequence[Verdict], seed: int) -> list[dict[str, Any]]:
    """Rows {metric, value, unit, n, low, high}; separable and imitable are shares of the facts that the model lacks."""
    from circuits.intervals import estimate_mean

    lacking = [own for own in verdicts if own.lacks]
    metrics: dict[str, list[float]] = {
        "lacked by the model": [float(own.lacks) for own in verdicts],
        "separable, of those lacked": [float(bool(own.separable)) for own in lacking],
        "imitable, of those lacked": [float(bool(own.imitable)) for own in lacking],
        "pairs of realisations imitated, of those lacked": [own.imitated for own in lacking],
    }
    rows = []
    for metric, values in metrics.items():
        own = estimate_mean(values, seed) if values else None
        rows.append(
            {
                "metric": metric,
                "value": own and round(own.value, 4),
                "unit": "share",
                "n": len(values),
                "low": own and round(own.low, 4),
                "high": own and round(own.high, 4),
            }
        )
    return rows


def format_verdicts(found: Sequence[dict[str, Any]]) -> str:
    """A line a fact."""
    words = {True: "yes", False: "no", None: "undecided"}
    heads = ("fact", "P without", "lacked", "P best t*", "separable", "P worst t'", "imitable", "pairs imitated", "t*")
    rows = [
        (
            own["fact"],
            own["without"],
            words[own["lacks"]],
            own["best"],
            words[own["separable"]],
            own["worst"],
            words[own["imitable"]],
            own["imitated"],
            own["best_text"],
        )
        for own in found
    ]
    return format_table(heads, rows)


def format_rates(rates: Sequence[dict[str, Any]]) -> str:
    """A line a rate, with its interval."""
    return format_table(
        ("rate", "value", "low", "high", "facts"),
        [(row["metric"], row["value"], row["low"], row["high"], row["n"]) for row in rates],
        width=60,
    )


SEPARABILITY = Command(
    "separability",
    "Judge whether facts are separable and imitable (Memory^3, definitions 6 and 7), by a model that should lack them.",
    "memory-circuits separability --split never-seen --limit 20",
    declare_separability,
    show_separability,
)
