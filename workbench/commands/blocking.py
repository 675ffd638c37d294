"""`bank block`: take blocks of a bank away and see which facts are forgotten."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.questions import DEFAULTS, declare_seed
from workbench.commands.terminal import clean_text, format_table, show_progress

if TYPE_CHECKING:
    from probes.facts import Fact
    from workbench.banks.blocking import Blocking
    from workbench.engine import Engine


def declare_block(parser: argparse.ArgumentParser) -> None:
    """What is blocked, of which model and bank, and how it is measured."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--block", metavar="LEVEL:CLUSTER", help="one block; levels count from 1, clusters from 0")
    what.add_argument("--subtree", metavar="LEVEL:CLUSTER", help="a cluster's block and all below it")
    what.add_argument("--level", metavar="LEVEL", type=int, help="every block of a level")
    what.add_argument(
        "--matching",
        metavar="TEXT|FILE",
        help="what a text is routed to; targets are the facts it states",
    )
    what.add_argument("--document", metavar="ID", help="the same with the text of a shipped document")
    parser.add_argument(
        "--match-level",
        metavar="LEVEL",
        type=int,
        help="with a text: block its cluster of this level and all below it (default: the deepest level)",
    )
    parser.add_argument(
        "--instead",
        choices=("nothing", "generic"),
        default="nothing",
        help="what is read in place of a blocked block (default: %(default)s)",
    )
    parser.add_argument(
        "--facts",
        metavar="FILE",
        help="a .csv, .jsonl or .parquet table: id, subject, relation, object, prompt, answer; its prompts are routed "
        "(default: the shipped facts, which lie in the shipped bank alone)",
    )
    parser.add_argument("--model", metavar="NAME|FOLDER", default=DEFAULTS.model, help="(default: %(default)s)")
    parser.add_argument("--bank", metavar="auto|FOLDER", default=DEFAULTS.bank, help="(default: %(default)s)")
    parser.add_argument("--device", metavar="NAME", default=DEFAULTS.device, help="(default: %(default)s)")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=200, help="facts of a group asked at most (default: %(default)s)"
    )
    parser.add_argument(
        "--draws", metavar="N", type=int, default=5, help="random subtrees to compare with (default: %(default)s)"
    )
    declare_seed(parser)


def parse_block(text: str, option: str) -> tuple[int, int]:
    """Level and cluster of `2:17`. Raises UserError for anything else."""
    level, colon, cluster = text.partition(":")
    if not colon or not level.isdecimal() or not cluster.isdecimal() or len(text) > 24:
        raise UserError(f"{option} is {text[:40]!r}: give level and cluster, such as 2:17")
    return int(level), int(cluster)


def read_matching(text: str) -> str:
    """The text itself, or that of a file of this name. Raises UserError for a file that is no text."""
    from workbench.cases import read_text

    return read_text(text, None) if len(text) < 1000 and Path(text).is_file() else text


def choose_blocking(options: argparse.Namespace, engine: Engine, facts: list[Fact]) -> tuple[Blocking, list[Fact]]:
    """What is blocked, and the target facts: those a text states, else all that read what is blocked."""
    from workbench.banks.blocking import Blocking, check_block, find_stated
    from workbench.banks.reading import name_path, route_text

    bank = engine.bank
    assert bank is not None
    if options.matching or options.document:
        text = read_matching(options.matching) if options.matching else find_document(engine, options.document)
        level = len(bank.clusters) if options.match_level is None else options.match_level
        path = route_text(bank, text)
        check_block(bank, (level, path[level - 1] if 1 <= level <= len(path) else 0))
        name = f"what the text is routed to ({name_path(path[:level])})"
        return Blocking(name, ((level, path[level - 1]),), below=True), find_stated(facts, text)
    if options.level is not None:
        check_block(bank, (options.level, 0))
        blocking = Blocking(f"level {options.level}", whole_level=options.level)
    else:
        option = "--block" if options.block else "--subtree"
        root = parse_block(options.block or options.subtree, option)
        check_block(bank, root)
        blocking = Blocking(f"{option[2:]} {root[0]}:{root[1]}", (root,), below=options.block is None)
    return blocking, [fact for fact in facts if blocking.list_levels(fact.cluster_path, bank.branching)]


