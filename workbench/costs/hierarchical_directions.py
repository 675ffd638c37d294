"""The directions that hierarchical memories (Pouransari et al. 2025) reports, on the shipped model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from workbench.costs.directions import Direction, Evaluation, Relation, Share, list_measured, read_evaluation

TAIL, KINDS, DEPTH, ABSTRACT = "long tail", "memory kinds", "depth", "abstract: "
RAREST, FREQUENT = 1, 5
ALONE, FETCHED, GENERIC = "anchor trained alone", "fetched", "generic"
POSTHOC = (
    "Blocks of one size on the frozen anchor that was trained alone, for one subtree; rarest facts. Near 100% there is "
    "little left to differ."
)
APART = (
    "Not one experiment: the co-trained side is the shipped bank on all subtrees; the frozen side, blocks of one "
    "subtree trained afterwards."
)


def list_directions(folder: Path) -> list[Direction]:
    """Every direction whose measurement lies in the folder of a demo model."""
    rows = read_evaluation(folder)
    return list_measured([
        partial(compare_tail, rows, FETCHED, ALONE, RAREST, "above", "+66 (17 to 83)", "figure 1"),
        partial(compare_gains, rows),
        partial(compare_tail, rows, FETCHED, GENERIC, RAREST, "above", "+4.6 on specific tasks", "table 1, A2"),
        partial(compare_tail, rows, FETCHED, GENERIC, FREQUENT, "alike", "+0.8 on common tasks", "table 1, A2"),
        partial(compare_tail, rows, GENERIC, "no block", RAREST, "alike", "+1.6 on specific tasks", "table 1, A1, A2"),
        partial(compare_task, rows),
        partial(compare_specificity, rows),
        partial(compare_tail, rows, FETCHED, "blocked", RAREST, "above", "+50 (70 to 20)", "section 4"),
        partial(compare_posthoc, rows),
        *(partial(compare_kinds, rows, *pair) for pair in (
            ("FFN", "LoRA (FFN)", "ahead at all sizes"), ("FFN", "key-value", "ahead at all sizes"),
            ("LoRA (FFN)", "LoRA (query, key)", "mostly the best LoRA"),
            ("LoRA (FFN)", "LoRA (value, output)", "mostly the best LoRA"),
        )),
        partial(compare_depths, rows, "late", "uniform", "alike", "+5.9 (14.4 to 20.3)"),
        partial(compare_depths, rows, "uniform", "middle", "above", "+12.7 (1.7 to 14.4)"),
        partial(compare_depths, rows, "late", "early", "above", "+17.8 (2.5 to 20.3)"),
        partial(compare_depths, rows, "early", "middle", "alike", "+0.8 (1.7 to 2.5)"),
    ])  # fmt: skip


def compare_tail(
    rows: Evaluation, condition: str, other: str, bucket: int, relation: Relation, published: str, source: str
) -> Direction:
    """Trained facts of a frequency bucket right in one condition less another."""
    facts = {RAREST: "rarest facts", FREQUENT: "most frequent facts"}[bucket]
    plus, minus = (rows.find(TAIL, one, bucket) for one in (condition, other))
    return rows.compare(f"{facts}: {condition} over {other}", published, relation, source, plus=[plus], minus=[minus])


def compare_gains(rows: Evaluation) -> Direction:
    """The gain over the anchor alone in the rarest bucket, less the next largest gain."""
    buckets = [bucket for bucket in rows.list_values("bucket", TAIL) if bucket != RAREST]
    gains = {bucket: (rows.find(TAIL, FETCHED, bucket), rows.find(TAIL, ALONE, bucket)) for bucket in buckets}
    if not gains:
        raise LookupError("there is one bucket alone")
    most = max(gains, key=lambda bucket: gains[bucket][0].value - gains[bucket][1].value)
    fetched, alone = rows.find(TAIL, FETCHED, RAREST), rows.find(TAIL, ALONE, RAREST)
    return rows.compare(
        "gain over the anchor alone: rarest over every other bucket", "largest in the rarest", "above", "figure 1",
        plus=[fetched, gains[most][1]], minus=[alone, gains[most][0]],
    )  # fmt: skip


def compare_task(rows: Evaluation) -> Direction:
    """The largest change that fetched blocks make, over generic ones, to a task that needs no fact."""
    pairs = {task: pick_task(rows, task) for task in rows.list_values("experiment", ABSTRACT)}
    if not pairs:
        raise LookupError("abstract tasks were not measured")
    worst = max(pairs, key=lambda task: abs(pairs[task][0].value - pairs[task][1].value))
    return rows.compare(
        "tasks without facts: fetched over generic, where it differs most", "+0.8 on common tasks", "alike",
        "table 1, A2", plus=[pairs[worst][0]], minus=[pairs[worst][1]],
        note=f"The task is {worst.removeprefix(ABSTRACT)}, of {len(pairs)}.",
    )  # fmt: skip


def pick_task(rows: Evaluation, task: Any) -> tuple[Share, Share]:
    """Shares of an abstract task with fetched and with generic blocks."""
    return rows.find(task, FETCHED, paraphrase=None), rows.find(task, GENERIC, paraphrase=None)


def compare_specificity(rows: Evaluation) -> Direction:
    """The gain of fetched over generic blocks on facts, less that on tasks without facts; each a mean of shares."""
    facts = [(rows.find(TAIL, FETCHED, b), rows.find(TAIL, GENERIC, b)) for b in rows.list_values("bucket", TAIL)]
    tasks = [pick_task(rows, task) for task in rows.list_values("experiment", ABSTRACT)]
    if not facts or not tasks:
        raise LookupError("facts or tasks were not measured")
    fetched, generic = (join_shares([pair[side] for pair in facts]) for side in (0, 1))
    fetched_task, generic_task = (join_shares([pair[side] for pair in tasks]) for side in (0, 1))
    return rows.compare(
        "gain of fetched over generic: facts over tasks without facts", "grows with specificity", "above",
        "section 3, appendix G", plus=[fetched, generic_task], minus=[generic, fetched_task],
    )  # fmt: skip


def join_shares(shares: list[Share]) -> Share:
    """All questions as one sample."""
    count = sum(share.n for share in shares)
    return Share(sum(share.value * share.n for share in shares) / count, count)


def compare_posthoc(rows: Evaluation) -> Direction:
    """The co-trained bank less blocks trained afterwards on a frozen anchor, rarest facts."""
    plus, minus = rows.find(TAIL, FETCHED, RAREST), rows.find(KINDS, "FFN", RAREST)
    return rows.compare(
        "rarest facts: co-trained over frozen anchor", "+1.1 on specific tasks", "above", "table 1, A2, A3",
        plus=[plus], minus=[minus], note=APART,
    )  # fmt: skip


def compare_kinds(rows: Evaluation, kind: str, other: str, published: str) -> Direction:
    """One kind of block less another of the same size."""
    plus, minus = (rows.find(KINDS, one, RAREST) for one in (kind, other))
    return rows.compare(
        f"kind: {kind} over {other}", published, "above", "figure 3", plus=[plus], minus=[minus],
        note=POSTHOC,
    )  # fmt: skip


def compare_depths(rows: Evaluation, depth: str, other: str, relation: Relation, published: str) -> Direction:
    """Blocks of one size in some layers less the same in others."""
    plus, minus = (rows.find(DEPTH, one, RAREST) for one in (depth, other))
    return rows.compare(
        f"layers: {depth} over {other}", published, relation, "table 9, atomic numbers", plus=[plus], minus=[minus],
        note=POSTHOC,
    )  # fmt: skip
