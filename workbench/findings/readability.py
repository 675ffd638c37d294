"""Where an answer, and what is asked, become readable: logit lens, and linear probes with control tasks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.findings.record import DESCRIBED, UNMEASURED, Finding, Method, Row, format_number, judge, make_row
from workbench.findings.study import WORDINGS, Study

if TYPE_CHECKING:
    from circuits.component_effects import Item
    from probes.facts import Fact

LENS = Method("logit lens at the prompt's end", "none", "the answer's first token is the most likely one")
PROBE = Method(
    "linear probe tested on facts that it was not trained on, less its control task (Hewitt and Liang 2019)",
    "none",
    "accuracy",
)
EARLIER = (
    "the object can be read off at the subject's last token in an earlier layer than at the prompt's end (recalled "
    "there, then moved): half of the largest selectivity of either is reached at a smaller depth"
)
POSITIONS = ("subject", "last")
PROBE_WORDINGS = 3
# Facts that share an object, at least, so that a probe has something to share too; selectivity that counts as any.
SHARED, LEAST = 4, 0.05


def name_depth(depth: int, layers: int) -> str:
    """What a depth is called."""
    return "after the last layer" if depth == layers else f"before layer {depth}"


def read_answers(study: Study) -> Finding:
    """Share of prompts whose answer the logit lens puts first, at every depth."""
    import torch

    from circuits.intervals import estimate_mean
    from probes.lens import read_lens

    title, model = "Where the answer becomes readable (logit lens)", study.engine.model
    items, skipped = study.choose_items(study.draw_relations(study.count), WORDINGS)
    if not items:
        return Finding("lens", title, "", LENS, UNMEASURED, (), ("The model gives none of the drawn answers.",))
    first = []
    for done, item in enumerate(items):
        study.tick("logit lens", done, len(items))
        found = read_lens(model, torch.tensor([item.ids]), item.attachment, len(item.ids) - 1)
        first.append((found.argmax(dim=-1) == item.answer_ids[0]).double().tolist())
    shares = [estimate_mean(column, study.seed) for column in np.array(first).T]
    rows = [make_row(name_depth(depth, model.layers), own, "prompts", "share") for depth, own in enumerate(shares)]
    depth = find_half([own.value for own in shares])
    note = (
        f"{len(items)} prompts of {len({item.fact for item in items})} facts that the model answers ({len(skipped)} "
        f"left out): half of the final share is reached {name_depth(depth, model.layers)}."
    )
    return Finding("lens", title, "", LENS, DESCRIBED, tuple(rows), (note,))


def find_half(values: Sequence[float]) -> int:
    """First place whose value is half of the largest or more."""
    return next(place for place, value in enumerate(values) if value >= max(values) / 2)


def choose_probed(study: Study, facts: Sequence[Fact]) -> list[Fact]:
    """Facts of the relation with the most facts, spread over its most frequent objects, `SHARED` or more of each."""
    relation = Counter(fact.relation for fact in facts).most_common(1)[0][0]
    own = [fact for fact in facts if fact.relation == relation]
    objects = Counter(fact.object for fact in own)
    each = max(SHARED, study.count // 8)
    chosen: list[Fact] = []
    for name, _ in sorted(objects.items(), key=lambda pair: (-pair[1], pair[0]))[: max(2, study.count // each)]:
        chosen += study.draw([fact for fact in own if fact.object == name], each, f"object {name}")
    return chosen


def probe_positions(study: Study) -> Finding:
    """Selectivity for object and relation, at the subject's last token and at the prompt's end."""
    title, trained = "Where object and relation can be read off linearly", study.list_trained()
    rows: list[Row] = []
    notes: list[str] = []
    firsts: dict[tuple[str, str], int] = {}
    facts = {"object": choose_probed(study, trained), "relation": study.draw_relations(study.count)} if trained else {}
    for label, chosen in facts.items():
        items, _ = study.choose_items(chosen, PROBE_WORDINGS)
        found = probe_label(study, items, label, {fact.id: str(getattr(fact, label)) for fact in chosen})
        rows += found
        for position in POSITIONS:
            own = [row for row in found if f", {position}" in row.name]
            if own and max(values := [float(row.value or 0.0) for row in own]) > LEAST:
                firsts[label, position] = find_half(values)
                best = int(np.argmax(values))
                notes.append(
                    f"{label.capitalize()} at the {position} token: selectivity is largest "
                    f"{name_depth(best, study.engine.model.layers)} ({format_number(values[best])}), half of it is "
                    f"reached {name_depth(firsts[label, position], study.engine.model.layers)}."
                )
            elif own:
                notes.append(f"{label.capitalize()} at the {position} token: at no depth above {LEAST:g}.")
    subject, last = (firsts.get(("object", position), math.inf) for position in POSITIONS)
    if min(subject, last) == math.inf:
        notes = notes or ["Too few facts share an object."]
        return Finding("probe", title, EARLIER, PROBE, UNMEASURED, tuple(rows), tuple(notes))
    return Finding("probe", title, EARLIER, PROBE, judge(subject < last), tuple(rows), tuple(notes))


def probe_label(study: Study, items: Sequence[Item], label: str, label_of: dict[str, str]) -> list[Row]:
    """Rows of one label: selectivity by position and depth; none where nothing can be probed."""
    from probes.linear_probe import probe_labels
    from workbench.readouts import find_position, fold_facts, stack_items

    there = [item for item in items if min(find_position(item, position) for position in POSITIONS) >= 0]
    shared = Counter(label_of[name] for name in dict.fromkeys(item.fact for item in there))
    there = [item for item in there if shared[label_of[item.fact]] >= 2]
    labels, folds = [label_of[item.fact] for item in there], fold_facts(there, label_of)
    if len(set(labels)) < 2 or len(set(folds)) < 2:
        return []
    rows: list[Row] = []
    for position, streams in zip(POSITIONS, stack_items(study.engine, there, POSITIONS, study.tick), strict=True):
        for depth, stream in enumerate(streams):
            study.tick(f"probes of the {label}", depth, len(streams))
            found = probe_labels(stream, labels, [item.fact for item in there], folds, study.seed)
            name = f"{label}, {position} token, {name_depth(depth, study.engine.model.layers)}"
            rows.append(Row(name, found.selectivity, found.items, "prompts", "selectivity"))
    return rows
