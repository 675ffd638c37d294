"""Whether planted knowledge is told for what it is: the class of every component, and the share of every format.

Every component of the models of `circuits/planted/knowledge.py` is classified as in `circuits/specificity.py` and held
against what was planted; every format of those of `circuits/planted/formats.py` gets its share of a ledger beside the
planted one, both as shares of the planted margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circuits.coalitions import name_format
from circuits.component_effects import Item, correct_effects, measure_effects
from circuits.component_names import KINDS, find_kind
from circuits.ledgers import measure_ledgers
from circuits.parts import Removal
from circuits.planted.formats import plant_ledger
from circuits.planted.knowledge import Knowledge, plant_knowledge
from circuits.planted.planting import load_sketch
from circuits.specificity import lay_out, measure_specificity
from probes.models import Model
from probes.progress import Tick, quiet

# Bootstrap resamples: intervals are not looked at here. Ways in which an explicit memory that is off is removed.
RESAMPLES = 20
WAYS: tuple[Removal, ...] = ("renormalised", "contribution")


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Components of one kind in one model: how many were planted specific, abstract, inert, and how many of them come
    out in another class, or abstract to something else than planted.
    """

    seed: int
    kind: str
    components: int
    specific: int
    abstract: int
    inert: int
    errors: int
    levels: int


@dataclass(frozen=True, slots=True)
class PlantedShare:
    """One format's share of a ledger beside what was planted, both over the planted margin."""

    seed: int
    removal: str
    place: str
    planted: float
    found: float


def load_items(knowledge: Knowledge) -> tuple[Model, list[Item]]:
    """The planted model, and an item for every wording of every fact."""
    model = load_sketch(knowledge.sketch)
    items = [
        Item(
            fact.id,
            fact.relation,
            tuple(model.encode(prompt)),
            tuple(model.encode_plain(fact.answer)),
            fact.attachment,
            (fact.cluster,),
            (fact.memory,),
        )
        for fact in knowledge.facts
        for prompt in fact.prompts
    ]
    return model, items


def name_truth(knowledge: Knowledge, component: str) -> str:
    """The class that was planted."""
    if component in knowledge.specific:
        return "specific"
    return "abstract" if component in knowledge.levels else "inert"


def count_classes(seed: int) -> list[ClassCount]:
    """Planted classes of one model by kind, and how many components are classified otherwise."""
    knowledge = plant_knowledge(seed)
    model, items = load_items(knowledge)
    effects = correct_effects(model, items, measure_effects(model, items))
    found = measure_specificity(effects, lay_out(items), resamples=RESAMPLES)
    rows = []
    for kind in KINDS:
        own = [one for one in found if find_kind(one.component) == kind]
        truths = [name_truth(knowledge, one.component) for one in own]
        pairs = list(zip(own, truths, strict=True))
        errors = sum(one.label != truth for one, truth in pairs)
        levels = sum(t == "abstract" and one.level != knowledge.levels[one.component] for one, t in pairs)
        specific, abstract, inert = (truths.count(label) for label in ("specific", "abstract", "inert"))
        rows.append(ClassCount(seed, kind, len(own), specific, abstract, inert, errors, levels))
    return rows


def compare_shares(seed: int, removal: Removal) -> list[PlantedShare]:
    """Shares of the anchor and of every format of one model, removed one way."""
    planted = plant_ledger(seed)
    margin = sum(planted.shares.values())
    found = measure_ledgers(planted.model, planted.asked, removal, "logit-diff")
    shares = {"anchor": float(found.values[0, 0])}
    shares |= {name_format(form): float(share[0]) for form, share in zip(found.formats, found.shares, strict=True)}
    return [
        PlantedShare(seed, removal, name, planted.shares.get(name, 0.0) / margin, share / margin)
        for name, share in shares.items()
    ]


def measure_truths(seeds: Sequence[int], tick: Tick = quiet) -> tuple[list[ClassCount], list[PlantedShare]]:
    """Both comparisons for every seed."""
    classes, shares = list[ClassCount](), list[PlantedShare]()
    for done, seed in enumerate(seeds):
        tick("planted knowledge", done, len(seeds))
        classes += count_classes(seed)
        for removal in WAYS:
            shares += compare_shares(seed, removal)
    return classes, shares
