"""`heads`: scores of single heads, by finders from the literature, and how far the finders agree."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command, list_choices
from workbench.commands.desk import TERMINAL, Desk
from workbench.commands.head_finders import FINDERS, MEASURES
from workbench.commands.terminal import format_table
from workbench.library import find_shipped, read_shipped_facts, read_template
from workbench.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from circuits.head_scores import Passage
    from probes.models import Model


def declare_heads(parser: argparse.ArgumentParser) -> None:
    """The model, the finders, and the texts."""
    parser.add_argument(
        "--finder",
        choices=tuple(FINDERS),
        action="append",
        default=[],
        help=f"{list_choices(FINDERS)}; repeatable; left out, all",
    )
    parser.add_argument("--model", metavar="NAME|FOLDER", default="shipped", help="the model (default: %(default)s)")
    parser.add_argument(
        "--texts",
        metavar="DOCS",
        nargs="+",
        default=[],
        help="documents whose next tokens are predicted; left out, shipped facts after their document",
    )
    parser.add_argument(
        "--split", metavar="NAME", default="never-seen", help="which shipped facts (default: %(default)s)"
    )
    parser.add_argument(
        "--window",
        metavar="N",
        type=int,
        default=100,
        help="tokens before that a masked head still sees; the paper's 100 is more than short texts have "
        "(default: %(default)s)",
    )
    parser.add_argument("--limit", metavar="N", type=int, default=64, help="texts at most (default: %(default)s)")
    parser.add_argument("--batch", metavar="N", type=int, default=8, help="texts a pass (default: %(default)s)")
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="seed of draws and of resampling (default: %(default)s)"
    )


def list_fact_passages(model: Model, split: str, limit: int, seed: int) -> list[Passage]:
    """Shipped facts of a split behind their documents. Raises UserError when no document says its answer."""
    from workbench.commands.facts import match_value
    from workbench.open_books import list_passages

    facts = match_value(read_shipped_facts(), "split", split)
    passages = list_passages(model, facts, read_template(find_shipped()), limit, seed)
    if not passages:
        raise UserError(f"no fact of the split {split!r} has a document that says its answer: choose another --split")
    return passages


def list_text_passages(model: Model, names: Sequence[str], window: int, limit: int) -> list[Passage]:
    """Documents in pieces as long as the model reads; targets are the tokens behind the window."""
    from circuits.head_scores import Passage
    from workbench.memory.documents import list_files, read_documents

    start, passages = list(model.tokenizer("")["input_ids"])[:1], []
    for document in read_documents(list_files([Path(name).expanduser() for name in names])):
        ids = model.encode_plain("".join(document.blocks))
        for first in range(0, len(ids), model.context - len(start)):
            piece = (*start, *ids[first : first + model.context - len(start)])
            if len(piece) > window + 3:
                passages.append(Passage(piece, tuple(range(window + 3, len(piece)))))
            if len(passages) == limit:
                return passages
    if not passages:
        raise UserError(f"no text has more than {window + 3} tokens: give longer texts, or a smaller --window")
    return passages


def find_heads(options: argparse.Namespace, desk: Desk = TERMINAL) -> Answer:
    """Scores of every head by the chosen finders, with intervals, and the finders' rank correlations."""
    for name, least in (("window", 1), ("limit", 2), ("batch", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}: give {least} or more")
    finders = tuple(dict.fromkeys(options.finder or FINDERS))
    if options.texts:
        if lacking := [name for name in options.finder if FINDERS[name].copies]:
            raise UserError(f"the finder {lacking[0]} needs answers that are copied from a text: leave --texts out")
        finders = tuple(name for name in finders if not FINDERS[name].copies)
    with desk.progress() as tick:
        model = desk.open_engine(Settings(model=options.model, bank="none", memory="none"), tick).model
        if options.texts:
            passages = list_text_passages(model, options.texts, options.window, options.limit)
        else:
            passages = list_fact_passages(model, options.split, options.limit, options.seed)
        scores: dict[str, np.ndarray] = {}
        rows: list[dict[str, Any]] = []
        for finder in finders:
            scores[finder] = MEASURES[finder](model, passages, options, tick, rows)
    comparisons = compare_finders(scores, options.seed)
    return Answer(
        {
            "model": options.model,
            "window": options.window,
            "texts": len(passages),
            "rows": rows,
            "comparisons": comparisons,
        },
        format_heads(rows, comparisons),
    )


def compare_finders(scores: dict[str, np.ndarray], seed: int) -> list[dict[str, Any]]:
    """Rank correlation over heads of each two finders (of the memory finder the drop), with its interval over texts."""
    from circuits.head_scores import correlate_heads

    rows = []
    for first, second in combinations(scores, 2):
        found = correlate_heads(scores[first], scores[second], seed)
        value = None if found is None else (round(found.value, 4), round(found.low, 4), round(found.high, 4))
        rows.append(
            {
                "finders": [first, second],
                "spearman": value and value[0],
                "low": value and value[1],
                "high": value and value[2],
                "n": scores[first][0].size,
            }
        )
    return rows


def format_heads(rows: Sequence[dict[str, Any]], comparisons: Sequence[dict[str, Any]]) -> str:
    """The strongest heads of each finder first, then how far finders agree."""
    shown = [row for row in rows if row["metric"] != "performance s_h"]
    lines = []
    for finder in dict.fromkeys(row["finder"] for row in shown):
        own = sorted((row for row in shown if row["finder"] == finder), key=lambda row: -row["value"])
        table = [
            (f"L{row['layer']}H{row['head']}", row["value"], row["low"], row["high"], row["n"], mark_candidate(row))
            for row in own
        ]
        lines += [
            f"{finder}: {FINDERS[finder].label}, {own[0]['unit']}",
            format_table(("head", own[0]["metric"], "low", "high", "texts", ""), table),
            "",
        ]
    for row in comparisons:
        if row["spearman"] is None:
            lines.append(f"{' and '.join(row['finders'])}: no rank correlation, one scores all heads alike")
        else:
            lines.append(
                f"{' and '.join(row['finders'])}: rank correlation over {row['n']} heads {row['spearman']:.2f} "
                f"[{row['low']:.2f}, {row['high']:.2f}]"
            )
    return "\n".join(lines)


def mark_candidate(row: dict[str, Any]) -> str:
    """What a row's candidate mark is shown as."""
    return "candidate" if row.get("candidate") else str(row.get("source", ""))


HEADS = Command(
    "heads",
    "Score every head by finders from the literature: memory, retrieval, induction, previous token, source.",
    "memory-circuits heads --finder memory --finder retrieval --window 16",
    declare_heads,
    find_heads,
)
