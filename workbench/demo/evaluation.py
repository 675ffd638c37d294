"""Measuring a demo model: greedy next-token accuracy of every memory, with a bootstrap 95% interval.

Measured here: routing (how many bare prompts reach their document's leaf), long tail (trained facts by frequency, with
every way to use the bank), explicit memory (facts never seen in training), the abstract tasks with each memory
attached. The rows of `demo experiments`, which trained models of their own, are added as they were recorded. Accuracy
is the share of prompts after which the most likely token is the answer's, at each of its tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.demo.batches import Encoder, pad_rows
from workbench.demo.clusters import embed
from workbench.demo.loading import Demo, load_arms, load_demo
from workbench.demo.memories import write_memories
from workbench.demo.network import FETCHED, GENERIC, NONE, share_memory

LIMIT = 200  # facts a bucket, unless told otherwise
DENSE = 10_000  # slots a head of a dense memory: more than any reference has tokens
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, its answer, where the routers send it, and the document of its fact (None: it has none)."""

    prompt: str
    answer: str
    path: tuple[int, ...] = ()
    blocked_path: tuple[int, ...] = ()
    plain_path: tuple[int, ...] = ()
    home: str | None = None


def evaluate(folder: Path, *, seed: int = 0, limit: int | None = None) -> list[Row]:
    """Rows {experiment, condition, bucket, paraphrase, accuracy, n, low, high}.

    At most `limit` facts a bucket (200), drawn with the seed. `bucket` is None where none applies and 0 for never-seen
    facts. Raises `UserError` when the folder holds no demo model, or the sentence encoder is not installed.
    """
    demo = load_demo(folder)
    limit = LIMIT if limit is None else limit
    rows = measure_long_tail(demo, seed, limit)
    rows += measure_explicit_memory(demo, seed, limit * 2)
    return rows + measure_abstract(demo, seed, limit) + collect_rows(load_arms(folder))


def collect_rows(arms: Sequence[Row]) -> list[Row]:
    """Rows of the experiments' arms; of arms that differ in their rate alone, those of the lowest training loss."""
    best: dict[tuple[str, str], Row] = {}
    for arm in arms:
        key = (arm["experiment"], arm["condition"])
        if key not in best or arm["loss"] < best[key]["loss"]:
            best[key] = arm
    return [row for arm in best.values() for row in arm["rows"]]


def route_questions(demo: Demo, questions: Sequence[Question]) -> list[Question]:
    """The same questions with their paths: by the router, by it with its best subtree blocked, by the plain router."""
    embedded = embed([question.prompt for question in questions])
    vectors = demo.whitening.apply(embedded)
    paths = demo.tree.route(vectors)
    ways = (paths, demo.tree.route(vectors, blocked=paths[:, 0]), demo.plain_tree.route(embedded))
    routed = (list(map(as_path, way)) for way in ways)
    return [
        replace(question, path=path, blocked_path=blocked, plain_path=plain)
        for question, path, blocked, plain in zip(questions, *routed, strict=True)
    ]


def as_path(row: NDArray[np.int64]) -> tuple[int, ...]:
    """One text's clusters, a number a level."""
    return tuple(int(cluster) for cluster in row)


def judge(
    demo: Demo,
    questions: Sequence[Question],
    paths: Sequence[Sequence[int]] | None = None,
    mode: int = NONE,
    memories: Sequence[Sequence[int]] | None = None,
) -> NDArray[np.bool_]:
    """Which answers are right: the most likely token of each step is the answer's, given the ones before.

    `memories` are rows of the explicit memory, as many for every question.
    """
    encoder = Encoder(demo.tokenizer)
    steps = [(number, ids, token) for number, q in enumerate(questions) for ids, token in spell(encoder, q)]
    steps.sort(key=lambda step: len(step[1]))
    right = np.ones(len(questions), dtype=np.bool_)
    for start in range(0, len(steps), 128):
        numbers, rows, tokens = zip(*steps[start : start + 128], strict=True)
        where = [paths[number] if paths else (0,) * demo.config.clusters.depth for number in numbers]
        picked = None if memories is None else torch.tensor([list(memories[number]) for number in numbers])
        for number, token, found in zip(numbers, tokens, predict(demo, rows, where, mode, picked), strict=True):
            right[number] &= found == token
    return right


