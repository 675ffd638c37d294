"""Whether taking a bank block away costs its own facts and nothing else.

A block is taken away (it writes nothing) and answers are scored again: on facts that read it; on *neighbours*, facts of
the same relations from other leaves, and on exercises that need no fact, both read with the block's own path in place
of theirs (with their own path they do not read it, and lose nothing by construction); beside it, on its own facts,
another block of the level is taken away, drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from probes.facts import Fact
from workbench.findings.record import UNMEASURED, Finding, Method, Row, format_number, judge, make_row
from workbench.findings.study import Study, average
from workbench.findings.tags import list_exercises

if TYPE_CHECKING:
    from circuits.intervals import Estimate
    from workbench.banks.blocking import Scorer

HOW = Method("blocks taken away one at a time", "the block writes nothing, exact", "log-probability of the answer")
EXPECTED = (
    "a block that is taken away costs its own facts, and these more than neighbours and exercises that read it, and "
    "more than a random block does: at every level the interval of the first drop lies above the means of the others"
)
TITLE = "Blocks that are taken away: what is forgotten"
# Blocks of each level, and facts of each group that are asked of one block.
BLOCKS, ASKED = 8, 24
RARE, FREQUENT = (1, 2), (4, 5)
GROUPS = ("its own facts", "its own facts, a random block away", "neighbours that read it", "exercises that read it")


def measure_forgetting(study: Study) -> Finding:
    """Drops of each group without blocks of each level, means over blocks."""
    from workbench.banks.blocking import Scorer

    bank = study.engine.bank
    facts = [fact for fact in study.list_trained() if bank and len(fact.cluster_path) == len(bank.clusters)]
    if bank is None or not facts:
        return Finding("blocking", TITLE, EXPECTED, HOW, UNMEASURED, (), ("No bank with trained facts is attached.",))
    reader, exercises = Scorer(study.engine.model, bank, "nothing"), list_exercises()
    drops: dict[tuple[int, str], list[float]] = {}
    for level in range(1, len(bank.clusters) + 1):
        clusters = sorted({fact.cluster_path[level - 1] for fact in facts})
        drawn = random.Random(f"{study.seed}:blocks {level}").sample(clusters, min(BLOCKS, len(clusters)))
        for done, cluster in enumerate(drawn):
            study.tick(f"blocks of level {level} taken away", done, len(drawn))
            for group, drop in measure_block(study, reader, facts, exercises, (level, cluster)):
                drops.setdefault((level, group), []).append(drop)
    if not drops:
        return Finding(
            "blocking", TITLE, EXPECTED, HOW, UNMEASURED, (), ("The model gives none of the drawn answers.",)
        )
    rows, verdict = list(make_rows(drops, study.seed)), True
    for level in range(1, len(bank.clusters) + 1):
        own = next((row for row in rows if row.name == name_row(level, GROUPS[0])), None)
        others = [average(drops[level, group]) for group in GROUPS[1:] if drops.get((level, group))]
        verdict &= own is not None and own.low is not None and own.low > max([0.0, *others])
    return Finding("blocking", TITLE, EXPECTED, HOW, judge(verdict), tuple(rows), tuple(describe(drops)))


def measure_block(
    study: Study, reader: Scorer, facts: Sequence[Fact], exercises: Sequence[Fact], block: tuple[int, int]
) -> Iterator[tuple[str, float]]:
    """Name of a group and its mean drop, in nats, and share of own facts lost, without one block."""
    from workbench.banks.blocking import Blocking, draw_control, rescore

    level, cluster = block
    blocking = Blocking(f"level {level}, cluster {cluster}", (block,))
    own = study.draw([f for f in facts if f.cluster_path[level - 1] == cluster], ASKED, f"own {block}")
    whole = reader.score(own, None, study.tick, "own facts")
    known = [row for row in range(len(own)) if whole.correct[row]]
    if not known:
        return
    without = reader.score(own, blocking, study.tick, "own facts, blocked")
    drop = whole.log_probability - without.log_probability
    yield GROUPS[0], average(drop[known])
    yield "lost", average([float(not without.correct[row]) for row in known])
    for name, buckets in (("rare", RARE), ("frequent", FREQUENT)):
        if rows := [row for row in known if own[row].bucket in buckets]:
            yield name, average(drop[rows])
    control = draw_control(reader.bank, blocking, np.random.default_rng([study.seed, level, cluster]))
    if control is not None:
        other = rescore(reader, own, whole, control, study.tick, "own facts, random block")
        yield GROUPS[1], average((whole.log_probability - other.log_probability)[known])
    path = own[known[0]].cluster_path
    relations = {own[row].relation for row in known}
    near = [f for f in facts if f.relation in relations and f.cluster_path[level - 1] != cluster]
    for name, group in ((GROUPS[2], near), (GROUPS[3], exercises)):
        if some := study.draw(group, ASKED, f"{name} {block}"):
            both = [reader.score(some, what, study.tick, name, path).log_probability for what in (None, blocking)]
            yield name, average(both[0] - both[1])


def name_row(level: int, group: str) -> str:
    """Name of a row."""
    return f"level {level}: drop on {group}"


def make_rows(drops: dict[tuple[int, str], list[float]], seed: int) -> Iterator[Row]:
    """Rows of all levels and groups, means over blocks."""
    from circuits.intervals import estimate_mean

    for (level, group), values in drops.items():
        found: Estimate = estimate_mean(values, seed)
        if group == "lost":
            yield make_row(f"level {level}: own facts that are lost", found, "blocks", "share")
        elif group in ("rare", "frequent"):
            buckets = RARE if group == "rare" else FREQUENT
            name = f"own facts of frequency buckets {buckets[0]} and {buckets[1]}"
            yield make_row(name_row(level, name), found, "blocks", "nats")
        else:
            yield make_row(name_row(level, group), found, "blocks", "nats")


def describe(drops: dict[tuple[int, str], list[float]]) -> Iterator[str]:
    """Sentences on each level."""
    for level in sorted({level for level, _ in drops}):
        means = {group: average(values) for (at, group), values in drops.items() if at == level}
        number = len(drops[level, GROUPS[0]])
        yield (
            f"Level {level}, {number} blocks: {100 * means['lost']:.0f} % of the facts known with a block are "
            f"lost without it ({format_number(means[GROUPS[0]])} nats); neighbours that read it lose "
            f"{format_number(means.get(GROUPS[2]))}, exercises {format_number(means.get(GROUPS[3]))} (below 0: a gain)."
        )
        if {"rare", "frequent"} <= set(means):
            side = "more" if means["rare"] > means["frequent"] else "no more"
            yield (
                f"Rare facts lose {side} than frequent ones ({format_number(means['rare'])} and "
                f"{format_number(means['frequent'])} nats)."
            )