def list_asked(options: argparse.Namespace, engine: Engine) -> list[Fact]:
    """Facts with the paths that they read: those of the table, routed, else the shipped ones that were trained.

    Raises UserError for a bank that the shipped facts' paths do not belong to, and a table that cannot be read.
    """
    from workbench.banks.reading import is_shipped, route_texts

    assert engine.bank is not None
    if options.facts:
        from probes.facts import build_fact, read_records, refuse_duplicates

        facts = [build_fact(row, {}) for row in read_records(Path(options.facts).expanduser())]
        refuse_duplicates(facts)
        if not facts:
            raise UserError(f"{options.facts} has no rows: give one fact a row")
        paths = route_texts(engine.bank, [fact.prompt for fact in facts])
        return [replace(fact, cluster_path=path) for fact, path in zip(facts, paths, strict=True)]
    if not is_shipped(engine.bank):
        raise UserError(
            f"the shipped facts do not lie in {engine.bank.folder}: give facts of your own with --facts "
            "(id, subject, relation, object, prompt, answer)"
        )
    depth = len(engine.bank.clusters)
    return [fact for fact in engine.facts if len(fact.cluster_path) == depth and fact.occurrences != 0]


def find_document(engine: Engine, name: str) -> str:
    """Text of a document that facts come from. Raises UserError when there is none."""
    for fact in engine.facts:
        if fact.document_id == name and fact.document:
            return fact.document
    raise UserError(f"no document {name[:80]!r} among the shipped facts: `memory-circuits facts` lists them")


def block_bank(options: argparse.Namespace) -> Answer:
    """Measure what is forgotten."""
    from workbench import pipeline
    from workbench.banks.blocking import measure_blocking
    from workbench.settings import Settings

    for name, least in (("limit", 2), ("draws", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}: give {least} or more")
    settings = Settings(model=options.model, bank=options.bank, memory="none", device=options.device, seed=options.seed)
    with show_progress() as tick:
        engine = pipeline.open_engine(settings, tick)
        if engine.bank is None:
            raise UserError("no bank is attached to this model: give --bank FOLDER")
        facts = list_asked(options, engine)
        blocking, targets = choose_blocking(options, engine, facts)
        rows = measure_blocking(
            engine.model,
            engine.bank,
            facts,
            blocking,
            targets,
            options.instead,
            options.limit,
            options.draws,
            options.seed,
            tick,
        )
    document = {"blocked": blocking.name, "instead": options.instead, "seed": options.seed, "rows": rows}
    headings = ("facts", "n", "accuracy", "blocked", "random", "drop (nats)", "random drop")
    table = format_table(headings, [list_row(row) for row in rows])
    return Answer(document, f"blocked: {clean_text(blocking.name)}, read instead: {options.instead}\n\n{table}")


def list_row(row: dict[str, Any]) -> list[object]:
    """Cells of a group of facts."""

    def show(drop: str, interval: str) -> str | None:
        if drop not in row:
            return None
        low, high = row[interval]
        return f"{row[drop]:.3f} [{low:.3f}, {high:.3f}]"

    shares = [None if row[name] is None else f"{row[name]:.3f}" for name in ("accuracy", "blocked", "random")]
    return [row["group"], row["n"], *shares, show("drop", "interval"), show("random_drop", "random_interval")]


BLOCK = Command(
    "bank block",
    "Take blocks of a bank away and measure which facts are forgotten, beside random blocks of the same size.",
    "memory-circuits bank block --subtree 1:3 --limit 100",
    declare_block,
    block_bank,
)
