"""From a job's facts to rows: ledgers and edge scores in batches, every fact measured or with the reason why not.

A batch that fails is halved until the fact that does not run stands alone, and has a row that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from circuits.circuit import UNITS
from circuits.graph import Plan, wire
from circuits.methods import METHODS
from probes.errors import UserError
from probes.facts import Fact
from workbench.cases import Case, resolve_fact
from workbench.engine import Engine
from workbench.ledgers.bulk import explain_unknown
from workbench.ledgers.measuring import measure_batch, rank_parts
from workbench.ledgers.prompts import Laid, lay_fact
from workbench.ledgers.table import Ledger, list_rows
from workbench.problems import pose
from workbench.settings import Question, Settings
from workbench.sweeps.parts import Block, stack_rows
from workbench.sweeps.plans import GIVEN, LEDGER, Order, change_settings

if TYPE_CHECKING:
    from circuits.problem import Problem

Item = TypeVar("Item")
# A fact that could be prepared (laid out or paired), or why it could not.
Prepared = dict[str, Item | str]


@dataclass(frozen=True, slots=True)
class Measurer:
    """One condition of a sweep on a loaded engine; `pools` are the facts to compare each fact with, by its id."""

    engine: Engine
    order: Order
    condition: str
    settings: Settings
    pools: dict[str, tuple[Fact, ...]]

    def measure(self, facts: Sequence[Fact]) -> list[Block]:
        """Rows of all facts by all methods, in the order of the facts, then of the methods."""
        found = dict[tuple[str, str], Block]()
        self.encode_ahead(facts)
        cases: Prepared[Case] | None = None
        for method in self.order.methods:
            if method == LEDGER:
                blocks = self.measure_ledgers(facts)
            else:
                cases = self.prepare(facts, self.pair) if cases is None else cases
                blocks = self.measure_edges(cases, method)
            found |= {(fact, method): block for fact, block in blocks.items()}
        return [self.name(fact, method, found[fact.id, method]) for fact in facts for method in self.order.methods]

    def name(self, fact: Fact, method: str, block: Block) -> Block:
        """A fact's rows by a method, with what they are rows of."""
        about = {"fact": fact.id, "relation": fact.relation, "condition": self.condition, "method": method}
        return replace(block, shared={**block.shared, **about})

    def prepare(self, facts: Sequence[Fact], work: Callable[[Fact, Engine], Item]) -> Prepared[Item]:
        """Each fact prepared on the engine with the facts that it is compared with, or the reason why not."""
        prepared: Prepared[Item] = {}
        for fact in facts:
            others = tuple(other for other in self.pools[fact.id] if other.id != fact.id)
            try:
                prepared[fact.id] = work(fact, replace(self.engine, facts=(fact, *others)))
            except UserError as error:
                prepared[fact.id] = str(error)
        return prepared

    def encode_ahead(self, facts: Sequence[Fact]) -> None:
        """Encode prompts and answers of these facts and of those that they are compared with, in one call."""
        pools = {id(pool): pool for pool in (self.pools[fact.id] for fact in facts)}
        every = [*facts, *(other for pool in pools.values() for other in pool)]
        self.engine.model.encode_ahead([fact.prompt for fact in every], [fact.answer for fact in every])

    def pair(self, fact: Fact, engine: Engine) -> Case:
        """The fact with its counterfactual. Raises UserError when there is none, or nothing to attach."""
        case = resolve_fact(engine, Question(fact=fact.id), self.settings)
        self.require(bool(case.clean.found), bool(case.clean.text))
        return case

    def lay(self, fact: Fact, engine: Engine) -> Laid:
        """The fact laid out for its ledger. Raises UserError when that is not possible, or nothing to attach."""
        laid = lay_fact(engine, fact, engine.facts, self.settings)
        self.require(bool(laid.found), bool(laid.behind))
        return laid

    def require(self, memory: bool, text: bool) -> None:
        """Raise UserError when the condition is about a memory or a text that the fact does not have."""
        for name, there in (("memory", memory), ("text", text)):
            if self.condition == name and not there:
                raise UserError(f"there is no {name} about this fact to attach")

    def measure_ledgers(self, facts: Sequence[Fact]) -> dict[str, Block]:
        """Rows of each fact's ledger; where the model does not say the answer, that."""
        order, metric = self.order, self.settings.metric

        def work(batch: Sequence[Laid]) -> dict[str, Block]:
            removal: Any = order.removal
            ledgers = measure_batch(self.engine, batch, removal, metric, order.top, order.threshold, describe=False)
            return {ledger.fact: stack_ledger(ledger) for ledger in ledgers}

        return self.run(
            self.prepare(facts, self.lay),
            lambda laid: (*laid.condition, len(laid.behind), len(laid.plain)),
            3,
            lambda laid: laid.id,
            work,
        )

    def measure_edges(self, cases: Prepared[Case], method: str) -> dict[str, Block]:
        """Rows of each fact's edges and nodes by a method of attribution, all positions together."""
        from circuits.pairs import APART

        settings = replace(self.settings, method=method, parts=0)

        def work(batch: Sequence[Case]) -> dict[str, Block]:
            if method in APART:
                problem = pose(self.engine, batch, settings, summed=True, alone=False, attention=False)
                return dict(self.read_pairs(problem, batch, settings))
            return {name(case): self.read_alone(case, settings) for case in batch}

        def name(case: Case) -> str:
            assert case.fact is not None
            return case.fact.id

        def key(case: Case) -> tuple[int, ...]:
            both = case.clean, case.counterfactual
            return *(len(part) for side in both for part in (side.path, side.found)), len(case.pair.clean_ids)

        return self.run(cases, key, 4, name, work)

    def run(
        self,
        prepared: Prepared[Item],
        key: Callable[[Item], tuple[int, ...]],
        equal: int,
        name: Callable[[Item], str],
        work: Callable[[Sequence[Item]], dict[str, Block]],
    ) -> dict[str, Block]:
        """Rows of all facts, in batches of `settings.rows` whose first `equal` numbers of `key` agree.

        Prompts of like length stand together: less is filled up.
        """
        blocks = {fact: give_reason(item) for fact, item in prepared.items() if isinstance(item, str)}
        groups = dict[tuple[int, ...], list[Item]]()
        for item in prepared.values():
            if not isinstance(item, str):
                groups.setdefault(key(item)[:equal], []).append(item)
        size = self.settings.rows
        for _, group in sorted(groups.items()):
            group.sort(key=key)
            for start in range(0, len(group), size):
                blocks |= attempt(group[start : start + size], name, work)
        return blocks

    def read_pairs(self, problem: Problem, batch: Sequence[Case], settings: Settings) -> Iterator[tuple[str, Block]]:
        """Rows of every pair of a batch, or the reason why its metric gives no scale to its scores."""
        from circuits.pairs import score_pairs
        from circuits.problem import refuse_still

        scores, names = (
            score_pairs(problem, settings.method, settings.choose_options()),
            name_nodes(problem.wiring.plan),
        )
        for case, edges, clean, ablated in zip(batch, scores, problem.each_clean, problem.each_ablated, strict=True):
            assert case.fact is not None
            try:
                refuse_still(settings.metric, clean, ablated)
            except UserError as error:
                yield case.fact.id, give_reason(str(error))
                continue
            yield (
                case.fact.id,
                self.list_scores(names, edges, edges.sum(axis=1), describe(case, settings, clean, ablated)),
            )

    def read_alone(self, case: Case, settings: Settings) -> Block:
        """Rows of one pair by a method that takes pairs one by one."""
        from circuits.scoring import score

        problem = pose(self.engine, (case,), settings, summed=True, attention=False)
        found = score(problem, settings.method, settings.choose_options(), lambda label, done, total: None)
        about = describe(case, settings, problem.metric_clean, problem.metric_ablated)
        return self.list_scores(name_nodes(problem.wiring.plan), found.edges[0], found.nodes[0], about)

    def list_scores(self, names: Names, edges: np.ndarray, nodes: np.ndarray, about: dict[str, Any]) -> Block:
        """The strongest nodes and edges, as many of each as the order lists; without any a row that says so."""
        flat = edges.ravel()
        first, second = (rank_parts(values, self.order.top, self.order.threshold) for values in (nodes, flat))
        if not len(first) + len(second):
            return give_reason("no edge has a score to list", about)
        writers, readers = np.divmod(second, edges.shape[1])
        return Block(
            about,
            {
                "row": ["node"] * len(first) + ["edge"] * len(second),
                "component": [names.writers[place] for place in (*first.tolist(), *writers.tolist())],
                "reader": [None] * len(first) + [names.readers[place] for place in readers.tolist()],
                "value": [*nodes[first].tolist(), *flat[second].tolist()],
            },
        )


