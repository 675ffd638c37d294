"""From cases to what is scored: runs recorded and the metric set up, a data set in batches that fit into memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from probes.progress import Tick, quiet
from workbench.cases import Case, build_inputs
from workbench.engine import Engine
from workbench.settings import METHODS, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from circuits.batches import Batches
    from circuits.problem import Means, Problem

# Prompts that mean ablation averages over.
REFERENCES = 32


def pose(
    engine: Engine,
    cases: Sequence[Case],
    settings: Settings,
    tick: Tick = quiet,
    summed: bool | None = None,
    parts: bool | None = None,
    means: Means | None = None,
    alone: bool = True,
    attention: bool = True,
) -> Problem:
    """Problem of one case or several: clean and ablated run recorded, metric set up.

    `summed`, `means`, `alone` and `attention` as in `pose_problem`: by default positions are summed when there are
    several cases. `parts` records what writers are made of, by default where the settings ask for parts.
    """
    from circuits.limits import explain_memory
    from circuits.problem import pose_problem

    with explain_memory("running the prompts"):
        return pose_problem(
            engine.model,
            build_inputs(engine, cases, settings.metric),
            settings.ablation,
            settings.metric,
            list_references(engine, settings) if settings.ablation == "mean" and means is None else (),
            summed=summed,
            tick=tick,
            differentiable=METHODS[settings.method].reuses_run,
            attention=attention,
            parts=bool(settings.parts) if parts is None else parts,
            means=means,
            alone=alone,
        )


def list_references(engine: Engine, settings: Settings) -> list[Tensor]:
    """Token ids of the prompts that mean ablation averages over: a sample of the shipped facts' prompts."""
    import torch

    chosen = random.Random(settings.seed).sample(engine.facts, min(REFERENCES, len(engine.facts)))
    return [torch.tensor([engine.model.encode(fact.prompt)]) for fact in chosen]


def batch(engine: Engine, cases: Sequence[Case], settings: Settings, parts: bool | None = None) -> Batches:
    """The cases in batches of at most `settings.rows`, each run when it is asked for; `parts` as in `pose`."""
    from circuits.batches import Batches

    groups = [cases[start : start + settings.rows] for start in range(0, len(cases), settings.rows)]
    if len(groups) == 1:
        return Batches((len(cases),), lambda index, tick: pose(engine, cases, settings, tick, parts=parts))
    means: list[Means] = []

    def run(index: int, tick: Tick) -> Problem:
        if settings.ablation == "mean" and not means:
            means.append(average_groups(engine, groups, settings, tick, parts))
        known = means[0] if means else None
        return pose(engine, groups[index], settings, tick, summed=True, parts=parts, means=known, alone=False)

    return Batches([len(group) for group in groups], run)


def average_groups(
    engine: Engine, groups: Sequence[Sequence[Case]], settings: Settings, tick: Tick, parts: bool | None
) -> Means:
    """Means of mean ablation over all groups: each case's memories count as often as any other's."""
    from circuits.limits import explain_memory
    from circuits.problem import average, mix_means

    references, total = list_references(engine, settings), sum(map(len, groups))
    wanted = bool(settings.parts) if parts is None else parts
    found = []
    for group in groups:
        inputs = build_inputs(engine, group, settings.metric)
        with explain_memory("averaging over the reference prompts"):
            found.append((average(engine.model, inputs, references, tick, wanted), len(group) / total))
    return mix_means(found)
