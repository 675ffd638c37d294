"""What can be said of one circuit by ablating parts of it: necessity, completeness, minimality.

Everything is in f, normalised faithfulness: 0 as everything ablated, 1 as the whole model M. With C the circuit:

    sufficiency    f(C): the circuit alone
    necessity      1 - f(M without C): what is lost when only the circuit's edges are ablated
    completeness   |f(C without K) - f(M without K)| over sampled sets K of the circuit's nodes, knocked out in both;
                   0 is complete (Wang et al. 2023, section 4.1)
    minimality     f(C) - f(C without e) for every edge e, and likewise for every node (Wang et al. 2023, section 4.2)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from circuits.circuit import Circuit, mask_edges
from circuits.connectivity import Mask
from circuits.faithfulness import measure_shares
from circuits.graph import Kind, Wiring, split_node
from circuits.problem import Problem
from probes.progress import Tick

# Edges by their flat indices in a mask.
Flat = np.ndarray

# A part whose removal changes f by less does not matter.
SMALLEST_DROP = 0.01
# Edges removed one by one at most; of a larger circuit so many are sampled.
MOST_REMOVALS = 256


@dataclass(frozen=True, slots=True)
class KnockOut:
    """Nodes ablated in circuit and model alike: how many, and f of both afterwards."""

    nodes: int
    circuit: float
    model: float


@dataclass(frozen=True, slots=True)
class Completeness:
    """Knock-outs and how far circuit and model are apart after them: mean and largest |difference| in f."""

    mean: float
    largest: float
    knock_outs: tuple[KnockOut, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """One edge (`writer -> reader`) or node, and what f loses when it alone leaves the circuit."""

    name: str
    drop: float


@dataclass(frozen=True, slots=True)
class Minimality:
    """Parts removed one by one: how many of how many, the share that does not matter (|drop| < `tolerance`), drops.

    `drops` come largest first.
    """

    measured: int
    parts: int
    share_without_effect: float
    tolerance: float
    drops: tuple[Drop, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """Sufficiency and necessity of a circuit in f, its completeness, and its minimality by edges and by nodes."""

    sufficiency: float
    without_circuit: float
    necessity: float
    completeness: Completeness
    edges: Minimality
    nodes: Minimality


def list_edges_of(node: str, wiring: Wiring) -> Flat:
    """Edges that go when a node is knocked out: all that leave it; for a key-value head all that enter it."""
    name, position = split_node(node)
    gone = np.zeros(wiring.visible.shape, dtype=bool)
    gone[[writer.name == name for writer in wiring.writers]] = True
    if not gone.any():
        gone[:, [reader.component.name == name for reader in wiring.readers]] = True
    return position * gone.size + np.flatnonzero(gone & wiring.visible)


def remove(mask: Mask, edges: Flat) -> Mask:
    """The mask without these edges."""
    left = mask.copy()
    left.ravel()[edges] = False
    return left


def list_removable(circuit: Circuit) -> list[str]:
    """Nodes that can be knocked out: all but the logits, which are what is measured."""
    return [node.id for node in circuit.nodes if node.component.kind is not Kind.LOGITS]


def draw_knock_outs(nodes: Sequence[str], draws: int, seed: int) -> list[list[str]]:
    """Sets of nodes, each of a size drawn from 1 to half of them."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, max(len(nodes) // 2, 1), size=draws, endpoint=True)
    return [sorted(generator.choice(nodes, size=size, replace=False).tolist()) for size in sizes]


def measure_completeness(
    problem: Problem, circuit: Circuit, mask: Mask, draws: int, seed: int, tick: Tick
) -> Completeness:
    """The same sampled knock-outs in the circuit and in the model."""
    whole = np.broadcast_to(problem.wiring.visible, mask.shape)
    sets = draw_knock_outs(list_removable(circuit), draws, seed)
    gone = [np.concatenate([list_edges_of(node, problem.wiring) for node in nodes]) for nodes in sets]
    masks = [remove(kept, edges) for edges in gone for kept in (mask, whole)]
    values = measure_shares(problem, masks, len(masks), tick, "knock-outs")
    found = tuple(KnockOut(len(nodes), *values[2 * index : 2 * index + 2]) for index, nodes in enumerate(sets))
    apart = [abs(one.circuit - one.model) for one in found]
    return Completeness(float(np.mean(apart)), max(apart), found)


def measure_minimality(
    problem: Problem, mask: Mask, whole: float, parts: dict[str, Flat], seed: int, tick: Tick, label: str
) -> Minimality:
    """What each part's removal costs the circuit, whose own f is `whole`; a sample when there are very many parts."""
    names = list(parts)
    if len(names) > MOST_REMOVALS:
        chosen = np.random.default_rng(seed).choice(len(names), size=MOST_REMOVALS, replace=False)
        names = [names[index] for index in sorted(chosen)]
    removed: Iterator[Mask] = (remove(mask, parts[name]) for name in names)
    values = measure_shares(problem, removed, len(names), tick, label)
    drops = [Drop(name, whole - value) for name, value in zip(names, values, strict=True)]
    idle = sum(abs(one.drop) < SMALLEST_DROP for one in drops)
    return Minimality(
        measured=len(names),
        parts=len(parts),
        share_without_effect=idle / len(drops),
        tolerance=SMALLEST_DROP,
        drops=tuple(sorted(drops, key=lambda one: (-one.drop, one.name))),
    )


def name_edges(mask: Mask, wiring: Wiring) -> dict[str, Flat]:
    """Every edge of a mask by a name."""
    return {
        f"{wiring.writers[w].name}@{p} -> {wiring.readers[r].name}@{p}": np.array(
            [np.ravel_multi_index((p, w, r), mask.shape)]
        )
        for p, w, r in np.argwhere(mask).tolist()
    }


def measure_quality(problem: Problem, circuit: Circuit, draws: int, seed: int, tick: Tick) -> Quality:
    """Everything above of one circuit; `draws` knock-outs, sampled from the seed."""
    wiring = problem.wiring
    mask = mask_edges(circuit, wiring, problem.positions)
    whole = np.broadcast_to(wiring.visible, mask.shape)
    alone, without = measure_shares(problem, [mask, whole & ~mask], 2, tick, "circuit and complement")
    nodes = {node: list_edges_of(node, wiring) for node in list_removable(circuit)}
    return Quality(
        sufficiency=alone,
        without_circuit=without,
        necessity=1.0 - without,
        completeness=measure_completeness(problem, circuit, mask, draws, seed, tick),
        edges=measure_minimality(problem, mask, alone, name_edges(mask, wiring), seed, tick, "edges removed"),
        nodes=measure_minimality(problem, mask, alone, nodes, seed, tick, "nodes removed"),
    )
