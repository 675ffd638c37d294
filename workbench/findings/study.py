"""What findings are measured on: facts drawn leaf by leaf, their components' effects, and the heads' scores, once each.

A bank block is read by the facts of its cluster alone. So that it has several to tell apart, facts are drawn from a
few leaves of the tree, `PER_LEAF` of each; those whose answer the model does not give are left out and counted.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from probes.errors import UserError
from probes.facts import Fact
from probes.progress import Tick, quiet
from workbench.engine import Engine
from workbench.fact_items import Skipped, build_items, choose_facts, keep_known
from workbench.settings import Settings

if TYPE_CHECKING:
    from circuits.component_effects import Effects, Item
    from circuits.intervals import Estimate
    from circuits.specificity import Layout, Specificity

PER_LEAF, WORDINGS = 8, 2
TRAINED, NEW = "trained", "never-seen"


@dataclass(frozen=True, slots=True)
class Components:
    """Effects of all components on the known facts of the sample, and what each component is for."""

    items: tuple[Item, ...]
    effects: Effects
    layout: Layout
    found: tuple[Specificity, ...]
    skipped: tuple[Skipped, ...]

    def pick(self, prefix: str) -> list[int]:
        """Places of the components of a name's start that are not inert."""
        live = {one.component for one in self.found if one.label != "inert"}
        return [at for at, name in enumerate(self.effects.components) if name.startswith(prefix) and name in live]


class Study:
    """An opened model with `count` facts for each measure; everything is drawn by the seed."""

    def __init__(self, engine: Engine, settings: Settings, count: int, tick: Tick = quiet) -> None:
        self.engine, self.settings, self.count, self.tick = engine, settings, count, tick
        self.seed = settings.seed

    def list_trained(self) -> list[Fact]:
        """Facts that the model was trained on."""
        return [fact for fact in self.engine.facts if fact.split == TRAINED]

    def list_new(self) -> list[Fact]:
        """Facts that it never saw, whose document is an explicit memory."""
        held = self.engine.memories
        return [f for f in self.engine.facts if f.split == NEW and held is not None and f.document_id in held]

    def draw(self, facts: Sequence[Fact], count: int, name: str) -> list[Fact]:
        """At most `count` of these facts, drawn by the seed and a name."""
        return random.Random(f"{self.seed}:{name}").sample(list(facts), min(count, len(facts)))

    @cached_property
    def sample(self) -> tuple[Fact, ...]:
        """Trained facts, `PER_LEAF` of each of some leaves; of no particular leaf without a bank."""
        leaves: dict[tuple[int, ...], list[Fact]] = defaultdict(list)
        for fact in self.list_trained():
            leaves[fact.cluster_path].append(fact)
        if self.engine.bank is None or len(leaves) < 2:
            return tuple(self.draw(self.list_trained(), self.count, "sample"))
        order = random.Random(f"{self.seed}:leaves").sample(sorted(leaves), len(leaves))
        # Larger leaves first, as far as they count: a leaf of fewer facts than are drawn tells less.
        order.sort(key=lambda path: -min(len(leaves[path]), PER_LEAF))
        chosen: list[Fact] = []
        for path in order[: max(2, self.count // PER_LEAF)]:
            chosen += self.draw(leaves[path], PER_LEAF, f"leaf {path}")
        return tuple(chosen)

    @cached_property
    def components(self) -> Components:
        """Exact effects of heads, blocks and memories, first-order ones of units. Raises UserError without facts."""
        from circuits.component_effects import Effects, correct_effects, measure_effects
        from circuits.specificity import lay_out, measure_specificity

        items, skipped = build_items(self.engine, self.sample, self.settings, WORDINGS)
        if not items:
            raise UserError("none of the drawn facts can be asked")
        effects = measure_effects(self.engine.model, items, self.tick)
        kept, unknown = keep_known(items, effects.known.tolist())
        items = [items[place] for place in kept]
        layout = lay_out(items)
        effects = Effects(effects.components, effects.values[kept], effects.margins[kept], effects.known[kept])
        effects = correct_effects(self.engine.model, items, effects, self.tick)
        found = measure_specificity(effects, layout, seed=self.seed)
        return Components(tuple(items), effects, layout, tuple(found), (*skipped, *unknown))

    @cached_property
    def heads(self) -> dict[str, list[list[Estimate]]]:
        """Scores of every head by each finder."""
        from workbench.findings.tags import score_heads

        return score_heads(self)

    def choose_items(self, facts: Sequence[Fact], wordings: int) -> tuple[list[Item], list[Skipped]]:
        """Items of these facts whose answer the model gives, and the facts that are left out."""
        from circuits.component_effects import measure_effects

        items, skipped = build_items(self.engine, facts, self.settings, wordings)
        if not items:
            return [], skipped
        known = measure_effects(self.engine.model, items, self.tick).known
        kept, unknown = keep_known(items, known.tolist())
        return [items[place] for place in kept], skipped + unknown

    def draw_relations(self, count: int) -> list[Fact]:
        """Trained facts, as many of each relation, about `count` in all."""
        relations = {fact.relation for fact in self.list_trained()}
        each = max(1, count // max(1, len(relations)))
        return choose_facts(self.engine.facts, [], [], TRAINED, each, self.seed) if relations else []


def average(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Mean; not a number where there is none."""
    return float(np.mean(values)) if len(values) else float("nan")
