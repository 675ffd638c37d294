"""Whether a component serves one fact, one relation or everything: its effects over facts, divided.

Effects e of one component on items of wording p, fact f, relation r follow a two-level nested random model

    e[r, f, p] = mean + relation[r] + fact[r, f] + wording[r, f, p]

whose variances are estimated by the moments of the nested analysis of variance, for unequal numbers (Searle 1971,
chapter 11):

    wording   MSE = SSE / (N - F)
    fact      (MSF - wording) / k1
    relation  (MSR - wording - k2 fact) / k3
    mean^2    (grand mean)^2 less its sampling variance

each cut off at 0. Their sum estimates the mean square of an effect, so mean^2 is what goes to *everything*, the
variances what goes to *this relation*, *this fact*, and to how it is put. The *specificity index* is
fact / (fact + relation + mean^2), in [0, 1]; wording is left out, being noise of the question. Its interval is 1.96
standard deviations of the index over resamples of the facts within relations (a normal bootstrap interval: facts that
are drawn with replacement vary less, so that the resamples' own percentiles would lie too low). With one relation,
relation and everything cannot be told apart and the whole counts as everything.

Classes, by thresholds of ours: *inert* where no fact's mean effect reaches `NEGLIGIBLE` of the largest of any
component of its kind (a head writes as much as many FFN units do: one floor for all kinds would call every unit inert),
nor `FLOOR` nats (a kind that does nothing has a largest too); else *specific* where the index is at least `SPECIFIC`;
else *abstract* (definition 4 of Yang et al. 2024: its outputs differ over facts), common to a relation or to
everything, whichever has the larger share. *Undecided* where that would be a relation, but no relation that it reaches
has a second fact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from circuits.component_effects import Effects, Item
from circuits.component_names import find_kind
from probes.errors import UserError

NEGLIGIBLE, FLOOR, SPECIFIC = 0.1, 0.05, 0.5
RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Layout:
    """Which fact each item is about and which relation each fact belongs to, by number, with their names."""

    facts: tuple[str, ...]
    relations: tuple[str, ...]
    item_fact: Int[np.ndarray, " item"]
    fact_relation: Int[np.ndarray, " fact"]


@dataclass(frozen=True, slots=True)
class Division:
    """Estimated mean square of the effects of each component, divided, in squared nats."""

    everything: Float[np.ndarray, " component"]
    relation: Float[np.ndarray, " component"]
    fact: Float[np.ndarray, " component"]
    wording: Float[np.ndarray, " component"]

    @property
    def index(self) -> Float[np.ndarray, " component"]:
        """Specificity index; not a number where there is no effect at all."""
        whole = self.everything + self.relation + self.fact
        return np.asarray(np.divide(self.fact, whole, out=np.full_like(whole, np.nan), where=whole > 0))


@dataclass(frozen=True, slots=True)
class Specificity:
    """What one component is for. Effects in nats of log-odds; shares add up to 1 (all 0 without any effect).

    `effect` is the mean over facts and `largest` the largest in absolute value, of `strongest`. `participation` is how
    many facts the component spreads over, (sum |e|)^2 / sum e^2 of the facts' mean effects, from 1 to their number;
    `relations` how many have a fact whose effect is not negligible.
    """

    component: str
    effect: float
    largest: float
    strongest: str
    participation: float
    relations: int
    everything: float
    relation: float
    fact: float
    wording: float
    index: float | None
    low: float | None
    high: float | None
    label: str
    level: str


def lay_out(items: Sequence[Item]) -> Layout:
    """Layout of items. Raises UserError for a fact of two relations, or fewer than two facts."""
    relation_of: dict[str, str] = {}
    for item in items:
        if relation_of.setdefault(item.fact, item.relation) != item.relation:
            raise UserError(f"the fact {item.fact[:80]!r} stands under two relations: give it one")
    if len(relation_of) < 2:
        raise UserError(
            f"specificity compares facts, and {len(relation_of)} is left: give two or more that the model knows"
        )
    relations = tuple(dict.fromkeys(relation_of.values()))
    places = {fact: place for place, fact in enumerate(relation_of)}
    return Layout(
        tuple(relation_of),
        relations,
        np.array([places[item.fact] for item in items]),
        np.array([relations.index(name) for name in relation_of.values()]),
    )


def average_facts(values: Float[np.ndarray, "item component"], layout: Layout) -> Float[np.ndarray, "fact component"]:
    """Mean effect on each fact over its wordings."""
    sums = np.zeros((len(layout.facts), values.shape[1]))
    np.add.at(sums, layout.item_fact, values)
    return sums / np.bincount(layout.item_fact, minlength=len(layout.facts))[:, None]


def divide(
    means: Float[np.ndarray, "fact component"],
    squares: Float[np.ndarray, "fact component"],
    counts: NDArray[np.float64],
    layout: Layout,
    weights: NDArray[np.float64],
) -> Division:
    """Division of effects, from each fact's mean, squares about it and number of wordings.

    `weights` is how often each fact counts (1, or as a bootstrap drew it).
    """
    size = weights * counts
    total, facts = size.sum(), weights.sum()
    member = np.zeros((len(layout.relations), len(counts)))
    member[layout.fact_relation, np.arange(len(counts))] = 1.0
    of_relation = member @ size
    present = of_relation > 0
    of_relation, member = of_relation[present], member[present]
    groups = len(of_relation)
    centre = (member * size) @ means / of_relation[:, None]
    grand = size @ means / total
    wording = (weights @ squares) / max(total - facts, 1) if total > facts else np.zeros(means.shape[1])
    spread = (member * (weights * counts**2)).sum(axis=1) / of_relation
    fact = relation = np.zeros(means.shape[1])
    if facts > groups:
        mean_square = size @ (means - member.T @ centre) ** 2 / (facts - groups)
        fact = np.maximum((mean_square - wording) / ((total - spread.sum()) / (facts - groups)), 0.0)
    if groups > 1:
        mean_square = of_relation @ (centre - grand) ** 2 / (groups - 1)
        inner = (spread.sum() - (weights * counts**2).sum() / total) / (groups - 1)
        outer = (total - (of_relation**2).sum() / total) / (groups - 1)
        relation = np.maximum((mean_square - wording - inner * fact) / outer, 0.0)
    noise = relation * (of_relation**2).sum() + fact * (weights * counts**2).sum() + wording * total
    everything = np.maximum(grand**2 - noise / total**2, 0.0)
    return Division(everything, relation, fact, wording)


def summarise(
    values: Float[np.ndarray, "item component"], layout: Layout
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Each fact's mean effect, the squares about it, and its number of wordings."""
    means = average_facts(values, layout)
    squares = np.zeros_like(means)
    np.add.at(squares, layout.item_fact, (values - means[layout.item_fact]) ** 2)
    return means, squares, np.bincount(layout.item_fact, minlength=len(layout.facts)).astype(np.float64)