def spell(encoder: Encoder, question: Question) -> Iterator[tuple[list[int], int]]:
    """The tokens that stand before each token of the answer, and this token."""
    prompt, answer = encoder.encode_row([(question.prompt, False)])[0], encoder.encode(question.answer)
    for place, token in enumerate(answer):
        yield prompt + answer[:place], token


def predict(
    demo: Demo, ids: Sequence[list[int]], paths: Sequence[Sequence[int]], mode: int, picked: torch.Tensor | None
) -> list[int]:
    """Most likely next token of each row of ids, with the blocks of its path and the memories picked for it."""
    tokens = pad_rows(ids, 0)
    last = torch.tensor([len(row) - 1 for row in ids])
    with torch.no_grad():
        blocks = None
        if mode != NONE:
            blocks = demo.bank.fetch(torch.tensor([list(path) for path in paths]), torch.full((len(ids),), mode))
        extra: dict[str, Any] = {}
        if picked is not None:
            extra["memory"] = share_memory(demo.model, demo.memory, picked, demo.config.memory.offset)
        with demo.attached.attach(blocks):
            hidden = demo.model.model(input_ids=tokens, use_cache=False, **extra).last_hidden_state
        logits = demo.model.lm_head(hidden[torch.arange(len(ids)), last])
    return [int(token) for token in logits.argmax(-1)]


def summarise(
    right: NDArray[np.bool_], experiment: str, condition: str, bucket: int | None, paraphrase: str, seed: int
) -> Row:
    """One row: accuracy and the percentiles 2.5 and 97.5 of 2,000 bootstrap resamples."""
    count, share = len(right), float(right.mean()) if len(right) else 0.0
    # A resample of n zeros and ones is a binomial draw.
    draws = np.random.default_rng(seed).binomial(max(count, 1), share, 2000) / max(count, 1)
    low, high = (float(value) for value in np.percentile(draws, (2.5, 97.5)))
    return {
        "experiment": experiment,
        "condition": condition,
        "bucket": bucket,
        "paraphrase": paraphrase,
        "accuracy": round(share, 4),
        "n": count,
        "low": round(low, 4),
        "high": round(high, 4),
    }


def draw_questions(facts: Sequence[Row], paraphrase: str, draw: random.Random) -> list[Question]:
    """One prompt a fact, in a trained template or in one held out of training."""
    column = "paraphrases" if paraphrase == "seen" else "heldout_paraphrases"
    return [Question(draw.choice(fact[column]), fact["answer"], home=fact["document_id"]) for fact in facts]


def measure_long_tail(demo: Demo, seed: int, limit: int) -> list[Row]:
    """Trained facts by bucket and paraphrase: no bank, generic block, fetched, wrong cluster, fetched one blocked."""
    draw = random.Random(seed)
    rows: list[Row] = []
    for bucket in sorted({fact["bucket"] for fact in demo.facts if fact["bucket"]}):
        facts = [fact for fact in demo.facts if fact["bucket"] == bucket]
        facts = draw.sample(facts, min(limit, len(facts)))
        homes = find_homes(demo, sorted({fact["document_id"] for fact in facts}))
        for paraphrase in ("seen", "held-out"):
            questions = route_questions(demo, draw_questions(facts, paraphrase, draw))
            hits = np.array([q.path == homes[str(q.home)][0] for q in questions])
            rows.append(summarise(hits, "routing", "leaf hit", bucket, paraphrase, seed))
            plain = np.array([q.plain_path == homes[str(q.home)][1] for q in questions])
            rows.append(summarise(plain, "routing", "leaf hit, plain router", bucket, paraphrase, seed))
            if demo.alone is not None:
                right = judge(replace(demo, model=demo.alone), questions)
                rows.append(summarise(right, "long tail", "anchor trained alone", bucket, paraphrase, seed))
            for condition, (paths, mode) in bank_conditions(demo, questions, draw).items():
                right = judge(demo, questions, paths, mode)
                rows.append(summarise(right, "long tail", condition, bucket, paraphrase, seed))
    return rows


