"""A data set in batches that fit into memory: one problem of a few pairs at a time, whose scores are added up.

The metric of a data set is the mean over its pairs, so whatever is linear in it, as gradients and drops are, is the sum
over batches of (pairs of the batch / all pairs) x (the same of the batch alone). Only one batch's runs are held at a
time; it is run again when it is needed again. A data set of one batch is one problem, run once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.circuit import EdgeScores
from circuits.connectivity import Mask
from circuits.faithfulness import Faithfulness, RandomBaseline, draw_random_masks, measure_kept
from circuits.graph import Kind, Wiring
from circuits.limits import explain_memory
from circuits.methods import METHODS, Options
from circuits.part_selection import add_tables, score_parts
from circuits.parts import PartTable
from circuits.problem import Problem, refuse_still
from circuits.scoring import collect_scores, measure_scores
from probes.errors import UserError
from probes.progress import Tick, quiet

Found = TypeVar("Found")


class Batches:
    """A data set as problems of `sizes` pairs each; `pose(index, tick)` runs one.

    What `pose` gives for one batch of several has its positions summed.
    """

    def __init__(self, sizes: Sequence[int], pose: Callable[[int, Tick], Problem]) -> None:
        self.sizes = tuple(sizes)
        self._pose = pose
        self._kept: Problem | None = None

    @property
    def several(self) -> bool:
        """Whether there is more than one batch."""
        return len(self.sizes) > 1

    def each(self, work: Callable[[Problem], Found], tick: Tick) -> Iterator[tuple[Found, float]]:
        """What `work` finds in each batch, with the batch's share of the pairs; ticks between batches."""
        total, done = sum(self.sizes), 0
        for index, size in enumerate(self.sizes):
            if self.several:
                tick("pairs run", done, total)
            yield self._work(index, work, quiet if self.several else tick), size / total
            done += size

    def average(self, work: Callable[[Problem], float], tick: Tick) -> float:
        """Mean over the pairs of a number that is a mean over a batch's pairs."""
        return sum(value * share for value, share in self.each(work, tick))

    def _work(self, index: int, work: Callable[[Problem], Found], tick: Tick) -> Found:
        # No name of a problem outlives its work here: the next batch is run when this one is gone.
        with explain_memory("running the model"):
            if self.several:
                return work(self._pose(index, tick))
            if self._kept is None:
                self._kept = self._pose(index, tick)
            return work(self._kept)


