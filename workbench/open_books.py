"""Facts behind texts: behind the document that states them, behind one that says another answer, and alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probes.errors import UserError
from probes.facts import Fact
from probes.prompts import encode_answer, list_counterfactuals
from workbench.cases import Side, swap_answer

if TYPE_CHECKING:
    from circuits.component_effects import Item
    from circuits.head_scores import Passage
    from probes.models import Model


@dataclass(frozen=True, slots=True)
class OpenBook:
    """A fact asked twice: `opened` behind a text that says another answer (which it asks for), `closed` alone.

    `context` is where the text stands, from a position up to but not including one.
    """

    opened: Item
    closed: Item
    context: tuple[int, int]


def list_passages(model: Model, facts: Sequence[Fact], template: str, limit: int, seed: int) -> list[Passage]:
    """At most `limit` facts, drawn by the seed, each after its own document; the answer's tokens are the targets.

    Those without a document that says the answer, and those too long for the model, are left out.
    """
    from circuits.head_scores import Passage

    stated, passages = [fact for fact in facts if fact.answer in fact.document], []
    for fact in random.Random(seed).sample(stated, min(limit, len(stated))):
        text = template.format(document=fact.document, prompt=fact.prompt)
        ids, answer = list(model.tokenizer(text)["input_ids"]), model.encode_plain(fact.answer)
        if len(ids) + len(answer) <= model.context:
            passages.append(Passage((*ids, *answer), tuple(range(len(ids), len(ids) + len(answer)))))
    return passages


def list_open_books(model: Model, facts: Sequence[Fact], template: str, limit: int, seed: int) -> list[OpenBook]:
    """At most `limit` facts, drawn by the seed, whose document says the answer and fits into the model's context.

    The other answer is that of another fact of the relation. Raises UserError when there is none.
    """
    from circuits.component_effects import Item
    from probes.attachments import NOTHING

    found: list[OpenBook] = []
    shuffled = list(facts)
    random.Random(seed).shuffle(shuffled)
    start = len(list(model.tokenizer("")["input_ids"]))

    def ask(fact: Fact, prompt: str, answer: str) -> Item:
        ids, wanted = tuple(model.encode(prompt)), encode_answer(model, answer, prompt)[1]
        return Item(fact.id, fact.relation, ids, wanted, NOTHING)

    for fact in shuffled:
        other = next(list_counterfactuals(model, fact, facts, seed), None)
        side = other and swap_answer(Side(fact.prompt, text=fact.document), fact.answer, other.answer)
        if not side or other is None:
            continue
        try:
            opened = ask(fact, template.format(document=side.text, prompt=fact.prompt), other.answer)
        except UserError:
            continue
        stop = min(len(model.encode(side.text)), len(opened.ids))
        found.append(OpenBook(opened, ask(fact, fact.prompt, fact.answer), (start, stop)))
        if len(found) == limit:
            break
    if not found:
        raise UserError("no fact has a document that says its answer and fits into the model's context")
    return found
