"""Planted knowledge of every kind in one model: what is specific, what is abstract, and to what, is known.

Nine facts, three relations of three subjects. A head of layer 0 tells every position which relation was asked: it
serves every fact. At the subject the answer to capitals is written by an FFN unit, to rivers by a unit in a bank
block of the subject's cluster, one a fact; in layer 2 one head carries capitals to the end and another rivers, each
serving its relation. The answer about food stands in an explicit memory of the subject, which a third head reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from circuits.planted.facts import GAIN, look_at
from circuits.planted.weights import CONTENT, D_HEAD, KV_HEADS, READING, Sketch
from probes.attachments import Attachment, BankBlocks, ExplicitBlocks

SUBJECTS = ("France", "Italy", "Spain")
ANSWERS = {
    "capital": ("Paris", "Rome", "Madrid"),
    "river": ("Seine", "Tiber", "Ebro"),
    "food": ("brie", "pasta", "paella"),
}
WORDINGS = ("{0} {1} is", "the {0} {1} is", "{0} the {1} is", "{0} {1} the is")
UNRELATED = ("the is the is the", "is is the France the is", "the Italy is the the")
# Slope of a unit's gate, half of which it has at its threshold: steep, so that one of two conditions leaves it shut.
GATE = 12.0
FIRING = float(torch.nn.functional.silu(torch.tensor(GATE / 2)))
# Layers of the head that finds the relation, of the units, and of the heads that read the answer.
ASKING, KNOWING, ANSWERING = 0, 1, 2
LEVEL = 1


@dataclass(frozen=True)
class PlantedFact:
    """One fact with its wordings; `attachment` is what its prompts read, by the names `cluster` and `memory`."""

    id: str
    relation: str
    prompts: tuple[str, ...]
    answer: str
    attachment: Attachment
    cluster: int
    memory: str


@dataclass(frozen=True)
class Knowledge:
    """A model with its facts, and which of its components are specific to a fact or abstract; all others are inert.

    Components by name, as in `circuits/component_effects.py`; `levels` says to what an abstract one is common.
    """

    sketch: Sketch
    facts: tuple[PlantedFact, ...]
    specific: frozenset[str]
    levels: dict[str, str]


def plant_knowledge(seed: int) -> Knowledge:
    """The model, its nine facts, and the truth about its components."""
    answers = [word for words in ANSWERS.values() for word in words]
    words = ("the", "is", *ANSWERS, *SUBJECTS, *answers)
    sketch = Sketch(3, words, tuple(f"asked {relation}" for relation in ANSWERS), seed)
    look_at(sketch, ASKING, 1, *ANSWERS)
    for column, relation in enumerate(ANSWERS):
        sketch.move(ASKING, 1, column, {relation: 1.0}, {f"asked {relation}": 1.0})
    for word in answers:
        sketch.read_out(word, {word: GAIN})
    units = [
        sketch.fire(KNOWING, detect_both("capital", subject), {answer: 1 / FIRING})
        for subject, answer in zip(SUBJECTS, ANSWERS["capital"], strict=True)
    ]
    # The head that reads memories first: heads 2 and 3 share keys, which the next call of `match` clears.
    sketch.match(ANSWERING, 3, 1, {"asked food": 1.0}, {}, score=12.0)
    for column, word in enumerate(ANSWERS["food"], start=3):
        sketch.move(ANSWERING, 3, column, {}, {word: 1.0})
    for head, relation in ((1, "capital"), (2, "river")):
        look_at(sketch, ANSWERING, head, *SUBJECTS)
        for column, word in enumerate(ANSWERS[relation]):
            sketch.move(ANSWERING, head, column, {word: 1.0}, {word: 1.0})
    attachments = [
        Attachment(write_memory(sketch, subject, column), write_block(sketch, subject, column))
        for column, subject in enumerate(SUBJECTS)
    ]
    facts = tuple(
        PlantedFact(
            f"{relation} of {subject}",
            relation,
            tuple(wording.format(relation, subject) for wording in WORDINGS),
            ANSWERS[relation][column],
            attachments[column],
            column,
            f"about {subject}",
        )
        for relation in ANSWERS
        for column, subject in enumerate(SUBJECTS)
    )
    specific = {f"m{KNOWING}.u{unit}" for unit in units} | {f"bank {LEVEL}:{column}" for column in range(len(SUBJECTS))}
    specific |= {f"memory about {subject}" for subject in SUBJECTS}
    relations = {f"a{ANSWERING}.h{head}": "relation" for head in (1, 2, 3)}
    return Knowledge(sketch, facts, frozenset(specific), relations | {f"a{ASKING}.h1": "everything"})


def detect_both(relation: str, subject: str) -> dict[str, float]:
    """Gate of a unit that fires where a relation was asked and the subject stands."""
    return {f"asked {relation}": GATE, subject: GATE, "one": -1.5 * GATE}


def write_block(sketch: Sketch, subject: str, cluster: int) -> BankBlocks:
    """The bank block of a subject: the unit that knows its river, and a random one."""
    gate, up = (sketch.draw_reads(1, 1, 2) for _ in range(2))
    down = sketch.draw_writes(1, 1, 2)
    gate[0, 0, 0] = sketch.spell(detect_both("river", subject))
    up[0, 0, 0] = sketch.spell({"one": 1.0})
    down[0, 0, 0] = sketch.spell({ANSWERS["river"][cluster]: 1 / FIRING})
    return BankBlocks((cluster,), (KNOWING,), {"gate": (gate,), "up": (up,), "down": (down,)})


def write_memory(sketch: Sketch, subject: str, column: int) -> ExplicitBlocks:
    """The memory about a subject, of three slots; one carries the key that head 3 looks for, and the food."""
    shape = (1, 1, 1, KV_HEADS, 3, D_HEAD)
    keys, values = (torch.randn(shape, generator=sketch.generator) * READING for _ in range(2))
    keys[..., CONTENT[1]] = 0.0
    values[..., : 3 + len(SUBJECTS)] = 0.0
    keys[0, 0, 0, 1, 0, CONTENT[1]] = 1.0
    values[0, 0, 0, 1, 0, 3 + column] = 1.0
    absent = torch.zeros(shape[:-1], dtype=torch.bool)
    return ExplicitBlocks((f"about {subject}",), (ANSWERING,), keys, values, absent)
