"""Tags of heads by the literature's finders: what is scored, on which texts, and from which score a tag is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probes.facts import Fact, read_rows
from workbench.library import find_shipped
from workbench.open_books import list_open_books, list_passages

if TYPE_CHECKING:
    from circuits.head_scores import Passage
    from circuits.intervals import Estimate
    from workbench.findings.study import Study
    from workbench.open_books import OpenBook

# Tokens before that a masked head still sees: short, for the demo's documents are short; texts of a pass.
WINDOW, BATCH = 16, 8
# Texts of a finder at most.
TEXTS = 32


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of heads: what is scored, in which unit, on what, and from which score on a head is tagged.

    `bound` counts for the lower end of the interval; for `below` the upper end lies below it.
    """

    metric: str
    unit: str
    texts: str
    bound: float
    source: str
    below: bool = False

    def applies(self, own: Estimate) -> bool:
        """Whether a head gets the tag."""
        return own.high < self.bound if self.below else own.low > self.bound


# Bounds are ours, but for retrieval's, which is that of Wu et al.
TAGS = {
    "memory": Tag(
        "drop of the answer's log-probability, distant tokens hidden", "nats", "facts behind documents", 0.0, ""
    ),
    "retrieval": Tag("share of answer tokens attended to most", "share", "facts behind documents", 0.1, ""),
    "induction": Tag("attention to what came after the same token", "attention", "random sequences twice", 0.3, ""),
    "copying": Tag("attention to what came after the same token", "attention", "copying exercises", 0.3, ""),
    "previous token": Tag("attention to the token before", "attention", "facts behind documents", 0.3, ""),
    "in-context": Tag("D_h by AttnLRP", "logits", "contradicting documents", 0.0, "context"),
    "parametric": Tag("D_h by AttnLRP", "logits", "contradicting documents", 0.0, "context", below=True),
}


def score_heads(study: Study) -> dict[str, list[list[Estimate]]]:
    """Score of every head by each finder, by layer and head; finders whose texts are not there are left out."""
    from circuits.head_scores import (
        estimate_heads,
        measure_induction,
        measure_matching,
        measure_performance,
        measure_retrieval,
    )
    from circuits.head_sources import contrast_sources, measure_previous

    model, tick, count = study.engine.model, study.tick, max(2, min(TEXTS, study.count))
    facts = study.list_new() or list(study.engine.facts)
    passages = list_passages(model, facts, study.engine.template, count, study.seed)
    found = {"induction": measure_induction(model, count, BATCH, study.seed, tick)}
    if copies := list_copies(study):
        found["copying"] = measure_matching(model, copies, BATCH, tick)
    if passages:
        found["previous token"] = measure_previous(model, [passage.ids for passage in passages], tick)
    if copied := [p for p in passages if all(p.ids[target] in p.ids[:target] for target in p.targets)]:
        found["retrieval"] = measure_retrieval(model, copied, BATCH, tick)
    if max((max(passage.targets) for passage in passages), default=0) - 2 > WINDOW:
        masked, whole = measure_performance(model, passages, WINDOW, BATCH, tick)
        found["memory"] = whole - masked
    if books := find_books(study, facts, count):
        found["context"] = contrast_sources(model, [b.opened for b in books], [b.closed for b in books], tick)
    return {name: estimate_heads(values, study.seed) for name, values in found.items()}


def list_exercises() -> list[Fact]:
    """Shipped exercises that need no fact; none where they are not shipped."""
    path = find_shipped() / "abstract.parquet"
    rows = read_rows(path) if path.is_file() else []
    return [Fact(str(row["id"]), "", str(row["task"]), "", str(row["prompt"]), str(row["answer"])) for row in rows]


def list_copies(study: Study) -> list[Passage]:
    """Copying exercises that the model solves, the answer's tokens being the targets."""
    import torch

    from circuits.head_scores import Passage

    model, passages = study.engine.model, []
    for fact in study.draw([one for one in list_exercises() if one.relation == "copying"], TEXTS, "copying"):
        ids, answer = model.encode(fact.prompt), model.encode_plain(fact.answer)
        with torch.no_grad():
            said = model.run(torch.tensor([[*ids, *answer]]))[0, len(ids) - 1 : -1].argmax(dim=-1).tolist()
        if said == answer:
            passages.append(Passage((*ids, *answer), tuple(range(len(ids), len(ids) + len(answer)))))
    return passages


def find_books(study: Study, facts: Sequence[Fact], count: int) -> list[OpenBook]:
    """Facts behind contradicting documents; none where no document says its answer."""
    from probes.errors import UserError

    try:
        return list_open_books(study.engine.model, facts, study.engine.template, count, study.seed)
    except UserError:
        return []


def tag_heads(study: Study) -> dict[str, list[tuple[str, Estimate]]]:
    """Heads that each tag applies to, with their scores, strongest first."""
    tagged = {}
    for name, tag in TAGS.items():
        scores = study.heads.get(tag.source or name)
        if scores is None:
            continue
        own = [
            (f"a{layer}.h{head}", score)
            for layer, heads in enumerate(scores)
            for head, score in enumerate(heads)
            if tag.applies(score)
        ]
        tagged[name] = sorted(own, key=lambda pair: -abs(pair[1].value))
    return tagged