def find_homes(demo: Demo, names: Sequence[str]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The path of each of these documents, as its own text is routed: by the router and by the plain one."""
    vectors = embed([demo.documents[name] for name in names])
    paths = map(as_path, demo.tree.route(demo.whitening.apply(vectors)))
    plain = map(as_path, demo.plain_tree.route(vectors))
    return dict(zip(names, zip(paths, plain, strict=True), strict=True))


def bank_conditions(
    demo: Demo, questions: Sequence[Question], draw: random.Random
) -> dict[str, tuple[list[tuple[int, ...]], int]]:
    """Paths and mode of each way to use the bank.

    Wrong cluster: a random leaf of another subtree of level 1. Blocked: the best subtree of level 1 is taken away and
    the router goes on with the next best (the paper's experiment).
    """
    fetched = [q.path for q in questions]
    return {
        "no block": (fetched, NONE),
        "generic": (fetched, GENERIC),
        "fetched": (fetched, FETCHED),
        "wrong cluster": ([draw_wrong_path(demo, q.path, draw) for q in questions], FETCHED),
        "blocked": ([q.blocked_path for q in questions], FETCHED),
    }


def draw_wrong_path(demo: Demo, path: tuple[int, ...], draw: random.Random) -> tuple[int, ...]:
    """A random path that shares no cluster with this one."""
    branching = demo.tree.branching
    cluster = draw.choice([child for child in range(branching) if child != path[0]])
    wrong = [cluster]
    for _ in path[1:]:
        cluster = cluster * branching + draw.randrange(branching)
        wrong.append(cluster)
    return tuple(wrong)


def measure_explicit_memory(
    demo: Demo, seed: int, limit: int, paraphrases: Sequence[str] = ("seen", "held-out"), dense: bool = True
) -> list[Row]:
    """Facts never seen in training, without the bank: nothing, the document as text, one, five, or a wrong memory.

    With `dense` also memories that keep every key and value of the memory layers instead of `slots` a head.
    """
    draw = random.Random(seed + 1)
    facts = [fact for fact in demo.facts if fact["split"] == "never-seen" and fact["document_id"] in demo.memory_ids]
    facts = draw.sample(facts, min(limit, len(facts)))
    texts = [demo.documents[name] for name in demo.memory_ids]
    if dense:
        whole = replace(demo, memory=write_memories(demo.model, Encoder(demo.tokenizer), demo.config, texts, DENSE))
    rows: list[Row] = []
    for paraphrase in paraphrases:
        questions = draw_questions(facts, paraphrase, draw)
        read = [replace(q, prompt=f"{demo.documents[str(q.home)]} {q.prompt}") for q in questions]
        own = [demo.memory_ids[str(q.home)] for q in questions]
        others = [draw.sample([row for row in demo.memory_ids.values() if row != mine], 4) for mine in own]
        five = [[mine, *rest] for mine, rest in zip(own, others, strict=True)]
        one = [[mine] for mine in own]
        answers = {
            "none": judge(demo, questions),
            "text in the prompt": judge(demo, read),
            "one memory": judge(demo, questions, memories=one),
            "five memories": judge(demo, questions, memories=five),
            "wrong memory": judge(demo, questions, memories=[rest[:1] for rest in others]),
        }
        if dense:
            answers["one dense memory"] = judge(whole, questions, memories=one)
            answers["five dense memories"] = judge(whole, questions, memories=five)
        for condition, right in answers.items():
            rows.append(summarise(right, "explicit memory", condition, 0, paraphrase, seed))
    return rows


def measure_abstract(demo: Demo, seed: int, limit: int) -> list[Row]:
    """Abstract tasks with every way to use the bank, and with an explicit memory of something else."""
    draw = random.Random(seed + 2)
    rows: list[Row] = []
    for task in dict.fromkeys(exercise["task"] for exercise in demo.exercises):
        chosen = [exercise for exercise in demo.exercises if exercise["task"] == task][:limit]
        questions = route_questions(demo, [Question(e["prompt"], e["answer"]) for e in chosen])
        answers = {
            condition: judge(demo, questions, paths, mode)
            for condition, (paths, mode) in bank_conditions(demo, questions, draw).items()
        }
        some = [[draw.choice(list(demo.memory_ids.values()))] for _ in questions]
        answers["wrong memory"] = judge(demo, questions, memories=some)
        for condition, right in answers.items():
            rows.append(summarise(right, f"abstract: {task}", condition, None, "", seed))
    return rows
