"""Scores of every prompt pair of a batch by itself: one run of the batch, as many sets of scores as pairs.

The metric of a batch is the mean over its pairs, and pairs do not see each other, so the gradient at a row of the batch
is that of the row's own metric divided by the number of pairs. Estimates from gradients can therefore be read off row
by row before anything is added up; positions are summed, since pairs may differ in length.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from circuits.methods import Options
from circuits.problem import Problem
from circuits.scoring import measure_scores
from probes.errors import UserError
from probes.progress import Tick, quiet

# Methods that estimate every edge from gradients alone.
APART = ("eap", "eap-ig", "eap-ig-activations", "relp", "attnlrp")


def score_pairs(
    problem: Problem, method: str, options: Options, tick: Tick = quiet
) -> Float[np.ndarray, "pair writer reader"]:
    """Scores of every edge for each pair alone, all positions together, in the method's unit; positive helps.

    Raises UserError for a method that is no estimate from gradients, as `measure_scores` does, and when a score is not
    finite.
    """
    if method not in APART:
        raise UserError(f"{method} does not score the pairs of a batch apart: choose one of {', '.join(APART)}")
    edges, _ = measure_scores(replace(problem, summed=True, apart=True), method, options, tick)
    assert edges is not None
    if not bool(torch.isfinite(edges).all()):
        raise UserError("scores are not finite: the gradient overflows here; try --dtype float32 or --method exact")
    return edges.detach().float().cpu().numpy()
