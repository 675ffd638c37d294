"""Planted paths: an induction pair, two redundant paths, and a path that cancels another."""

from __future__ import annotations

from circuits.planted.facts import FIRING, GAIN, LAST, OTHER, QUESTION, SUBJECT, WORDS, detect, look_at
from circuits.planted.model import Planted
from circuits.planted.weights import Sketch

# Slope of the two units whose difference is a step from 0 to 1 between a quarter and three quarters.
STEEPNESS = 24.0


def plant_induction(seed: int) -> Planted:
    """A head tells each word which stood before it; another looks for the word after the present one's like.

    The pair changes all three inputs of the second head: the earlier word (key), its follower (value), the present
    word (query).
    """
    sketch = Sketch(3, ("x", "A", "B", "C", "D", "E", "y"), ("after A", "after D", "after E", "B next", "C next"), seed)
    sketch.follow(0, 0, score=20.0)
    for column, word in enumerate("ADE"):
        sketch.move(0, 0, column, {word: 1.0}, {f"after {word}": 1.0})
        sketch.match(1, 2, column, {word: 1.0}, {f"after {word}": 1.0}, score=16.0)
    sketch.match(1, 2, 3, {"one": 1.0}, {"<s>": 1.0}, score=8.0)
    for column, word in enumerate("BC"):
        sketch.move(1, 2, column, {word: 1.0}, {f"{word} next": 1.0})
        sketch.read_out(word, {f"{word} next": GAIN})
    edges = (
        (2, "embed", "a0.kv0.v"),
        (3, "a0.h0", "a1.kv1.k"),
        (3, "embed", "a1.kv1.v"),
        (5, "embed", "a1.h2.q"),
        (5, "a1.h2", "logits"),
    )
    parts = ((3, "a0.h0.p2"), (5, "a1.h2.p3"))
    return Planted(sketch, "x A B y A", "x D C y E", "B", "C", edges, parts=parts)


def plant_redundancy(seed: int) -> Planted:
    """Two heads carry the same to the end, and the MLP there writes the answer when either has."""
    sketch = Sketch(3, WORDS, ("found", "answer"), seed)
    for layer, head in ((0, 1), (1, 2)):
        look_at(sketch, layer, head, "France", "Italy")
        sketch.move(layer, head, 0, {"France": 1.0}, {"found": 1.0})
    for threshold, sign in ((0.25, 1.0), (0.75, -1.0)):
        gate = {"found": STEEPNESS, "one": -threshold * STEEPNESS}
        sketch.fire(2, gate, {"answer": sign * 2 / STEEPNESS})
    sketch.read_out("Paris", {"answer": GAIN})
    first = ((SUBJECT, "embed", "a0.kv0.v"), (LAST, "a0.h1", "m2"))
    second = ((SUBJECT, "embed", "a1.kv1.v"), (LAST, "a1.h2", "m2"))
    unseen = dict.fromkeys(first, second[1:]) | dict.fromkeys(second, first[1:])
    return Planted(sketch, QUESTION, OTHER, "Paris", "Rome", (*first, *second, (LAST, "m2", "logits")), unseen)


def plant_cancellation(seed: int) -> Planted:
    """What one head carries makes an MLP write the answer and a later one write as much against it; another head helps.

    The two MLPs cancel, so the answer comes from the second head alone.
    """
    sketch = Sketch(4, WORDS, ("found", "answer"), seed)
    for layer, head, feature in ((0, 1, "found"), (1, 2, "answer")):
        look_at(sketch, layer, head, "France", "Italy")
        sketch.move(layer, head, 0, {"France": 1.0}, {feature: 1.0})
    sketch.fire(1, detect("found"), {"answer": 1 / FIRING})
    sketch.fire(2, detect("found"), {"answer": -1 / FIRING})
    sketch.read_out("Paris", {"answer": GAIN})
    stem, against = (SUBJECT, "embed", "a0.kv0.v"), (LAST, "a0.h1", "m2")
    edges = (
        stem,
        (LAST, "a0.h1", "m1"),
        against,
        (LAST, "m1", "logits"),
        (LAST, "m2", "logits"),
        (SUBJECT, "embed", "a1.kv1.v"),
        (LAST, "a1.h2", "logits"),
    )
    return Planted(sketch, QUESTION, OTHER, "Paris", "Rome", edges, {stem: (against,)})
