"""Which heads the finders of the literature tag, and whether induction heads come out abstract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.findings.record import (
    DESCRIBED,
    UNMEASURED,
    Finding,
    Method,
    Row,
    format_number,
    judge,
    list_names,
)
from workbench.findings.study import Study
from workbench.findings.tags import TAGS, list_copies, tag_heads

if TYPE_CHECKING:
    from circuits.classes import CircuitClass

# Edges of a text that are ablated.
CANDIDATES = 128
HOW = Method(
    "memory (Yang 2024), retrieval (Wu 2024), induction and previous token (Olsson 2022), D_h (Kahardipraja 2025)",
    "memory: attention to distant tokens masked; others none",
    "each row's own",
)
INDUCTION = Method(
    "index: variance decomposition of effects; classes: definition 4 of Yang 2024 on copying exercises",
    "zero ablation, exact",
    "log-odds of the answer; log-likelihood of the target",
)
ABSTRACT = (
    "induction heads are abstract: no head that attends to what came after the same token, on random sequences or "
    "(where none does) on copying exercises, is specific by its index over facts, or has a class of single edges on "
    "copying exercises that is specific"
)


def describe_heads(study: Study) -> Finding:
    """Tagged heads of each finder, as rows, with how many there are."""
    title = "Heads that the literature's finders tag"
    rows, notes = [], []
    for name, own in tag_heads(study).items():
        tag = TAGS[name]
        side = f"at most {tag.bound:g}" if tag.below else f"above {tag.bound:g}"
        where = f"{tag.metric}, on {tag.texts}"
        rows += [Row(f"{name}: {head}, {where}", e.value, e.n, "texts", tag.unit, e.low, e.high) for head, e in own[:4]]
        notes.append(
            f"{name.capitalize()} ({where}; the whole interval {side} {tag.unit}): {len(own)} of "
            f"{sum(map(len, study.heads[tag.source or name]))} heads: {list_names([head for head, _ in own])}."
        )
    return Finding("heads", title, "", HOW, DESCRIBED if notes else UNMEASURED, tuple(rows), tuple(notes))


def judge_induction(study: Study) -> Finding:
    """Class of every induction head, by its index over facts and by the classes of its edges on copying exercises."""
    title = "Induction heads: abstract?"
    tags = tag_heads(study)
    name = next((name for name in ("induction", "copying") if tags.get(name)), "")
    if not name:
        note = f"No head attends to what came after the same token by more than {TAGS['induction'].bound:g}."
        return Finding("induction", title, ABSTRACT, INDUCTION, UNMEASURED, (), (note,))
    tagged = tags[name]
    index = {one.component: one for one in study.components.found}
    classes, texts = classify_copies(study)
    rows, specific, seen = [], False, 0
    notes = [
        f"Tagged on {TAGS[name].texts}: {list_names([head for head, _ in tagged])}; on random sequences that come "
        f"twice the largest score is {format_number(find_strongest(study))}. {texts} copying exercises are solved."
    ]
    for head, score in tagged:
        own = index[head]
        rows.append(Row(f"{head}: induction score", score.value, score.n, "texts", "attention", score.low, score.high))
        if own.label != "inert":
            facts = len(study.components.layout.facts)
            rows.append(Row(f"{head}: index", own.index, facts, "facts", "share", own.low, own.high))
        verdicts = [one.verdict for one in classes if find_head(one) == head]
        judged = [verdict for verdict in verdicts if verdict != "undecided"]
        share = sum(verdict == "abstract" for verdict in judged) / len(judged) if judged else None
        rows.append(Row(f"{head}: classes that are abstract", share, len(judged), "classes", "share"))
        specific |= own.label == "specific" or "specific" in judged
        seen += own.label != "inert" or bool(judged)
        at = f", largest effect {format_number(own.largest)} nats" if own.label == "inert" else ""
        notes.append(f"{head} is {own.label} over facts{at}; on copying exercises {describe_verdicts(verdicts)}.")
    verdict = judge(not specific) if seen else UNMEASURED
    return Finding("induction", title, ABSTRACT, INDUCTION, verdict, tuple(rows), tuple(notes))


def describe_verdicts(verdicts: Sequence[str]) -> str:
    """How many classes have each verdict."""
    if not verdicts:
        return "none of its edges is kept"
    counts = [f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts)]
    return f"its edges fall into classes that are {', '.join(counts)}"


def find_head(circuit: CircuitClass) -> str:
    """Name of the head of a class of single edges; empty for a unit."""
    edge = next(iter(circuit.members[0][1]))
    return "" if edge.mlp else f"a{edge.layer}.h{edge.part}"


def find_strongest(study: Study) -> float:
    """Largest induction score of any head."""
    return max(score.value for heads in study.heads["induction"] for score in heads)


def classify_copies(study: Study) -> tuple[list[CircuitClass], int]:
    """Classes of single edges on copying exercises that the model solves, and how many those are."""
    from circuits.classes import find_circuits
    from circuits.text_graph import Text

    texts = [Text(passage.ids, passage.targets) for passage in list_copies(study)]
    if not texts:
        return [], 0
    model, tick = study.engine.model, study.tick
    found, _ = find_circuits(model, texts, (), "edges", "ablation", candidates=CANDIDATES, seed=study.seed, tick=tick)
    return found, len(texts)
