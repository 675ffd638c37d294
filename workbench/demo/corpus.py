"""The demo's corpus: documents, training passages, throw-away entities to read about.

A passage is a list of segments, (text, is it an answer). Segments begin with a space, and byte-level BPE never merges
across a space, so that segments can be encoded one by one; the first of a row loses its space, as prompts have none.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workbench.demo.config import Config
from workbench.demo.world import Relation, World, WorldFact, group_documents

Segment = tuple[str, bool]

# Kinds of throw-away entities, and how often each is drawn.
KINDS = ("person", "company", "town")
KIND_WEIGHTS = (2, 1, 1)


@dataclass(frozen=True, slots=True)
class Passage:
    """A training row: its segments, and the document that it is a part of, which routes it."""

    segments: tuple[Segment, ...]
    document_id: str

    @property
    def text(self) -> str:
        """The passage as a string, without the beginning-of-text token."""
        return "".join(text for text, _ in self.segments).strip()


@dataclass(frozen=True, slots=True)
class Corpus:
    """Every statement of the world's facts: passages on one entity, and asides that stand at the end of others.

    Which passage an aside follows is drawn anew every epoch (`batches.py`), or the blocks of its host would learn it.
    """

    passages: tuple[Passage, ...]
    asides: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A throw-away entity: a document about it, and questions (prompt, answer) that the document answers."""

    document: str
    questions: tuple[tuple[str, str], ...]
    kind: str
    subject: str


def ask(relation: Relation, subject: str, template: int = 0) -> str:
    """A prompt that ends right before the answer."""
    return relation.templates[template].replace("{s}", subject)


def state(relation: Relation, subject: str, answer: str, draw: random.Random) -> list[Segment]:
    """A statement of one fact in one of the trained templates, as segments."""
    template = draw.choice(relation.trained)
    return [(" " + template.replace("{s}", subject), False), (" " + answer, True), (".", False)]


def write_documents(world: World, seed: int) -> dict[str, str]:
    """One document an entity that states all its facts, each in a trained template drawn with the seed."""
    documents = {}
    for name, facts in group_documents(world.facts).items():
        draw = random.Random(f"document/{seed}/{name}")
        texts = [
            "".join(text for text, _ in state(world.relations[fact.relation], fact.subject, fact.object, draw))
            for fact in facts
        ]
        documents[name] = "".join(texts).strip()
    return documents


def write_corpus(world: World, config: Config) -> Corpus:
    """The corpus of facts: every fact is stated exactly `occurrences` times.

    Statements about one entity stand together, a few a passage. A share of the statements about frequent entities
    (buckets 4 and 5) are asides: if all documents of an entity sat in one leaf of the tree, nothing would make the
    anchor learn what is common.
    """
    draw = random.Random(f"passages/{config.seed}")
    own: list[list[WorldFact]] = []
    asides: list[WorldFact] = []
    for facts in group_documents(fact for fact in world.facts if fact.occurrences).values():
        statements: list[WorldFact] = []
        for fact in facts:
            away = round(config.corpus.aside_share * fact.occurrences) if fact.bucket >= 4 else 0
            asides += [fact] * away
            statements += [fact] * (fact.occurrences - away)
        own += list(_chunk(statements, len(facts), config.corpus.statements_per_passage, draw))
    draw.shuffle(own)
    draw.shuffle(asides)
    groups = [*own, *([fact] for fact in asides)]
    rows = [Passage(tuple(_state_all(group, world, draw)), group[0].document_id) for group in groups]
    return Corpus(tuple(rows[: len(own)]), tuple(rows[len(own) :]))


def _chunk(statements: list[WorldFact], relations: int, size: int, draw: random.Random) -> Iterator[list[WorldFact]]:
    # Rounds of all relations, so that a passage rarely states one fact twice.
    statements = sorted(statements, key=lambda fact: fact.relation)
    rounds = max(1, len(statements) // max(1, relations))
    order = [fact for start in range(rounds) for fact in _shuffled(statements[start::rounds], draw)]
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _shuffled(facts: list[WorldFact], draw: random.Random) -> list[WorldFact]:
    draw.shuffle(facts)
    return facts


def _state_all(facts: list[WorldFact], world: World, draw: random.Random) -> list[Segment]:
    return [
        segment for fact in facts for segment in state(world.relations[fact.relation], fact.subject, fact.object, draw)
    ]


def invent_reading(world: World, draw: random.Random, facts: int, kind: str | None = None) -> Reading:
    """A throw-away entity with random facts; its name is no entity's of the world, trained or never seen."""
    kind = kind or draw.choices(KINDS, KIND_WEIGHTS)[0]
    subject = draw.choice(world.free_subjects[kind])
    relations = draw.sample(world.of_kind(kind), min(facts, len(world.of_kind(kind))))
    document, questions = "", []
    for relation in relations:
        answer = draw.choice(world.words[relation.objects])
        document += "".join(text for text, _ in state(relation, subject, answer, draw))
        questions.append((" " + draw.choice(relation.trained).replace("{s}", subject), " " + answer))
    draw.shuffle(questions)
    return Reading(document.strip(), tuple(questions), kind, subject)


def write_reading(world: World, draw: random.Random) -> tuple[list[Segment], str]:
    """A row to learn reading from: one to three documents, then questions about any of them; with a document's kind.

    Several documents are of one kind half the time: only the subject's name then tells them apart.
    """
    kind = draw.choices(KINDS, KIND_WEIGHTS)[0]
    alike = draw.random() < 0.5
    readings = [
        invent_reading(world, draw, draw.choice((1, 2, 2, 3)), kind if alike else None)
        for _ in range(draw.choice((1, 2, 3)))
    ]
    segments: list[Segment] = [(" " + reading.document, False) for reading in readings]
    segments += answer_questions(readings, 5, draw)
    return segments, readings[0].kind


def draw_readings(world: World, seed: int, count: int) -> list[tuple[list[Segment], str]]:
    """Rows to learn reading from, each with what its blocks are fetched by: its text up to the first answer."""
    draw = random.Random(f"routed readings/{seed}")
    rows = []
    for _ in range(count):
        segments, _kind = write_reading(world, draw)
        asked = itertools.takewhile(lambda segment: not segment[1], segments)
        rows.append((segments, "".join(text for text, _ in asked).strip()))
    return rows


def answer_questions(readings: Sequence[Reading], most: int, draw: random.Random) -> list[Segment]:
    """Questions about these readings with their answers, as segments, in an order that is drawn."""
    questions = [question for reading in readings for question in reading.questions]
    draw.shuffle(questions)
    return [part for prompt, answer in questions[:most] for part in ((prompt, False), (answer, True), (".", False))]
