"""Scores at rest of the parts that writers are made of: FFN units, units of bank blocks, slots, attention edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from circuits.graph import Component, Kind
from probes.errors import UserError

# What takes the place of a slot or attention edge. `ablated`: what it counts as under the run's ablation.
# `contribution`: nothing, its weighted value is taken away. `renormalised`: its score leaves the softmax, and the rest
# shares out its weight. Units compete with nothing, so they always count as ablated.
Removal = Literal["ablated", "contribution", "renormalised"]
REMOVALS: tuple[Removal, ...] = ("ablated", "contribution", "renormalised")

# Kinds of writers that have parts, with what these are called.
PART_KINDS = {
    Kind.MLP: "FFN unit",
    Kind.BANK: "bank unit",
    Kind.EXPLICIT: "memory slot",
    Kind.HEAD: "attention edge",
}
# Kinds whose parts have attention weights, and so more than one way of removal.
WEIGHED = (Kind.EXPLICIT, Kind.HEAD)


@dataclass(frozen=True, slots=True)
class PartScores:
    """Scores of all parts of one writer at every position, under one way of removal.

    `whole` is the writer, `reader` the name of the one reader for which the parts are removed, or empty for all of
    them (a node's score). `values[pos, part]` is the drop of the metric when that part alone is removed; positive
    helps the answer.
    """

    whole: Component
    reader: str
    values: Float[np.ndarray, "pos part"]
    removal: Removal = "ablated"


@dataclass(frozen=True, slots=True)
class RankedPart:
    """One part at one position with its score."""

    component: Component
    position: int
    score: float

    @property
    def id(self) -> str:
        """Name and position, as nodes have them: `m3.u17@4`."""
        return f"{self.component.name}@{self.position}"


@dataclass(frozen=True, slots=True)
class PartTable:
    """Part scores of one run."""

    scores: tuple[PartScores, ...]
    method: str
    ablation: str
    metric: str
    unit: str

    def find(self, whole: str, reader: str = "", removal: Removal = "ablated") -> PartScores:
        """Scores of one writer's parts, for one reader or all. Raises UserError when the table has none."""
        for scores in self.scores:
            if (scores.whole.name, scores.reader, scores.removal) == (whole, reader, removal):
                return scores
        into = f" into {reader[:80]}" if reader else ""
        raise UserError(f"no scores of the parts of {whole[:80]!r}{into}: they are scored for MLPs and memories only")

    def rank(
        self, count: int, reader: str = "", removal: Removal = "ablated", kinds: Sequence[Kind] = tuple(PART_KINDS)
    ) -> tuple[RankedPart, ...]:
        """The `count` parts with the largest absolute scores for one reader (or all), strongest first.

        Units, which are removed in one way only, rank as ablated whatever the removal.
        """
        strongest = [
            part
            for scores in self.scores
            if scores.reader == reader and scores.whole.kind in kinds
            if scores.removal == (removal if scores.whole.kind in WEIGHED else "ablated")
            for part in rank_parts(scores, count)
        ]
        strongest.sort(key=lambda part: (-abs(part.score), part.position, part.component.name))
        return tuple(strongest[:count])


def rank_parts(scores: PartScores, count: int) -> Iterator[RankedPart]:
    """The `count` strongest parts of one writer, strongest first; ties in order of position and part."""
    order = np.argsort(-np.abs(scores.values), axis=None, kind="stable")[:count]
    for position, part in zip(*np.unravel_index(order, scores.values.shape), strict=True):
        component = replace(scores.whole, part=int(part))
        yield RankedPart(component, int(position), float(scores.values[position, part]))


@dataclass(frozen=True, slots=True)
class KeptPart:
    """One part at one position as a run keeps it, with its estimates: drops of the metric, positive helps the answer.

    `reader` is the one reader that loses it, empty for all. `score` is that of removal as `ablated`; for an attention
    edge under mean ablation, which says nothing of edges, that of `contribution`. The other two ways of removal are
    None for units, which have no attention to give back.
    """

    component: Component
    position: int
    reader: str
    score: float
    contribution: float | None = None
    renormalised: float | None = None

    @property
    def id(self) -> str:
        """Name and position: `m3.u17@4`; of an attention edge the destination stands behind the sign: `a3.h1.p2@4`."""
        return f"{self.component.name}@{self.position}"

    @property
    def node(self) -> str:
        """Id of the node that it is a part of."""
        return f"{self.component.whole.name}@{self.position}"

    def estimate(self, removal: Removal) -> float | None:
        """Estimate under one way of removal, None where there is none."""
        return self.score if removal == "ablated" else getattr(self, removal)


@dataclass(frozen=True, slots=True)
class KeptParts:
    """The strongest parts of a run: `asked` of each kind as nodes and into each of `readers`, strongest first.

    Beside them the strongest few of every node of the circuit. `left_out` says in words which kinds were not scored
    and why.
    """

    parts: tuple[KeptPart, ...]
    asked: int
    readers: tuple[str, ...]
    method: str
    ablation: str
    metric: str
    unit: str
    left_out: tuple[str, ...] = ()

    def find(self, part: str, reader: str = "") -> KeptPart | None:
        """The part of an id into one reader, or (as a node) into all; None when it was not kept."""
        return next((kept for kept in self.parts if (kept.id, kept.reader) == (part, reader)), None)

    def list_of(self, node: str) -> tuple[KeptPart, ...]:
        """Parts of a node, strongest first, as nodes."""
        return tuple(kept for kept in self.parts if kept.node == node and not kept.reader)

    def list_strongest(self, kind: Kind, reader: str = "") -> tuple[KeptPart, ...]:
        """The strongest parts of a kind, as many as were asked for."""
        return tuple(kept for kept in self.parts if (kept.component.kind, kept.reader) == (kind, reader))[: self.asked]
