"""From facts to what is run of them: each in its wordings, with its memories; what is left out, and why.

Subjects are taken from the table, never searched for in a prompt, so one that is part of another is no trouble. A fact
stands once: an id that is given twice, or the same question with the same answer under another id, is left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probes.errors import UserError
from probes.facts import Fact
from workbench.settings import Settings

if TYPE_CHECKING:
    from circuits.component_effects import Item
    from workbench.engine import Engine


@dataclass(frozen=True, slots=True)
class Skipped:
    """A fact that is left out, with the reason."""

    fact: str
    reason: str


def choose_facts(
    facts: Sequence[Fact], ids: Sequence[str], relations: Sequence[str], split: str, limit: int, seed: int
) -> list[Fact]:
    """Facts by their ids, or `limit` of each relation (all relations when none is named), drawn by the seed.

    Raises UserError for an id, relation or split that no fact has.
    """
    from probes.facts import find_fact

    if ids:
        return [find_fact(facts, name) for name in ids]
    pool = [fact for fact in facts if not split or fact.split == split]
    if not pool:
        raise UserError(f"no fact has the split {split!r}: choose one of {', '.join(sorted({f.split for f in facts}))}")
    known = sorted({fact.relation for fact in pool})
    for name in relations:
        if name not in known:
            raise UserError(f"no fact has the relation {name[:80]!r}: choose one of {', '.join(known[:40])}")
    chosen: list[Fact] = []
    for name in relations or known:
        own = [fact for fact in pool if fact.relation == name]
        chosen += random.Random(f"{seed}:{name}").sample(own, min(limit, len(own)))
    return chosen


def drop_duplicates(facts: Iterable[Fact]) -> tuple[list[Fact], list[Skipped]]:
    """Facts that were not there before, and the others."""
    ids, questions = set[str](), dict[tuple[str, str], str]()
    kept, skipped = list[Fact](), list[Skipped]()
    for fact in facts:
        question = fact.prompt, fact.answer
        if fact.id in ids:
            skipped.append(Skipped(fact.id, "given twice"))
        elif question in questions:
            skipped.append(Skipped(fact.id, f"asks the same as {questions[question]}"))
        else:
            ids.add(fact.id)
            questions[question] = fact.id
            kept.append(fact)
    return kept, skipped


def build_items(
    engine: Engine, facts: Sequence[Fact], settings: Settings, wordings: int
) -> tuple[list[Item], list[Skipped]]:
    """An item for each of at most `wordings` wordings of each fact; facts that cannot be asked are skipped."""
    from circuits.component_effects import Item
    from probes.prompts import encode_answer, find_subject, refuse_length
    from workbench.cases import build_side

    kept, skipped = drop_duplicates(facts)
    items: list[Item] = []
    for fact in kept:
        prompts = list(dict.fromkeys((fact.prompt, *fact.paraphrases, *fact.heldout_paraphrases)))[:wordings]
        try:
            own = []
            for prompt in prompts:
                side = build_side(engine, settings, fact, prompt)
                whole = side.build_prompt(engine.template)
                ids, answer = tuple(engine.model.encode(whole)), encode_answer(engine.model, fact.answer, whole)[1]
                refuse_length(engine.model, len(ids) + len(answer) - 1)
                attached = engine.attach(side.path, side.memories)
                subject = find_subject(engine.model, whole, fact.subject)
                own.append(Item(fact.id, fact.relation, ids, answer, attached, side.path, side.memories, subject))
            items += own
        except UserError as error:
            skipped.append(Skipped(fact.id, str(error)))
    return items, skipped


def keep_known(items: Sequence[Item], known: Sequence[bool]) -> tuple[list[int], list[Skipped]]:
    """Places of the items of facts whose answer the model gives in at least one wording, and the other facts."""
    answered = {item.fact for item, knows in zip(items, known, strict=True) if knows}
    kept = [place for place, item in enumerate(items) if item.fact in answered]
    unknown = dict.fromkeys(item.fact for item in items if item.fact not in answered)
    return kept, [Skipped(fact, "the model does not give its answer in any wording") for fact in unknown]
