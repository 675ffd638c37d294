"""Planted facts: in one FFN unit, in a bank block, in an explicit memory read by one head, and over two hops."""

from __future__ import annotations

import torch

from circuits.planted.model import Planted
from circuits.planted.weights import CONTENT, D_HEAD, KV_HEADS, READING, Sketch
from probes.attachments import Attachment, BankBlocks, ExplicitBlocks

WORDS = ("the", "capital", "of", "France", "Italy", "is", "Paris", "Rome")
QUESTION, OTHER = "the capital of France is", "the capital of Italy is"
# Positions of the subject and of the last token of the question; `<s>` stands at 0.
SUBJECT, LAST = 4, 5
# Logits of a feature of size 1.
GAIN = 4.0
# What a unit that `detect`s gives where its number is 1.
FIRING = float(torch.nn.functional.silu(torch.tensor(3.0)))


def detect(name: str) -> dict[str, float]:
    """Gate of a unit that fires on a number of the stream: 3 where it is 1, -3 where it is 0."""
    return {name: 6.0, "one": -3.0}


def look_at(sketch: Sketch, layer: int, head: int, *subjects: str) -> None:
    """Let a head attend to these words from everywhere, and to `<s>` where there are none."""
    keys = dict.fromkeys(subjects, 1.0) | {"<s>": 0.5}
    sketch.match(layer, head, 0, {"one": 1.0}, keys, score=8.0)


def plant_unit_fact(seed: int) -> Planted:
    """An FFN unit knows that France has Paris; a head carries it from the subject to the end."""
    sketch = Sketch(3, WORDS, ("paris", "answer"), seed)
    sketch.fire(0, detect("France"), {"paris": 1 / FIRING})
    look_at(sketch, 1, 1, "France", "Italy")
    sketch.move(1, 1, 0, {"paris": 1.0}, {"answer": 1.0})
    sketch.read_out("Paris", {"answer": GAIN})
    edges = ((SUBJECT, "embed", "m0"), (SUBJECT, "m0", "a1.kv0.v"), (LAST, "a1.h1", "logits"))
    return Planted(sketch, QUESTION, OTHER, "Paris", "Rome", edges)


def plant_bank_fact(seed: int) -> Planted:
    """The same, but the unit lies in a block of the bank; a block of another level is background."""
    sketch = Sketch(3, WORDS, ("paris", "answer"), seed)
    look_at(sketch, 1, 1, "France", "Italy")
    sketch.move(1, 1, 0, {"paris": 1.0}, {"answer": 1.0})
    sketch.read_out("Paris", {"answer": GAIN})
    units, layers = (4, 2), (0, 1)
    gate, up = (tuple(sketch.draw_reads(1, len(layers), count) for count in units) for _ in range(2))
    down = tuple(sketch.draw_writes(1, len(layers), count) for count in units)
    gate[0][0, 0, 1] = sketch.spell(detect("France"))
    up[0][0, 0, 1] = sketch.spell({"one": 1.0})
    down[0][0, 0, 1] = sketch.spell({"paris": 1 / FIRING})
    edges = ((SUBJECT, "embed", "f0.l0"), (SUBJECT, "f0.l0", "a1.kv0.v"), (LAST, "a1.h1", "logits"))
    bank = BankBlocks((0, 0), layers, {"gate": gate, "up": up, "down": down})
    return Planted(sketch, QUESTION, OTHER, "Paris", "Rome", edges, attachment=Attachment(bank=bank))


def plant_explicit_fact(seed: int) -> Planted:
    """A head carries the subject to the end; there another finds it among a memory's keys and reads its value."""
    sketch = Sketch(3, WORDS, ("asked France", "asked Italy", "paris", "rome"), seed)
    look_at(sketch, 0, 1, "France", "Italy")
    answers = (("France", "paris", "Paris"), ("Italy", "rome", "Rome"))
    for column, (subject, feature, word) in enumerate(answers):
        sketch.move(0, 1, column, {subject: 1.0}, {f"asked {subject}": 1.0})
        sketch.match(1, 2, column, {f"asked {subject}": 1.0}, {}, score=10.0)
        sketch.move(1, 2, column, {}, {feature: 1.0})
        sketch.read_out(word, {feature: GAIN})
    edges = ((SUBJECT, "embed", "a0.kv0.v"), (LAST, "a0.h1", "x1.h2.b0.q"), (LAST, "x1.h2.b0", "logits"))
    attachment = Attachment(explicit=write_slots(sketch, len(answers)))
    return Planted(sketch, QUESTION, OTHER, "Paris", "Rome", edges, attachment=attachment)


def write_slots(sketch: Sketch, answers: int) -> ExplicitBlocks:
    """Two memories of three slots at layers 1 and 2, random but for one slot an answer of the first memory at layer 1.

    Those slots carry, for key-value head 1, the key that `match` looks for and the value that `move` writes.
    """
    shape = (1, 2, 2, KV_HEADS, 3, D_HEAD)
    keys, values = (torch.randn(shape, generator=sketch.generator) * READING for _ in range(2))
    for column in range(answers):
        keys[0, 0, :, 1, :, CONTENT[column]] = 0.0
        values[0, 0, :, 1, :, column] = 0.0
        keys[0, 0, 0, 1, column, CONTENT[column]] = 1.0
        values[0, 0, 0, 1, column, column] = 1.0
    return ExplicitBlocks(("facts", "others"), (1, 2), keys, values, torch.zeros(shape[:-1], dtype=torch.bool))


def plant_two_hops(seed: int) -> Planted:
    """A unit knows Anna's mother, a head carries her to the end, and there another unit knows where she lives."""
    words = ("the", "mother", "of", "Anna", "Emma", "lives", "in", "Oslo", "Rome")
    sketch = Sketch(4, words, ("mother is Berta", "asked Berta", "oslo"), seed)
    sketch.fire(0, detect("Anna"), {"mother is Berta": 1 / FIRING})
    look_at(sketch, 1, 1, "Anna", "Emma")
    sketch.move(1, 1, 0, {"mother is Berta": 1.0}, {"asked Berta": 1.0})
    sketch.fire(2, detect("asked Berta"), {"oslo": 1 / FIRING})
    sketch.read_out("Oslo", {"oslo": GAIN})
    edges = ((4, "embed", "m0"), (4, "m0", "a1.kv0.v"), (6, "a1.h1", "m2"), (6, "m2", "logits"))
    return Planted(sketch, "the mother of Anna lives in", "the mother of Emma lives in", "Oslo", "Rome", edges)
