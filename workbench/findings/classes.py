"""Circuits as classes over many facts: how many are specific, through FFN units and through heads."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from workbench.findings.heads import find_head
from workbench.findings.record import UNMEASURED, Finding, Method, Row, format_number, judge, make_row
from workbench.findings.study import Study

if TYPE_CHECKING:
    from circuits.classes import CircuitClass

HOW = Method(
    "classes of single edges (Yang 2024, definitions 2 to 5), at least a tenth of the text's strongest and 0.05 nats",
    "exact zero ablation of attention weight or activation",
    "log-likelihood of the answer",
)
EXPECTED = (
    "classes through FFN units are specific more often than those through heads: the interval of the difference of "
    "shares lies above 0; undecided ones left out"
)
TITLE = "Circuits as classes: specific or abstract"
# Wordings of a fact, enough that a class of one fact can be decided; edges of a text that are ablated.
WORDINGS, CANDIDATES = 3, 96


def count_classes(study: Study) -> Finding:
    """Verdicts on the classes of all edges that are kept."""
    import numpy as np

    from circuits.classes import find_circuits
    from circuits.intervals import estimate_mean
    from circuits.text_graph import Text

    items, _ = study.choose_items(study.draw_relations(max(4, study.count // 2)), WORDINGS)
    if not items:
        return Finding("classes", TITLE, EXPECTED, HOW, UNMEASURED, (), ("The model gives none of the drawn answers.",))
    texts = [Text((*i.ids, *i.answer_ids), tuple(range(len(i.ids), len(i.ids) + len(i.answer_ids)))) for i in items]
    found, kept = find_circuits(
        study.engine.model,
        texts,
        [item.attachment for item in items],
        "edges",
        "ablation",
        candidates=CANDIDATES,
        seed=study.seed,
        tick=study.tick,
    )
    groups = {
        "heads": [one for one in found if find_head(one)],
        "FFN units": [one for one in found if not find_head(one)],
    }
    rows: list[Row] = []
    judged: dict[str, list[float]] = {}
    for name, own in groups.items():
        counts = Counter(one.verdict for one in own)
        for verdict in ("specific", "abstract", "undecided"):
            rows.append(Row(f"classes through {name}, {verdict}", counts[verdict], len(own), "classes", "classes"))
        judged[name] = [float(one.verdict == "specific") for one in own if one.verdict != "undecided"]
        if judged[name]:
            share = estimate_mean(judged[name], study.seed)
            rows.append(make_row(f"specific among the decided, {name}", share, "classes", "share"))
    note = (
        f"{sum(len(one.edges) for one in kept)} edges are kept of {len(texts)} prompts of "
        f"{len({item.fact for item in items})} facts; they fall into {len(found)} classes."
    )
    notes = [note, *describe_frequent(found, len(texts))]
    if not judged["heads"] or not judged["FFN units"]:
        return Finding("classes", TITLE, EXPECTED, HOW, UNMEASURED, tuple(rows), tuple(notes))
    generator = np.random.default_rng(study.seed)
    draws = [
        generator.choice(np.array(own), size=(2000, len(own))).mean(axis=1)
        for own in (judged["FFN units"], judged["heads"])
    ]
    low, high = (float(np.percentile(draws[0] - draws[1], q)) for q in (2.5, 97.5))
    difference = float(np.mean(judged["FFN units"]) - np.mean(judged["heads"]))
    number = len(judged["heads"]) + len(judged["FFN units"])
    rows.append(Row("share specific, FFN units less heads", difference, number, "classes", "share", low, high))
    return Finding("classes", TITLE, EXPECTED, HOW, judge(low > 0), tuple(rows), tuple(notes))


def describe_frequent(found: list[CircuitClass], texts: int) -> list[str]:
    """A sentence on the classes that occur most."""
    if not found:
        return []
    best = [
        f"{sorted(one.members[0][1])[0].name.split()[0]} in {one.rate.value * texts:.0f} prompts "
        f"({one.verdict}, variability {format_number(one.variability)})"
        for one in found[:4]
    ]
    return [f"Most frequent: {'; '.join(best)}."]
