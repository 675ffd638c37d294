"""The demo: a small world of facts, and a model trained on it whose knowledge sits in several memories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def train(
    config_path: Path | None,
    out: Path,
    *,
    start: Path | None = None,
    resume: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Make the demo model in the folder `out`, see `workbench.demo.build`. `progress` gets (stage, done, total)."""
    from workbench.demo import build

    build.train(config_path, out, start=start, resume=resume, progress=progress)


def evaluate(folder: Path, *, seed: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
    """Measure a demo model; rows {experiment, condition, bucket, paraphrase, accuracy, n, low, high}.

    See `workbench.demo.evaluation.evaluate`.
    """
    from workbench.demo import evaluation

    return evaluation.evaluate(folder, seed=seed, limit=limit)


def run_experiments(
    folder: Path,
    work: Path,
    only: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train what the model card compares a demo model with, see `workbench.demo.experiments`; rows as `evaluate`'s."""
    from workbench.demo import experiments

    return experiments.run_experiments(folder, work, only, progress)
