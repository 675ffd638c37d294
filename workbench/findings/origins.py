"""Where answers come from by frequency, as ledgers have it; and how memory attribution agrees with removal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import UserError
from workbench.findings.record import UNMEASURED, Finding, Method, Row, format_number, judge, make_row
from workbench.findings.study import Study

if TYPE_CHECKING:
    from probes.facts import Fact
    from workbench.ledgers.prompts import Laid
    from workbench.ledgers.table import Ledger

LEDGER = Method(
    "ledgers: Shapley values over all combinations of formats",
    "memories taken out of the softmax, blocks write nothing; exact",
    "logit difference to another answer of the relation",
)
TAIL = (
    "the rarer a trained fact, the more of its margin comes from the bank, and never-seen facts have the largest share "
    "from their explicit memory: the interval of the bank's share in the rarest bucket less that in the most frequent "
    "lies above 0, and explicit memory leads for bucket 0"
)
AGREEMENT = Method(
    "first-order estimates of memory slots and bank units against their exact removal, Spearman over parts of one fact",
    "contribution: read as zero; renormalised: out of the softmax",
    "logit difference to another answer of the relation",
)
AGREE = "estimates rank parts as removal does: every mean rank correlation is 0.7 or more (our bound)"
BOUND = 0.7
CHUNK = 32
# Facts whose parts are removed, and parts of each.
CHECKED, PARTS = 8, 40
KINDS = {"anchor": "anchor", "bank": "bank", "explicit": "explicit memory", "text": "text"}


def lay_facts(study: Study, facts: Sequence[Fact]) -> list[Laid]:
    """Facts laid out; those that have no foil or cannot be asked are left out."""
    from workbench.ledgers.prompts import lay_fact

    laid = []
    for fact in facts:
        try:
            laid.append(lay_fact(study.engine, fact, study.engine.facts, study.settings))
        except UserError:
            continue
    return laid


def measure_known(study: Study, facts: Sequence[Fact]) -> list[Ledger]:
    """Ledgers of the facts that the model answers."""
    from workbench.ledgers.measuring import measure_batch

    groups: dict[Any, list[Laid]] = defaultdict(list)
    for laid in lay_facts(study, facts):
        groups[laid.condition].append(laid)
    found: list[Ledger] = []
    for group in groups.values():
        for start in range(0, len(group), CHUNK):
            study.tick("ledgers", start, len(group))
            some = group[start : start + CHUNK]
            found += measure_batch(study.engine, some, "renormalised", "logit-diff", 0, 0.0, describe=False)
    return [ledger for ledger in found if ledger.known and ledger.margin > 0]


def sum_shares(ledger: Ledger) -> dict[str, float]:
    """Share of each kind of format, in the metric's unit."""
    sums = dict.fromkeys(KINDS, 0.0)
    for entry in ledger.entries:
        sums[entry.kind] += entry.share
    return sums


def draw_ratios(values: np.ndarray, margins: np.ndarray, seed: int) -> np.ndarray:
    """Sum of values over sum of margins, of the facts themselves first and then of every resample of them."""
    from circuits.intervals import draw_places

    places = np.concatenate([np.arange(len(values))[None], draw_places(len(values), seed)])
    return np.asarray(values[places].sum(axis=1) / margins[places].sum(axis=1))


def divide_by_bucket(study: Study) -> Finding:
    """Share of the margin of each bucket's facts that each kind of format brings."""
    title = "Where answers come from, by how often a fact was seen"
    buckets = sorted({fact.bucket for fact in study.list_trained()})
    each = max(2, study.count // 2)
    groups = {f"bucket {b}": [f for f in study.list_trained() if f.bucket == b] for b in buckets}
    groups |= {"bucket 0 (never seen)": study.list_new()}
    rows: list[Row] = []
    notes: list[str] = []
    banks: list[np.ndarray] = []
    leads = False
    for name, facts in groups.items():
        chosen = study.draw(facts, each, f"ledgers {name}")
        ledgers = measure_known(study, chosen)
        if not ledgers:
            continue
        margins = np.array([ledger.margin for ledger in ledgers])
        shares = {kind: np.array([sum_shares(ledger)[kind] for ledger in ledgers]) for kind in KINDS}
        ratios = {kind: draw_ratios(own, margins, study.seed) for kind, own in shares.items() if own.any()}
        for kind, own in ratios.items():
            low, high = (float(np.percentile(own[1:], q)) for q in (2.5, 97.5))
            rows.append(
                Row(f"{name}: {KINDS[kind]}", float(own[0]), len(ledgers), "facts", "share of the margin", low, high)
            )
        rows.append(Row(f"{name}: margin", float(margins.mean()), len(ledgers), "facts", "logits"))
        if name.startswith("bucket 0"):
            leads = max(ratios, key=lambda kind: ratios[kind][0]) == "explicit"
        else:
            banks.append(ratios.get("bank", np.zeros(len(next(iter(ratios.values()))))))
        words = ", ".join(f"{KINDS[kind]} {100 * own[0]:.0f} %" for kind, own in ratios.items())
        notes.append(f"{name.capitalize()}: {words} ({len(ledgers)} of {len(chosen)} drawn facts are answered).")
    if len(banks) < 2 or not any(row.name.startswith("bucket 0") for row in rows):
        return Finding("ledger", title, TAIL, LEDGER, UNMEASURED, tuple(rows), tuple(notes))
    difference = banks[0] - banks[-1]
    low, high = (float(np.percentile(difference[1:], q)) for q in (2.5, 97.5))
    number = sum(row.n for row in rows if row.name.endswith(": margin") and "bucket 0" not in row.name)
    name = "bank's share, rarest less most frequent bucket"
    rows.append(Row(name, float(difference[0]), number, "facts", "share of the margin", low, high))
    return Finding("ledger", title, TAIL, LEDGER, judge(low > 0 and leads), tuple(rows), tuple(notes))


def check_attribution(study: Study) -> Finding:
    """Mean rank correlation of estimates with removal: never-seen facts (slots and units), trained ones (units)."""
    title = "Memory attribution against removal"
    rows: list[Row] = []
    groups = {"never-seen facts": study.list_new(), "trained facts": study.list_trained()}
    for name, facts in groups.items():
        rows += correlate_group(study, name, study.draw(facts, min(CHECKED, study.count), f"checked {name}"))
    if not rows:
        return Finding("agreement", title, AGREE, AGREEMENT, UNMEASURED, (), ("No memory with parts is attached.",))
    notes = tuple(
        f"{row.name}: {format_number(row.value)} over {row.n} facts, {PARTS} parts at most of each." for row in rows
    )
    lowest = min(row.value for row in rows if row.value is not None)
    return Finding("agreement", title, AGREE, AGREEMENT, judge(lowest >= BOUND), tuple(rows), notes)


def correlate_group(study: Study, name: str, facts: Sequence[Fact]) -> Iterator[Row]:
    """A row a way of removal."""
    from circuits.intervals import estimate_mean
    from workbench.ledgers.questions import check_memories

    found: dict[str, list[float]] = defaultdict(list)
    for done, laid in enumerate(lay_facts(study, facts)):
        study.tick("parts removed", done, len(facts))
        try:
            checks = check_memories(study.engine, laid, study.settings, PARTS, study.tick)
        except UserError:
            continue
        for check in checks:
            if check.spearman is not None:
                found[check.removal].append(check.spearman)
    for way, values in found.items():
        yield make_row(f"{name}, {way}", estimate_mean(values, study.seed), "facts", "Spearman")
