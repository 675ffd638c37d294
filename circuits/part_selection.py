"""Every part of every writer scored, and the strongest kept: as nodes, into chosen readers, and node by node."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from circuits.attention import attribute_attention
from circuits.graph import Component, Kind
from circuits.limits import explain_memory
from circuits.parts import (
    PART_KINDS,
    REMOVALS,
    WEIGHED,
    KeptPart,
    KeptParts,
    PartScores,
    PartTable,
    RankedPart,
    Removal,
    rank_parts,
)
from circuits.problem import Problem
from circuits.units import attribute_parts
from probes.errors import UserError
from probes.progress import Tick

# Parts kept of each node of the circuit, at most, beside the strongest of the whole model.
PER_NODE = 5


def list_removals(kind: Kind, ablation: str) -> tuple[Removal, ...]:
    """Ways of removal that a kind of parts has under an ablation, the one that ranks them first."""
    if kind not in WEIGHED:
        return ("ablated",)
    return REMOVALS[1:] if kind is Kind.HEAD and ablation == "mean" else REMOVALS


def score_parts(problem: Problem, readers: Sequence[str], kinds: Collection[Kind], tick: Tick) -> PartTable:
    """First-order scores of the parts of these kinds as nodes and into `readers`, under every way of removal.

    One backward pass for units and slots and, where heads are among the kinds, one for attention edges, which are
    scored as nodes alone. The problem must have been posed with `parts` and, for heads, with `attention`. Raises
    UserError for a reader that is not there, a metric that is flat at the clean run, and scores that are not finite.
    """
    with explain_memory("scoring FFN units, slots and attention edges"):
        _, table = attribute_parts(problem, tick, readers, list_removals(Kind.EXPLICIT, problem.ablation))
        scores = [found for found in table.scores if found.whole.kind in kinds]
        if Kind.HEAD in kinds:
            scores += list_attention(problem, tick)
    if not all(np.isfinite(found.values).all() for found in scores):
        raise UserError("scores of parts are not finite: the gradient overflows here; try --dtype float32")
    return replace(table, scores=tuple(scores))


def list_attention(problem: Problem, tick: Tick) -> Iterator[PartScores]:
    """Attention edges as parts of their heads: the value at [destination, source]."""
    for found in attribute_attention(problem, tick, list_removals(Kind.HEAD, problem.ablation)):
        for layer, heads in enumerate(found.edges):
            for head, values in enumerate(heads):
                yield PartScores(Component(Kind.HEAD, layer, head), "", values, found.removal)


def add_tables(tables: Sequence[tuple[PartTable, float]]) -> PartTable:
    """Weighted sum of tables of the same parts."""
    first = tables[0][0]
    rows = zip(*(table.scores for table, _ in tables), strict=True)
    weights = [weight for _, weight in tables]
    return replace(first, scores=tuple(add_scores(row, weights) for row in rows))


def add_scores(row: Sequence[PartScores], weights: Sequence[float]) -> PartScores:
    """Weighted sum of scores of one writer's parts."""
    assert len({(found.whole, found.reader, found.removal) for found in row}) == 1
    values: Float[np.ndarray, "pos part"] = sum(
        (found.values.astype(np.float64) * weight for found, weight in zip(row, weights, strict=True)),
        start=np.zeros(row[0].values.shape),
    )
    return replace(row[0], values=values.astype(np.float32))


def select_parts(
    table: PartTable, nodes: Collection[str], asked: int, readers: Sequence[str], left_out: Sequence[str] = ()
) -> KeptParts:
    """The `asked` strongest parts of each kind as nodes and into each reader, and the strongest few of each of `nodes`.

    Parts of score 0 are never kept.
    """
    values = {(found.whole, found.reader, found.removal): found.values for found in table.scores}
    kept: list[KeptPart] = []
    for kind in PART_KINDS:
        by = list_removals(kind, table.ablation)[0]
        for reader in ("", *readers):
            chosen = dict.fromkeys(table.rank(asked, reader, by, (kind,)))
            if not reader:
                chosen |= dict.fromkeys(rank_nodes(table, nodes, min(asked, PER_NODE), kind, by))
            ranked = sorted(chosen, key=lambda part: (-abs(part.score), part.position, part.component.name))
            kept += [keep_part(part, reader, values) for part in ranked if part.score]
    about = table.method, table.ablation, table.metric, table.unit
    return KeptParts(tuple(kept), asked, tuple(readers), *about, tuple(left_out))


def rank_nodes(
    table: PartTable, nodes: Collection[str], count: int, kind: Kind, removal: Removal
) -> Iterator[RankedPart]:
    """The `count` strongest parts of every one of these nodes (ids) that is of the kind."""
    for scores in table.scores:
        if (scores.whole.kind, scores.reader, scores.removal) != (kind, "", removal):
            continue
        for position in range(len(scores.values)):
            if f"{scores.whole.name}@{position}" in nodes:
                row = replace(scores, values=scores.values[position : position + 1])
                yield from (replace(part, position=position) for part in rank_parts(row, count))


def keep_part(part: RankedPart, reader: str, values: dict[tuple[Component, str, Removal], np.ndarray]) -> KeptPart:
    """A ranked part with its estimates under the other ways of removal."""
    place = part.position, part.component.part

    def read(removal: Removal) -> float | None:
        found = values.get((part.component.whole, reader, removal))
        return None if found is None else float(found[place])

    return KeptPart(part.component, part.position, reader, part.score, read("contribution"), read("renormalised"))
