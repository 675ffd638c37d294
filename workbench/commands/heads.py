"""`heads`: scores of single heads, by finders from the literature, and how far the finders agree."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command, list_choices
from workbench.commands.terminal import format_table, show_progress
from workbench.library import find_shipped, read_shipped_facts, read_template

if TYPE_CHECKING:
    import numpy as np

    from circuits.head_scores import Passage
    from circuits.intervals import Estimate
    from probes.models import Model
    from probes.progress import Tick
    from workbench.open_books import OpenBook


@dataclass(frozen=True, slots=True)
class Finder:
    """A score of heads: what it is, its unit, and whether it needs texts whose answer can be copied."""

    label: str
    unit: str
    copies: bool


FINDERS = {
    "memory": Finder("what is lost when the head sees only the window before and the first token", "nats", False),
    "retrieval": Finder("how often it attends most to the answer in the text that is being copied", "share", True),
    "induction": Finder("attention to what came after the same token, on repeated random tokens", "attention", False),
    "previous": Finder("attention to the token just before", "attention", False),
    "context": Finder(
        "AttnLRP relevance for the answer of a text that contradicts the fact, less that for the fact's without a "
        "text: high reads the context, low the parameters",
        "logits",
        True,
    ),
    "external": Finder(
        "cosine of the last state with those of the text's tokens most attended to (ECS)", "cosine", True
    ),
}


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
    """Shipped facts, each after its own document; the answer's tokens are the targets."""
    import random

    from circuits.head_scores import Passage
    from workbench.commands.facts import match_value

    facts = [fact for fact in match_value(read_shipped_facts(), "split", split) if fact.answer in fact.document]
    if not facts:
        raise UserError(f"no fact of the split {split!r} has a document that says its answer: choose another --split")
    template, passages = read_template(find_shipped()), []
    for fact in random.Random(seed).sample(facts, min(limit, len(facts))):
        ids = model.encode(template.format(document=fact.document, prompt=fact.prompt))
        answer = model.encode_plain(fact.answer)
        if len(ids) + len(answer) <= model.context:
            passages.append(Passage((*ids, *answer), tuple(range(len(ids), len(ids) + len(answer)))))
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


def find_heads(options: argparse.Namespace) -> Answer:
    """Scores of every head by the chosen finders, with intervals, and the finders' rank correlations."""
    for name, least in (("window", 1), ("limit", 2), ("batch", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}: give {least} or more")
    finders = tuple(dict.fromkeys(options.finder or FINDERS))
    if options.texts:
        if lacking := [name for name in options.finder if FINDERS[name].copies]:
            raise UserError(f"the finder {lacking[0]} needs answers that are copied from a text: leave --texts out")
        finders = tuple(name for name in finders if not FINDERS[name].copies)
    from probes.models import load_model

    with show_progress() as tick:
        tick("loading the model", 0, 0)
        model = load_model(str(find_shipped() / "model") if options.model == "shipped" else options.model)
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


def describe_rows(finder: str, metric: str, unit: str, estimates: Sequence[Sequence[Estimate]]) -> list[dict[str, Any]]:
    """Rows {finder, metric, layer, head, value, unit, n, low, high}."""
    return [
        {
            "finder": finder,
            "metric": metric,
            "layer": layer,
            "head": head,
            "value": round(own.value, 6),
            "unit": unit,
            "n": own.n,
            "low": round(own.low, 6),
            "high": round(own.high, 6),
        }
        for layer, heads in enumerate(estimates)
        for head, own in enumerate(heads)
    ]


def score_memory(
    model: Model, passages: list[Passage], options: argparse.Namespace, tick: Tick, rows: list[dict[str, Any]]
) -> np.ndarray:
    """Add s_h and the drop of every head; candidates are heads whose drop's interval lies above 0 (our rule)."""
    from circuits.head_scores import estimate_heads, measure_performance

    masked, whole = measure_performance(model, passages, options.window, options.batch, tick)
    drop = whole - masked
    rows += describe_rows("memory", "performance s_h", "nats a token", estimate_heads(masked, options.seed))
    dropped = describe_rows("memory", "drop", "nats a token", estimate_heads(drop, options.seed))
    rows += [row | {"candidate": row["low"] > 0} for row in dropped]
    return drop


def score_retrieval(
    model: Model, passages: list[Passage], options: argparse.Namespace, tick: Tick, rows: list[dict[str, Any]]
) -> np.ndarray:
    """Add the retrieval score of every head."""
    from circuits.head_scores import estimate_heads, measure_retrieval

    found = measure_retrieval(model, passages, options.batch, tick)
    rows += describe_rows("retrieval", "score", "share", estimate_heads(found, options.seed))
    return found


def score_induction(
    model: Model, passages: list[Passage], options: argparse.Namespace, tick: Tick, rows: list[dict[str, Any]]
) -> np.ndarray:
    """Add the induction score of every head, on as many random sequences as there are texts."""
    from circuits.head_scores import estimate_heads, measure_induction

    found = measure_induction(model, len(passages), options.batch, options.seed, tick)
    rows += describe_rows("induction", "score", "attention", estimate_heads(found, options.seed))
    return found


def score_previous(
    model: Model, passages: list[Passage], options: argparse.Namespace, tick: Tick, rows: list[dict[str, Any]]
) -> np.ndarray:
    """Add the attention of every head to the previous token."""
    from circuits.head_scores import estimate_heads
    from circuits.head_sources import measure_previous

    found = measure_previous(model, [passage.ids for passage in passages], tick)
    rows += describe_rows("previous", "score", "attention", estimate_heads(found, options.seed))
    return found


def open_books(model: Model, options: argparse.Namespace) -> list[OpenBook]:
    """Shipped facts of the split behind texts that contradict them, and alone."""
    from workbench.commands.facts import match_value
    from workbench.open_books import list_open_books

    facts = match_value(read_shipped_facts(), "split", options.split)
    return list_open_books(model, facts, read_template(find_shipped()), options.limit, options.seed)


def score_context(
    model: Model, passages: list[Passage], options: argparse.Namespace, tick: Tick, rows: list[dict[str, Any]]
) -> np.ndarray:
    """Add D_h of every head; heads whose interval lies above 0 read the context, below 0 the parameters (our rule)."""
    from circuits.head_scores import estimate_heads
    from circuits.head_sources import contrast_sources

    books = open_books(model, options)
    found = contrast_sources(model, [book.opened for book in books], [book.closed for book in books], tick)
    own = describe_rows("context", "D_h", "logits", estimate_heads(found, options.seed))
    rows += [row | {"source": name_source(row["low"], row["high"])} for row in own]
    return found


def name_source(low: float, high: float) -> str:
    """What an interval of D_h says."""
    return "in-context" if low > 0 else "parametric" if high < 0 else "neither"


def score_external(
    model: Model, passages: list[Passage], options: argparse.Namespace, tick: Tick, rows: list[dict[str, Any]]
) -> np.ndarray:
    """Add the external context score of every head."""
    from circuits.head_scores import estimate_heads
    from circuits.head_sources import measure_context_scores

    books = open_books(model, options)
    found = measure_context_scores(model, [book.opened for book in books], [book.context for book in books], tick)
    rows += describe_rows("external", "ECS", "cosine", estimate_heads(found, options.seed))
    return found


Measure = Callable[..., Any]
MEASURES: dict[str, Measure] = {
    "memory": score_memory,
    "retrieval": score_retrieval,
    "induction": score_induction,
    "previous": score_previous,
    "context": score_context,
    "external": score_external,
}


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
