"""Scores at rest of the parts that writers are made of: FFN units, units of bank blocks, slots of explicit memories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from circuits.graph import Component
from probes.errors import UserError

# What takes a slot's place. `ablated`: what it counts as under the run's ablation. `contribution`: nothing, its
# weighted value is taken away. `renormalised`: its score leaves the softmax, and the rest shares out its weight.
Removal = Literal["ablated", "contribution", "renormalised"]


@dataclass(frozen=True, slots=True)
class PartScores:
    """Scores of all parts of one writer at every position.

    `whole` is the writer, `reader` the name of the one reader for which the parts are removed, or empty for all of
    them (a node's score). `values[pos, part]` is the drop of the metric when that part alone is removed; positive
    helps the answer.
    """

    whole: Component
    reader: str
    values: Float[np.ndarray, "pos part"]


@dataclass(frozen=True, slots=True)
class RankedPart:
    """One part at one position with its score."""

    component: Component
    position: int
    score: float


@dataclass(frozen=True, slots=True)
class PartTable:
    """Part scores of one run. `removal` says what takes a slot's place; units always count as ablated."""

    scores: tuple[PartScores, ...]
    removal: Removal
    method: str
    ablation: str
    metric: str
    unit: str

    def find(self, whole: str, reader: str = "") -> PartScores:
        """Scores of one writer's parts, for one reader or all. Raises UserError when the table has none."""
        for scores in self.scores:
            if scores.whole.name == whole and scores.reader == reader:
                return scores
        into = f" into {reader[:80]}" if reader else ""
        raise UserError(f"no scores of the parts of {whole[:80]!r}{into}: they are scored for MLPs and memories only")

    def rank(self, count: int, reader: str = "") -> tuple[RankedPart, ...]:
        """The `count` parts with the largest absolute scores for one reader (or all), strongest first."""
        strongest = [part for scores in self.scores if scores.reader == reader for part in rank_parts(scores, count)]
        strongest.sort(key=lambda part: (-abs(part.score), part.position, part.component.name))
        return tuple(strongest[:count])


def rank_parts(scores: PartScores, count: int) -> Iterator[RankedPart]:
    """The `count` strongest parts of one writer, strongest first; ties in order of position and part."""
    order = np.argsort(-np.abs(scores.values), axis=None, kind="stable")[:count]
    for position, part in zip(*np.unravel_index(order, scores.values.shape), strict=True):
        component = replace(scores.whole, part=int(part))
        yield RankedPart(component, int(position), float(scores.values[position, part]))
