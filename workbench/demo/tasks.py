"""Abstract material: tasks whose answer stands in, or follows from, the prompt, whatever the words are."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from workbench.demo.corpus import Segment, invent_reading
from workbench.demo.world import World


@dataclass(frozen=True, slots=True)
class Exercise:
    """One prompt of an abstract task and its one-token answer, which begins with a space."""

    id: str
    task: str
    prompt: str
    answer: str


def copy_words(world: World, draw: random.Random) -> tuple[str, str]:
    """A list of words is repeated; the answer is the next word."""
    words = draw.sample(world.words["objects"], draw.choice((3, 4, 5)))
    known = draw.randrange(1, len(words))
    return f"Repeat: {' '.join(words)}. Again: {' '.join(words[:known])}", " " + words[known]


def agree(world: World, draw: random.Random) -> tuple[str, str]:
    """The verb agrees with the first noun, not with the one in between."""
    plural = draw.random() < 0.5
    noun = draw.choice(world.words["plurals" if plural else "singulars"])
    other = draw.choice(world.words["plurals"] + world.words["singulars"])
    place = draw.choice(world.words["places"])
    return f"The {noun} {place} the {other}", " are" if plural else " is"


def count_words(world: World, draw: random.Random) -> tuple[str, str]:
    """How many times a word stands in a list, one to five."""
    word, number = draw.choice(world.words["objects"]), draw.randrange(1, 6)
    return f"Count: {' '.join([word] * number)}. The number is", f" {number}"


def compare(world: World, draw: random.Random) -> tuple[str, str]:
    """The larger of two different numbers up to 60."""
    first, second = draw.sample(range(1, 61), 2)
    return f"Of {first} and {second} the larger is", f" {max(first, second)}"


def read_answer(world: World, draw: random.Random) -> tuple[str, str]:
    """A short text about a throw-away entity, then a question that it answers."""
    reading = invent_reading(world, draw, 2)
    prompt, answer = reading.questions[0]
    return reading.document + prompt, answer


TASKS: dict[str, Callable[[World, random.Random], tuple[str, str]]] = {
    "copying": copy_words,
    "agreement": agree,
    "counting": count_words,
    "comparison": compare,
    "reading": read_answer,
}


def write_exercises(world: World, seed: int, each: int) -> list[Exercise]:
    """Exercises to evaluate with, `each` of every task; drawn from another stream than training's."""
    exercises = []
    for task, write in TASKS.items():
        draw = random.Random(f"exercise/{seed}/{task}")
        for number in range(each):
            prompt, answer = write(world, draw)
            exercises.append(Exercise(f"{task}/{number:03d}", task, prompt, answer))
    return exercises


def repeat_words(world: World, draw: random.Random) -> list[Segment]:
    """A list of words and its repetition, every word of which is an answer."""
    words = draw.sample(world.words["objects"], draw.choice((3, 4, 5)))
    return [(f" Repeat: {' '.join(words)}. Again:", False), *((" " + word, True) for word in words), (".", False)]


def write_drill(world: World, draw: random.Random, items: int = 3) -> list[Segment]:
    """A training row of several exercises (reading has rows of its own)."""
    segments: list[Segment] = []
    for _ in range(items):
        if draw.random() < 0.3:
            segments += repeat_words(world, draw)
            continue
        task = draw.choice([name for name in TASKS if name not in ("reading", "copying")])
        prompt, answer = TASKS[task](world, draw)
        tail = f" {draw.choice(world.words['adjectives'])}." if task == "agreement" else "."
        segments += [(" " + prompt, False), (answer, True), (tail, False)]
    return segments
