"""One part of a saved run measured exactly, in every way that it can be removed, beside its estimates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuits.circuit import UNITS
from circuits.graph import Component, Kind
from circuits.parts import Removal
from probes.errors import UserError
from probes.progress import Tick, quiet
from workbench.engine import Engine
from workbench.parts import read_part
from workbench.pipeline import restore_batches
from workbench.runs import Run

if TYPE_CHECKING:
    from circuits.problem import Problem


@dataclass(frozen=True, slots=True)
class Measured:
    """Drop of the metric by one way of removal: estimated (None where the metric has no gradient), and exact."""

    removal: Removal
    estimate: float | None
    exact: float


@dataclass(frozen=True, slots=True)
class PartCheck:
    """One part, removed for one reader or (empty) for all, in `unit`; positive helps the answer.

    `recorded` says whether the estimates are those that the run kept; else they were made now, by the same `method`.
    """

    part: str
    reader: str
    ways: tuple[Measured, ...]
    unit: str
    method: str
    ablation: str
    recorded: bool


def check_part(engine: Engine, run: Run, part: str, reader: str = "", tick: Tick = quiet) -> PartCheck:
    """Remove one FFN unit, bank unit, memory slot or attention edge of a saved run and measure the metric again.

    `reader` names the one reader that loses it, empty: all. Raises UserError when the part or the reader is not there,
    or the run's model or facts are no longer the same.
    """
    from circuits.part_selection import list_removals

    component, position = read_part(part, run.circuit.plan.layers)
    require_place(run, component, position, reader)
    removals = list_removals(component.kind, run.scores.ablation)
    kept = run.parts.find(part, reader) if run.parts is not None else None

    def measure(problem: Problem) -> list[tuple[float, float | None]]:
        exact = [measure_part(problem, component, position, reader, removal, tick) for removal in removals]
        found = None if kept else estimate_part(problem, component, position, reader, removals, tick)
        return list(zip(exact, found or [None] * len(removals), strict=True))

    totals = average_ways(restore_batches(engine, run, parts=True).each(measure, tick))
    ways = [
        Measured(removal, estimate if kept is None else kept.estimate(removal), exact)
        for removal, (exact, estimate) in zip(removals, totals, strict=True)
    ]
    return PartCheck(part, reader, tuple(ways), UNITS[run.scores.metric], "eap", run.scores.ablation, kept is not None)


def average_ways(
    batches: Iterable[tuple[Sequence[tuple[float, float | None]], float]],
) -> list[tuple[float, float | None]]:
    """Exact drops and estimates of every way of removal as means over batches of given shares."""
    rows = [
        [(exact * share, None if guess is None else guess * share) for exact, guess in ways] for ways, share in batches
    ]
    return [
        (sum(exact for exact, _ in way), None if way[0][1] is None else sum(guess or 0.0 for _, guess in way))
        for way in zip(*rows, strict=True)
    ]


def require_place(run: Run, component: Component, position: int, reader: str) -> None:
    """Raise UserError for a position beyond the prompt, and for what attention edges do not have."""
    if position >= len(run.tokens):
        raise UserError(f"{component.name}@{position}: the prompt has positions 0 to {len(run.tokens) - 1}")
    if component.kind is Kind.HEAD and reader:
        raise UserError("an attention edge is removed for all readers at once: leave --into out")
    if component.kind is Kind.HEAD and len(run.pairs) > 1:
        raise UserError(
            f"the run is over {len(run.pairs)} pairs, whose positions are summed: trace one pair alone to check an "
            "attention edge"
        )


def measure_part(
    problem: Problem, component: Component, position: int, reader: str, removal: Removal, tick: Tick
) -> float:
    """Exact drop of the metric without one part."""
    from circuits.attention import remove_attention
    from circuits.removal import remove_parts

    if component.kind is Kind.HEAD:
        edge = component.layer, component.head, position, component.part
        return float(remove_attention(problem, [edge], tick, removal))
    return float(remove_parts(problem, [(component, position)], tick, reader, removal))


def estimate_part(
    problem: Problem,
    component: Component,
    position: int,
    reader: str,
    removals: tuple[Removal, ...],
    tick: Tick,
) -> list[float | None]:
    """First-order estimates of one part, one a way of removal; None under a metric that is flat at the clean run."""
    from circuits.part_selection import score_parts

    if problem.metric_name == "kl":
        return [None] * len(removals)
    table = score_parts(problem, (reader,) if reader else (), (component.kind,), tick)
    place = position, component.part
    return [float(table.find(component.whole.name, reader, removal).values[place]) for removal in removals]
