"""`ledger`: an answer's margin divided over text, explicit memories, bank levels and the model's own parameters."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from workbench import pipeline
from workbench.commands.command import Answer, Command, list_choices
from workbench.commands.questions import DEFAULTS, declare_model, declare_question, declare_seed, read_question
from workbench.commands.questions import read_settings as read_given
from workbench.commands.terminal import clean_text, format_table, quote, show_progress
from workbench.settings import METRICS, Question, Settings, restore_settings
from workbench.settings import read_question as restore_question

if TYPE_CHECKING:
    from workbench.ledgers.questions import Agreement, Conflict
    from workbench.ledgers.table import Entry, Ledger

MARGINS = {name: choice for name, choice in METRICS.items() if name != "kl"}
WAYS = ("renormalised", "contribution")
SUMS_SHOWN = 5


def declare_ledger(parser: argparse.ArgumentParser) -> None:
    """The question, what is attached, how memories are removed, what is listed and where it goes."""
    declare_question(parser)
    declare_model(parser)
    parser.add_argument("--run", metavar="RUN", help="question and settings of this run; the ledger is kept beside it")
    declare_ledgers(parser)
    parser.add_argument(
        "--removal",
        choices=("both", *WAYS),
        default="both",
        help="how an explicit memory that is off is removed: out of the softmax (renormalised), or read as zero with "
        "its attention kept (contribution) (default: %(default)s)",
    )
    parser.add_argument("--text-says", metavar="ANSWER", default="", help="conflict: the fact's document, as text")
    parser.add_argument("--memory-says", metavar="ANSWER", default="", help="conflict: the same as an explicit memory")
    parser.add_argument(
        "--check",
        metavar="N",
        type=int,
        default=0,
        help="remove N parts of the memories exactly and compare with their estimates (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="FILE", help="also keep the ledger as this file")
    declare_seed(parser)


def declare_ledgers(parser: argparse.ArgumentParser) -> None:
    """Metric and how many parts are listed."""
    parser.add_argument(
        "--metric",
        choices=tuple(MARGINS),
        default=DEFAULTS.metric,
        help=f"{list_choices(MARGINS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--top", metavar="N", type=int, default=10, help="parts listed of each format (default: %(default)s)"
    )
    parser.add_argument(
        "--at-least",
        metavar="SHARE",
        type=float,
        default=0.0,
        help="smallest share, in the metric's unit, of a part that is listed (default: %(default)s)",
    )


def check_options(options: argparse.Namespace) -> None:
    """Raise UserError for numbers out of range."""
    for name, low, high in (("top", 0, 100_000), ("check", 0, 10_000)):
        if not low <= getattr(options, name, 0) <= high:
            raise UserError(f"--{name} is {getattr(options, name)}: give a whole number from {low} to {high}")
    if not 0 <= options.at_least < float("inf"):
        raise UserError(f"--at-least is {options.at_least}: give a number from 0")


def read_asked(options: argparse.Namespace) -> tuple[Question, Settings]:
    """Question and settings of the options, or of the run that they name."""
    if not options.run:
        return read_question(options), read_given(options)
    from workbench.runs import load_run

    if options.fact or options.prompt:
        raise UserError("--run brings its own question: leave --fact and --prompt out")
    about = load_run(Path(options.run)).about
    return restore_question(about["question"]), restore_settings(about["settings"])


def show_ledger(options: argparse.Namespace) -> Answer:
    """Measure the ledger (or the ledgers of a conflict), keep it, print it."""
    check_options(options)
    question, settings = read_asked(options)
    from workbench.ledgers.measuring import describe_source
    from workbench.ledgers.questions import check_memories, lay_question, measure_conflict, measure_question
    from workbench.ledgers.table import save_ledgers

    ways: Any = WAYS if options.removal == "both" else (options.removal,)
    conflict, checks = None, list[Any]()
    with show_progress() as tick:
        engine = pipeline.open_engine(settings, tick)
        if options.text_says or options.memory_says:
            if not question.fact:
                raise UserError("a conflict is about a shipped fact and its document: give --fact ID")
            says = options.text_says, options.memory_says
            conflict = measure_conflict(engine, question.fact, *says, settings, ways[0], options.top)
            ledgers = tuple(rival.ledger for rival in conflict.rivals)
        else:
            ledgers = measure_question(engine, question, settings, ways, options.top, options.at_least)
        if options.check:
            if conflict is not None:
                raise UserError("--check is for the ledger of one answer: leave it out of a conflict")
            checks = check_memories(engine, lay_question(engine, question, settings), settings, options.check, tick)
    about = describe_source(engine, settings) | {
        "question": question.to_json(),
        "conflict": None if conflict is None else {"winner": conflict.rivals[0].answer, "said": conflict.said},
        "agreement": [check.to_json() for check in checks],
    }
    paths = [Path(options.out)] if options.out else []
    paths += [Path(options.run) / "ledger.json"] if options.run else []
    for path in paths:
        save_ledgers(ledgers, about, path)
    document = about | {"ledgers": [ledger.to_json() for ledger in ledgers]}
    text = [] if conflict is None else [describe_conflict(conflict)]
    text += [format_ledger(ledger) for ledger in ledgers] + [format_agreement(check) for check in checks]
    text += [f"kept as {clean_text(path)}" for path in paths]
    return Answer(document, "\n\n".join(text))


def list_entry(entry: Entry) -> list[list[object]]:
    """Table rows of a format: itself, its parts, the other parts, its residual."""
    rows: list[list[object]] = [[entry.name, clean_text(entry.label), entry.share, entry.alone, entry.last, None]]
    for part in entry.parts:
        word = quote(part.token) if part.token else ""
        rows.append([f"  {part.component}", word, part.share, None, None, part.effect])
    rows.append([f"  {entry.others} other parts", "", entry.rest, None, None, None])
    rows.append(["  residual", "", entry.residual, None, None, None])
    return rows


def format_ledger(ledger: Ledger) -> str:
    """A ledger as text: the table, then sums by token and head, and interactions."""
    foil = f" against {quote(ledger.foil)}" if ledger.foil else ""
    head = f"{clean_text(ledger.fact)}: {ledger.metric} of {quote(ledger.answer)}{foil}, in {ledger.unit}"
    known = "" if ledger.known else f" (the model says {quote(ledger.said)} instead)"
    rows = [row for entry in ledger.entries for row in list_entry(entry)]
    if ledger.held:
        rows.append(["held attention", "kept by removed memories", ledger.held, None, None, None])
    rows.append(["margin", "sum of all rows", ledger.margin, None, None, None])
    table = format_table(("row", "what", "share", "alone", "last", "effect"), rows)
    lines = [f"{head}{known}", f"explicit memories that are off: {ledger.removal}; {ledger.method}", "", table]
    for entry in ledger.entries:
        for name, sums in (("tokens", entry.tokens), ("heads", entry.heads)):
            if sums:
                words = ", ".join(
                    f"{quote(word) if name == 'tokens' else word} {share:.3g}" for word, share in sums[:SUMS_SHOWN]
                )
                lines.append(f"{entry.name}, by {name}: {words}")
    pairs = sorted(ledger.interactions, key=lambda pair: -abs(pair.value))
    lines += [f"{pair.first} with {pair.second}: {pair.value:.4g} ({pair.word})" for pair in pairs]
    return "\n".join(lines)


def format_agreement(check: Agreement) -> str:
    """One line on estimates and removal."""
    value = "undefined" if check.spearman is None else f"{check.spearman:.3f}"
    return f"estimate and exact removal ({check.removal}): Spearman {value}, n = {check.n} parts"


def describe_conflict(conflict: Conflict) -> str:
    """Who wins."""
    rows = [[rival.says, quote(rival.answer), rival.ledger.margin] for rival in conflict.rivals]
    said = f"\nthe model itself says {quote(conflict.said)}" if conflict.said else ""
    table = format_table(("who says it", "answer", "log-probability"), rows)
    return f"{table}\n{conflict.rivals[0].says} wins with {quote(conflict.rivals[0].answer)}{said}"


LEDGER = Command(
    "ledger",
    "Divide an answer's margin over text, explicit memories, bank levels and the model's own parameters.",
    "memory-circuits ledger --fact ID --memory own --text auto --check 40",
    declare_ledger,
    show_ledger,
)
