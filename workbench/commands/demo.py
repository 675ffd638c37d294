"""`demo train`, `demo evaluate`, `demo experiments`: the shipped model made again, or one like it, and measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.terminal import clean_text, format_table, show_progress
from workbench.library import find_shipped

HEADINGS = ("experiment", "condition", "bucket", "paraphrase", "accuracy", "n", "low", "high")


def declare_train(parser: argparse.ArgumentParser) -> None:
    """The configuration and the folder to fill."""
    parser.add_argument("--config", metavar="FILE", help="TOML file; what it leaves out is as in the default")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="folder for the model, its memories and facts")
    parser.add_argument(
        "--from",
        dest="start",
        metavar="FOLDER",
        help="a demo of the same world and shape whose weights go through the last two stages once more",
    )
    parser.add_argument("--no-resume", action="store_true", help="start anew where an earlier training was stopped")


def train_demo(options: argparse.Namespace) -> Answer:
    """Train a model and its memories on a small world of facts."""
    from probes.models import quieten_libraries
    from workbench import demo

    config = Path(options.config) if options.config else None
    if config is not None and not config.is_file():
        raise UserError(f"no file {options.config[:200]!r}: name a TOML file, or leave --config out")
    out, start = Path(options.out), find_demo(options.start) if options.start else None
    quieten_libraries()
    with show_progress() as tick:
        demo.train(config, out, start=start, resume=not options.no_resume, progress=tick)
    return Answer({"folder": str(out), "config": options.config}, f"trained: {clean_text(out)}")


def find_demo(name: str | None) -> Path:
    """Folder of a demo model, the shipped one where none is named. Raises `UserError` when there is none."""
    folder = Path(name) if name else find_shipped()
    if not folder.is_dir():
        raise UserError(f"no folder {str(name)[:200]!r}: name one that `memory-circuits demo train` made")
    return folder


def declare_experiments(parser: argparse.ArgumentParser) -> None:
    """The folder of the demo model, where work in progress lives, and which experiments."""
    parser.add_argument("folder", metavar="FOLDER", help="folder of a trained demo; its `experiments` folder is filled")
    parser.add_argument("--work", metavar="FOLDER", required=True, help="folder for work in progress; go on with it")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="one experiment; may be repeated")


def run_experiments(options: argparse.Namespace) -> Answer:
    """Train the comparisons of the model card."""
    from probes.models import quieten_libraries
    from workbench import demo

    folder = find_demo(options.folder)
    quieten_libraries()
    with show_progress() as tick:
        rows = demo.run_experiments(folder, Path(options.work), options.only, tick)
    table = format_table(HEADINGS, [[row[name] for name in HEADINGS] for row in rows])
    return Answer({"folder": str(folder), "rows": rows}, table)


def declare_evaluate(parser: argparse.ArgumentParser) -> None:
    """The folder and how much of it."""
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="folder of a trained demo; left out, the shipped")
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="seed of the choice of facts (default: %(default)s)"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="facts per row; left out, 200")
    parser.add_argument("--card", metavar="FILE", help="Markdown file whose tables are replaced by these")


def evaluate_demo(options: argparse.Namespace) -> Answer:
    """Accuracy in every condition and frequency bucket, with its interval."""
    from probes.models import quieten_libraries
    from workbench import demo

    folder = find_demo(options.folder)
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit is {options.limit}: give a whole number from 1, or leave it out")
    quieten_libraries()
    rows = demo.evaluate(folder, seed=options.seed, limit=options.limit)
    if options.card:
        write_card(Path(options.card), folder, rows)
    table = format_table(HEADINGS, [[row[name] for name in HEADINGS] for row in rows])
    return Answer({"folder": str(folder), "rows": rows}, table)


TRAIN = Command(
    "demo train",
    "Train the demo model and its memories on a corpus that this command generates.",
    "memory-circuits demo train --out demo-model",
    declare_train,
    train_demo,
)

EVALUATE = Command(
    "demo evaluate",
    "Measure how often a demo model answers right, by condition and frequency.",
    "memory-circuits demo evaluate --limit 100",
    declare_evaluate,
    evaluate_demo,
)


def write_card(card: Path, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Put the tables into the card, the figures into the folder `images` beside it, and the rows into the demo's."""
    from workbench.demo.card import draw_figures, write_tables
    from workbench.demo.loading import load_arms
    from workbench.storage import write_file

    write_tables(card, rows)
    write_file(folder / "evaluation.json", (json.dumps(rows, indent=1) + "\n").encode())
    for name, figure in draw_figures(load_arms(folder)).items():
        write_file(card.parent / "images" / name, figure.encode())


EXPERIMENTS = Command(
    "demo experiments",
    "Train what the model card compares a demo model with: alone, memory kinds, depth, memory layers, two stages.",
    "memory-circuits demo experiments demo-model --work demo-work --only depth",
    declare_experiments,
    run_experiments,
)