def draw_facts(layout: Layout, seed: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    """How often each fact is drawn in each resample, as many from each relation as it has."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        weights = np.zeros(len(layout.facts))
        for relation in range(len(layout.relations)):
            own = np.flatnonzero(layout.fact_relation == relation)
            weights[own] = generator.multinomial(len(own), np.full(len(own), 1 / len(own)))
        yield weights


def draw_indices(
    values: Float[np.ndarray, "item component"], layout: Layout, seed: int, resamples: int = RESAMPLES
) -> Float[np.ndarray, "resample component"]:
    """Specificity index of components in every bootstrap resample of the facts."""
    parts = summarise(values, layout)
    draws = [divide(*parts, layout, weights).index for weights in draw_facts(layout, seed, resamples)]
    return np.array(draws).reshape(resamples, values.shape[1])


def find_floors(
    components: Sequence[str], largest: Float[np.ndarray, " component"], negligible: float
) -> Float[np.ndarray, " component"]:
    """Size of effect, in nats, below which it is negligible: a share of the largest of its kind, or `FLOOR`."""
    kinds = np.array([find_kind(name) for name in components])
    floors = np.full(len(kinds), FLOOR)
    for kind in set(kinds.tolist()):
        own = kinds == kind
        floors[own] = max(negligible * float(largest[own].max()), FLOOR)
    return floors


def measure_specificity(
    effects: Effects, layout: Layout, negligible: float = NEGLIGIBLE, seed: int = 0, resamples: int = RESAMPLES
) -> list[Specificity]:
    """What every component is for, those with the largest effect first. Deterministic by the seed.

    Resamples in which a component has no effect at all say nothing about its index and are left out of its interval.
    """
    means, squares, counts = summarise(effects.values, layout)
    found = divide(means, squares, counts, layout, np.ones(len(counts)))
    largest = np.abs(means).max(axis=0)
    floors = find_floors(effects.components, largest, negligible)
    active = np.flatnonzero(largest >= floors)
    draws = draw_indices(effects.values[:, active], layout, seed, resamples)
    index = found.index
    bounds = {int(at): bound_index(float(index[at]), draws[:, place]) for place, at in enumerate(active)}
    order = np.argsort(-largest, kind="stable")
    return [
        describe(effects.components[at], int(at), means, layout, found, bounds.get(int(at)), floors[at]) for at in order
    ]


def bound_index(index: float, draws: NDArray[np.float64]) -> tuple[float, float] | None:
    """The index give or take 1.96 standard deviations of its resamples, cut at 0 and 1; None without any."""
    draws = draws[~np.isnan(draws)]
    if not draws.size or np.isnan(index):
        return None
    reach = 1.96 * float(draws.std())
    return max(0.0, index - reach), min(1.0, index + reach)


def has_siblings(layout: Layout, reached: Bool[np.ndarray, " fact"]) -> bool:
    """Whether any relation of these facts has a second fact, without which it cannot be told from the fact."""
    sizes = np.bincount(layout.fact_relation)
    return bool((sizes[layout.fact_relation[reached]] > 1).any())


def describe(
    component: str,
    at: int,
    means: Float[np.ndarray, "fact component"],
    layout: Layout,
    found: Division,
    bounds: tuple[float, float] | None,
    floor: float,
) -> Specificity:
    """One component's record."""
    own = np.abs(means[:, at])
    shares = {name: float(getattr(found, name)[at]) for name in ("everything", "relation", "fact", "wording")}
    whole = sum(shares.values())
    shares = {name: share / whole if whole else 0.0 for name, share in shares.items()}
    index = float(found.index[at])
    reached = own >= floor
    if not reached.any():
        label = level = "inert"
    else:
        label = "specific" if index >= SPECIFIC else "abstract"
        level = max(("everything", "relation"), key=shares.__getitem__) if label == "abstract" else "fact"
    if label == "abstract" and level == "relation" and not has_siblings(layout, reached):
        label = level = "undecided"
    return Specificity(
        component=component,
        effect=float(means[:, at].mean()),
        largest=float(means[own.argmax(), at]),
        strongest=layout.facts[own.argmax()],
        participation=float(own.sum() ** 2 / (own**2).sum()) if own.any() else 0.0,
        relations=len(set(layout.fact_relation[reached].tolist())),
        **shares,
        index=None if np.isnan(index) else index,
        low=None if bounds is None else bounds[0],
        high=None if bounds is None else bounds[1],
        label=label,
        level=level,
    )
