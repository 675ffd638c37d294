"""Finders of heads: what each is called, and the rows that it adds to the table of `heads`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
