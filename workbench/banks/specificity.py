"""How specific a task's knowledge is, beside what fetched blocks bring over generic ones.

Source: Pouransari et al. 2025, section 3 and appendix G: samples of a task are rated 0 (language alone), 1 (childhood
common sense), 2 (elementary school), 3 (middle school), 4 (high school) to 5 (later, or specific); from a mean of 2.0
on a task counts as specific knowledge. The paper's own ratings, by GPT-4, stand in a figure alone; the whole numbers
here are our reading of its scale (inferred), and give the two lists that it prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from circuits.intervals import estimate_mean
from probes.bank import Bank
from probes.errors import UserError
from probes.facts import Fact
from probes.models import Model
from probes.progress import Tick, quiet
from workbench.banks.blocking import Scorer

SCALE = (
    "language alone",
    "childhood common sense",
    "elementary school",
    "middle school",
    "high school",
    "later, or specific",
)
THRESHOLD = 2.0

# The paper's tasks as it divides them, and our rating of each by its scale.
COMMON = ("Lambada", "BoolQ", "SQuAD", "Winograd", "CoQA", "WinoGrande")
SPECIFIC = ("HellaSwag", "ARC-Easy", "ARC-Challenge", "TriviaQA", "NQ-open", "PIQA", "OpenBookQA")
RATINGS = {
    "Lambada": 0.0,
    "BoolQ": 1.0,
    "SQuAD": 1.0,
    "Winograd": 1.0,
    "CoQA": 1.0,
    "WinoGrande": 1.0,
    "HellaSwag": 2.0,
    "PIQA": 2.0,
    "OpenBookQA": 2.0,
    "ARC-Easy": 3.0,
    "ARC-Challenge": 4.0,
    "TriviaQA": 5.0,
    "NQ-open": 5.0,
}


@dataclass(frozen=True, slots=True)
class Task:
    """A task with its rating, and its questions as facts with the paths that they are routed to."""

    name: str
    score: float
    questions: tuple[Fact, ...]


def split_tasks(scores: Mapping[str, float], threshold: float = THRESHOLD) -> tuple[list[str], list[str]]:
    """Names of tasks of common and of specific knowledge. Raises UserError for a rating outside the scale."""
    for name, score in scores.items():
        if not 0 <= score <= len(SCALE) - 1:
            raise UserError(f"the rating of {name[:60]!r} is {score}: give a number from 0 to {len(SCALE) - 1}")
    common = [name for name, score in scores.items() if score < threshold]
    return common, [name for name in scores if name not in common]


def compare_tasks(
    model: Model, bank: Bank, tasks: Sequence[Task], limit: int = 200, seed: int = 0, tick: Tick = quiet
) -> dict[str, Any]:
    """One row a task: its rating and class, accuracy with generic and with fetched blocks, and the gain in the answer's
    log-probability (nats) with its bootstrap 95% interval; and the rank correlation of gain and rating (None where all
    ratings are equal).
    """
    split_tasks({task.name: task.score for task in tasks})
    generator = np.random.default_rng(seed)
    scorer, rows = Scorer(model, bank, "nothing"), []
    for task in tasks:
        chosen = [task.questions[i] for i in sorted(generator.permutation(len(task.questions))[:limit])]
        fetched = scorer.score(chosen, None, tick, f"{task.name}, fetched")
        generic = scorer.score(chosen, None, tick, f"{task.name}, generic", bank.generic_path)
        gain = fetched.log_probability - generic.log_probability
        rows.append(
            {
                "task": task.name,
                "score": task.score,
                "class": "specific" if task.score >= THRESHOLD else "common",
                "n": len(chosen),
                "generic": float(generic.correct.mean()),
                "fetched": float(fetched.correct.mean()),
                "gain": float(gain.mean()),
                "interval": estimate_mean(gain, generator).interval,
                "unit": "nats",
            }
        )
    scores = [row["score"] for row in rows]
    correlation = float(spearmanr(scores, [row["gain"] for row in rows])[0]) if len(set(scores)) > 1 else None
    return {"threshold": THRESHOLD, "rows": rows, "rank_correlation": correlation}