@dataclass(frozen=True, slots=True)
class Names:
    """Names of a graph's writers and readers, in its order."""

    writers: tuple[str, ...]
    readers: tuple[str, ...]


@lru_cache(maxsize=64)
def name_nodes(plan: Plan) -> Names:
    """Names of a plan's graph."""
    wiring = wire(plan)
    return Names(tuple(one.name for one in wiring.writers), tuple(one.name for one in wiring.readers))


def stack_ledger(ledger: Ledger) -> Block:
    """Rows of one measured fact: its ledger, or the reason where the model does not know the answer."""
    about = {"answer": ledger.answer, "foil": ledger.foil, "margin": ledger.margin}
    about |= {"metric": ledger.metric, "unit": ledger.unit}
    if not ledger.known:
        return give_reason(explain_unknown(ledger), about)
    block = stack_rows(list_rows(ledger), about)
    return replace(block, columns={"value" if name == "share" else name: some for name, some in block.columns.items()})


def give_reason(reason: str, shared: dict[str, Any] | None = None) -> Block:
    """The one row of a fact that was not measured."""
    return Block(shared or {}, {"row": ["reason"], "reason": [reason]})


def attempt(
    batch: Sequence[Item], name: Callable[[Item], str], work: Callable[[Sequence[Item]], dict[str, Block]]
) -> dict[str, Block]:
    """What `work` gives for a batch; where it fails, for its halves, and of a single fact the reason."""
    try:
        return work(batch)
    except (UserError, RuntimeError) as error:
        if len(batch) > 1:
            middle = len(batch) // 2
            return attempt(batch[:middle], name, work) | attempt(batch[middle:], name, work)
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return {name(batch[0]): give_reason(f"{kind}{' '.join(str(error).split())[:300]}")}


def describe(case: Case, settings: Settings, clean: float, ablated: float) -> dict[str, Any]:
    """What the scores of a case are scores of."""
    return {
        "answer": case.pair.answer,
        "foil": case.pair.foil,
        "margin": clean,
        "ablated": ablated,
        "metric": settings.metric,
        "ablation": settings.ablation,
        "unit": METHODS[settings.method].unit or UNITS[settings.metric],
    }


def prepare_measurer(engine: Engine, order: Order, condition: str, pools: dict[str, tuple[Fact, ...]]) -> Measurer:
    """Measurer of a condition."""
    settings = order.settings if condition == GIVEN else change_settings(order.settings, condition)
    return Measurer(engine, order, condition, settings, pools)