def hold(problem: Problem) -> Batches:
    """One problem as a data set of one batch."""
    return Batches((problem.inputs.clean.shape[0],), lambda index, tick: problem)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep over a data set finds: scores, the parts' where asked for, and what selecting a circuit needs.

    `ends` are the positions at which the logits are read; `context` the share of each head's attention that goes to
    the context, the mean over the pairs' positions.
    """

    scores: EdgeScores
    parts: PartTable | None
    ends: tuple[int, ...]
    summed: bool
    context: Float[np.ndarray, "layer head 1 1"]


@dataclass(frozen=True, slots=True)
class _Sums:
    """Weighted sums over batches; with a weight of 1 those of one problem, as they are.

    `context` is summed over positions, of which there are `places`.
    """

    wiring: Wiring
    ablation: str
    metric: str
    ends: tuple[int, ...]
    summed: bool
    edges: Tensor | None
    nodes: Tensor | None
    parts: PartTable | None
    context: Float[Tensor, "layer head"]
    places: float
    clean: float
    ablated: float

    def weigh(self, weight: float) -> _Sums:
        """The same with every number multiplied, in double precision."""

        def multiply(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.detach().double().cpu() * weight

        return replace(
            self,
            edges=multiply(self.edges),
            nodes=multiply(self.nodes),
            parts=None if self.parts is None else add_tables([(self.parts, weight)]),
            context=self.context * weight,
            places=self.places * weight,
            clean=self.clean * weight,
            ablated=self.ablated * weight,
        )

    def add(self, other: _Sums) -> _Sums:
        """Both together. Raises UserError when their pairs have different memories, and so different graphs."""
        if self.wiring.plan != other.wiring.plan:
            raise UserError("the pairs have different memories attached: give all the same number of them, or none")
        tables = [table for table in (self.parts, other.parts) if table is not None]
        return replace(
            self,
            edges=None if self.edges is None or other.edges is None else self.edges + other.edges,
            nodes=None if self.nodes is None or other.nodes is None else self.nodes + other.nodes,
            parts=add_tables([(table, 1.0) for table in tables]) if tables else None,
            context=self.context + other.context,
            places=self.places + other.places,
            clean=self.clean + other.clean,
            ablated=self.ablated + other.ablated,
        )


def measure_batch(
    problem: Problem, method: str, options: Options, readers: Sequence[str], kinds: Sequence[Kind], tick: Tick
) -> _Sums:
    """Scores of one batch, and of its parts where `kinds` are named."""
    for name in readers:
        problem.wiring.find_reader(name)
    edges, nodes = measure_scores(problem, method, options, tick)
    parts = score_parts(problem, readers, kinds, tick) if kinds else None
    context, places = share_context(problem)
    about = problem.wiring, problem.ablation, problem.metric_name, problem.list_ends(), problem.summed
    return _Sums(*about, edges, nodes, parts, context, places, problem.metric_clean, problem.metric_ablated)


def sweep(
    batches: Batches,
    method: str,
    options: Options,
    tick: Tick,
    readers: Sequence[str] = (),
    kinds: Sequence[Kind] = (),
) -> Sweep:
    """Scores of a data set by a method of the table, and of its parts of these `kinds`, as nodes and into `readers`.

    Raises UserError for a method that decides on all pairs at once where there are several batches, for a metric that
    does not move, and for what the scoring of one problem refuses.
    """
    if batches.several and not METHODS[method].additive:
        raise UserError(
            f"{METHODS[method].label} decides on all pairs at once, so it cannot be done in {len(batches.sizes)} "
            "batches: raise --rows to the number of pairs, or choose another --method"
        )
    total: _Sums | None = None
    for found, share in batches.each(
        lambda problem: measure_batch(problem, method, options, readers, kinds, quiet if batches.several else tick),
        tick,
    ):
        part = found.weigh(share) if batches.several else found
        total = part if total is None else total.add(part)
    assert total is not None
    refuse_still(total.metric, total.clean, total.ablated)
    about = total.wiring, total.ablation, total.metric
    scores = collect_scores(*about, total.edges, total.nodes, method)
    context = (total.context / total.places)[:, :, None, None].float().numpy()
    return Sweep(scores, total.parts, total.ends, total.summed, context)


def share_context(problem: Problem) -> tuple[Float[Tensor, "layer head"], float]:
    """Share of each head's attention that goes to the context, summed over the pairs' positions, a pair; and how many.

    A layer that reads no memory has a share of 1 everywhere.
    """
    readout, record = problem.inputs.readout, problem.clean_record
    last = (readout.positions * (readout.weights > 0)).max(dim=1).values
    real = torch.arange(problem.inputs.clean.shape[1], device=last.device) <= last[:, None]
    pairs, places = problem.inputs.clean.shape[0], int(real.sum())
    full = torch.full((problem.model.heads,), float(places), dtype=torch.float64)
    rows = [
        record.share[layer].detach().double()[real].sum(dim=0).cpu() if layer in record.share else full
        for layer in range(problem.model.layers)
    ]
    return torch.stack(rows) / pairs, places / pairs


def measure_faithfulness(
    batches: Batches, wiring: Wiring, mask: Mask, unit: str, seed: int, tick: Tick, draws: int = 10
) -> Faithfulness:
    """Faithfulness over a data set of the circuit given by `mask`, and of `draws` random circuits of its size."""
    edges = int(mask.sum())

    def measure(problem: Problem) -> list[float]:
        inner = quiet if batches.several else tick
        (own,) = measure_kept(problem, [mask], 1, inner, "faithfulness")
        random = draw_random_masks(wiring, mask.shape[0], edges, draws, seed)
        kept = measure_kept(problem, random, draws, inner, "random circuits")
        return [problem.metric_clean, problem.metric_ablated, own, *kept]

    values = np.zeros(3 + draws)
    for found, share in batches.each(measure, tick):
        values += np.array(found) * share
    whole, empty, own, *kept = values.tolist()
    shares = [(value - empty) / (whole - empty) for value in kept]
    return Faithfulness(
        metric_whole=whole,
        metric_empty=empty,
        metric_circuit=own,
        normalised=(own - empty) / (whole - empty),
        unit=unit,
        edges=edges,
        random=RandomBaseline(float(np.mean(shares)), min(shares), max(shares), draws),
    )
