"""Pruning edge by edge from the logits back (ACDC): what may go without moving the metric by more than a threshold.

1. Readers are visited from the logits back to the first layer, so everything behind a reader is already decided.
2. Each edge into the reader (later positions and later writers first) is ablated on top of all that is gone already.
   If the metric moves by less than the threshold, the edge stays ablated; else it is kept.
3. Edges into a reader whose component reaches nothing any more go without a pass: they move nothing.

Source: Conmy et al. 2023, algorithm 1. Two differences, on purpose: the metric is the problem's own, and what counts
is how far it moves in either direction, so an edge that works against the answer is kept too.

Passes are batched by guessing: a first-order estimate says which edges will go, the runs that would follow if the
guesses were right go through the model together, and whatever follows a wrong guess is thrown away and run again. The
result is that of one edge after another; at most twice as many runs are made, in far fewer batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.attribution import attribute
from circuits.connectivity import crosses, feed
from circuits.patching import count_rows, measure_masks
from circuits.problem import Problem
from probes.progress import Tick

# An edge as (pos, reader, writer).
Place = tuple[int, int, int]


@dataclass(slots=True)
class Pruning:
    """Where pruning stands: edges still kept, the metric with them, and the drops of those found to matter.

    `feeds` says which readers feed which writers, `across` which pass on to later positions.
    """

    kept: Float[Tensor, "pos reader writer"]
    value: float
    feeds: Bool[Tensor, "reader writer"]
    across: Bool[np.ndarray, " reader"]
    drops: dict[Place, float] = field(default_factory=dict)


def begin(problem: Problem) -> Pruning:
    """Every edge kept, nothing decided."""
    wiring, device = problem.wiring, problem.model.device
    exists = torch.from_numpy(wiring.visible.T.astype(np.float32)).to(device).expand(problem.positions, -1, -1)
    feeds = torch.from_numpy(feed(wiring)).to(device)
    return Pruning(exists.clone(), problem.metric_clean, feeds, crosses(wiring))


def guess_removals(problem: Problem, limit: float, tick: Tick) -> np.ndarray:
    """Edges [pos, reader, writer] whose first-order estimate is below the limit; all of them for a flat metric (KL)."""
    if problem.metric_name == "kl":
        return np.ones((problem.positions, *problem.wiring.visible.T.shape), dtype=bool)
    estimate = attribute(problem, tick).abs() < limit
    return estimate.transpose(1, 2).cpu().numpy()


def list_places(problem: Problem, state: Pruning, reader: int) -> list[Place]:
    """Edges into a reader that can still matter, later positions and writers first."""
    wiring = problem.wiring
    reached = state.kept[:, :, state.feeds[reader]].any(dim=1).any(dim=1).cpu()
    if state.across[reader]:
        reached = reached.flip(0).cummax(dim=0).values.flip(0)
    if reader == len(wiring.readers) - 1:
        reached[list(problem.list_ends())] = True
    writers = np.flatnonzero(wiring.visible[:, reader])[::-1].tolist()
    return [(p, reader, w) for p in reversed(range(problem.positions)) if reached[p] for w in writers]


def decide(problem: Problem, state: Pruning, places: list[Place], guesses: np.ndarray, limit: float) -> int:
    """Decide the first edges of `places` by one batch of runs; returns how many (those up to the first wrong guess)."""
    masks = state.kept.expand(len(places), *state.kept.shape).clone()
    for row, place in enumerate(places):
        masks[(row, *place)] = 0.0
        if guesses[place]:
            masks[(slice(row, None), *place)] = 0.0
    values = measure_masks(problem, masks).tolist()
    for done, (place, value) in enumerate(zip(places, values, strict=True), start=1):
        goes = abs(state.value - value) < limit
        if goes:
            state.kept[place], state.value = 0.0, value
        else:
            state.drops[place] = state.value - value
        if goes != bool(guesses[place]):
            return done
    return len(places)


def prune_edges(problem: Problem, threshold: float, tick: Tick) -> Float[Tensor, "pos writer reader"]:
    """Scores of the edges that pruning keeps: the drop of the metric when each was tried; pruned edges score 0.

    `threshold` is in the metric's unit. A batch of masks grows while the guesses are right and starts at one run after
    a wrong one.
    """
    wiring = problem.wiring
    guesses = guess_removals(problem, threshold, tick)
    state = begin(problem)
    largest = count_rows(problem) if problem.inputs.clean.shape[0] == 1 else 1
    rows = 1
    for reader in reversed(range(len(wiring.readers))):
        places = list_places(problem, state, reader)
        alive = torch.zeros_like(state.kept[:, reader])
        for position in {place[0] for place in places}:
            alive[position] = 1.0
        state.kept[:, reader] *= alive
        while places:
            tick("readers pruned", len(wiring.readers) - 1 - reader, len(wiring.readers))
            chunk = places[:rows]
            done = decide(problem, state, chunk, guesses, threshold)
            rows = min(largest, rows * 2) if done == len(chunk) else 1
            places = places[done:]
    scores = torch.zeros(problem.positions, *wiring.visible.shape, device=problem.model.device)
    for (position, reader, writer), drop in state.drops.items():
        scores[position, writer, reader] = drop
    return scores
