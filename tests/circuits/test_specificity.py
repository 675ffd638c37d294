"""The division of effects against variances that were drawn, and every component of planted models in its class."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.component_effects import (
    Effects,
    Item,
    correct_effects,
    detach_component,
    measure_effects,
    remove_component,
    remove_from_text,
    silence,
)
from circuits.planted.knowledge import UNRELATED, plant_knowledge
from circuits.planted.truths import load_items, name_truth
from circuits.specificity import FLOOR, Layout, divide, lay_out, measure_specificity, summarise
from probes.attachments import NOTHING
from probes.errors import UserError


def test_every_component_of_planted_models_is_in_its_class() -> None:
    """Specific, abstract (to a relation or to everything), inert: no error; and removal says the same."""
    for seed in range(2):
        knowledge = plant_knowledge(seed)
        model, items = load_items(knowledge)
        effects = correct_effects(model, items, measure_effects(model, items))
        assert effects.known.all()
        found = {one.component: one for one in measure_specificity(effects, lay_out(items), resamples=50)}
        assert len(found) == len(effects.components) == 3 * 4 + 3 * 8 + 3 + 3
        for name, one in found.items():
            truth = name_truth(knowledge, name)
            assert one.label == truth, one
            if truth == "abstract":
                assert one.level == knowledge.levels[name], one
        for name in knowledge.specific:
            one = found[name]
            assert one.participation < 1.5 and one.relations == 1
            drops = remove_component(model, items, name)
            own = np.array([item.fact == one.strongest for item in items])
            assert drops[own].min() > 2 and np.abs(drops[~own]).max() < 0.3
            reads = next(item for item in items if item.fact == one.strongest)
            texts = [tuple(model.encode(text)) for text in UNRELATED]
            # Unrelated text loses little a token: a memory's slot takes its share of the attention everywhere.
            lost = remove_from_text(model, texts, name, reads.attachment, detach_component(reads, name))
            assert np.abs(lost).max() < drops[own].min() / 20


def test_effects_are_slopes_of_removal() -> None:
    """A unit that only adds to the stream before linear heads: the estimate is near its exact removal."""
    knowledge = plant_knowledge(0)
    model, items = load_items(knowledge)
    effects = measure_effects(model, items)
    for name in knowledge.specific:
        exact, estimate = remove_component(model, items, name), effects.values[:, effects.components.index(name)]
        assert np.corrcoef(exact, estimate)[0, 1] > 0.99


def draw_effects(variances: tuple[float, float, float, float], seed: int) -> tuple[np.ndarray, Layout]:
    """Effects of 400 components drawn from the nested model, with unequal numbers of facts and wordings."""
    generator = np.random.default_rng(seed)
    mean, relation, fact, wording = variances
    item_fact, fact_relation = [], []
    for group in range(8):
        for _ in range(3 + group % 3):
            fact_relation.append(group)
            item_fact += [len(fact_relation) - 1] * (2 + len(fact_relation) % 3)
    layout = Layout(
        tuple(map(str, range(len(fact_relation)))),
        tuple(map(str, range(8))),
        np.array(item_fact),
        np.array(fact_relation),
    )
    parts = [generator.normal(size=(count, 400)) for count in (8, len(fact_relation), len(item_fact))]
    per_fact = np.sqrt(relation) * parts[0][layout.fact_relation] + np.sqrt(fact) * parts[1]
    return np.sqrt(mean) + per_fact[layout.item_fact] + np.sqrt(wording) * parts[2], layout


@pytest.mark.parametrize("variances", [(4.0, 3.0, 2.0, 1.0), (9.0, 4.0, 4.0, 4.0), (16.0, 2.0, 6.0, 2.0)])
def test_the_division_recovers_what_was_drawn(variances: tuple[float, float, float, float]) -> None:
    """On the mean over many components; none of them is near 0, where cutting off would lift it."""
    values, layout = draw_effects(variances, 3)
    means, squares, counts = summarise(values, layout)
    found = divide(means, squares, counts, layout, np.ones(len(counts)))
    got = [float(part.mean()) for part in (found.everything, found.relation, found.fact, found.wording)]
    assert got == pytest.approx(variances, rel=0.15)


def test_a_fact_counted_twice_is_a_fact_that_stands_twice() -> None:
    """Bootstrap weights are repeated rows."""
    values, layout = draw_effects((1.0, 1.0, 1.0, 1.0), 4)
    means, squares, counts = summarise(values, layout)
    weights = np.ones(len(counts))
    weights[[0, 5]] = 2
    twice = np.repeat(np.arange(len(counts)), weights.astype(int))
    repeated = Layout(
        tuple(map(str, range(len(twice)))), layout.relations, layout.item_fact, layout.fact_relation[twice]
    )
    one = divide(means, squares, counts, layout, weights)
    other = divide(means[twice], squares[twice], counts[twice], repeated, np.ones(len(twice)))
    for name in ("everything", "relation", "fact", "wording"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-12)


def make_items(facts: dict[str, str]) -> list[Item]:
    """One item a fact."""
    return [Item(fact, relation, (0, 1), (2,), NOTHING) for fact, relation in facts.items()]


def test_ideal_components() -> None:
    """One fact, one relation, everything and nothing; the same seed gives the same interval."""
    items = make_items({f"{r}{f}": r for r in "abcd" for f in range(5)}) * 2
    layout = lay_out(items)
    values = np.zeros((40, 4))
    values[[7, 27], 0] = 3.0
    values[[5, 6, 7, 8, 9, 25, 26, 27, 28, 29], 1] = 3.0
    values[:, 2] = 3.0
    effects = Effects(("one", "relation", "all", "none"), values, np.ones(40), np.ones(40, dtype=bool))
    found = {one.component: one for one in measure_specificity(effects, layout)}
    assert [(found[n].label, found[n].level) for n in effects.components] == [
        ("specific", "fact"),
        ("abstract", "relation"),
        ("abstract", "everything"),
        ("inert", "inert"),
    ]
    assert [found[n].participation for n in effects.components] == pytest.approx([1, 5, 20, 0])
    assert [found[n].relations for n in effects.components] == [1, 1, 4, 0]
    assert found["one"].index == pytest.approx(1) and found["all"].index == 0 and found["none"].index is None
    assert measure_specificity(effects, layout) == measure_specificity(effects, layout)


def test_what_cannot_be_compared() -> None:
    """One fact alone, a fact under two relations, and a name that is no component."""
    with pytest.raises(UserError, match="1 is left"):
        lay_out(make_items({"a": "r"}))
    with pytest.raises(UserError, match="two relations"):
        lay_out([*make_items({"a": "r", "b": "r"}), *make_items({"a": "s"})])


def test_a_fact_alone_in_its_relation_is_undecided() -> None:
    """Its component could serve the fact or the relation."""
    items = make_items({"a": "r", "b": "s", "c": "s"})
    effects = Effects(
        ("one", "other"), np.array([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]]), np.ones(3), np.ones(3, dtype=bool)
    )
    found = {one.component: one.label for one in measure_specificity(effects, lay_out(items))}
    assert found == {"one": "undecided", "other": "specific"}


def test_names() -> None:
    """Whole MLPs are no component here."""
    model, _ = load_items(plant_knowledge(0))
    with pytest.raises(UserError, match="is no head, FFN unit"):
        silence(model, "m1")


def test_the_floor_is_one_for_each_kind() -> None:
    """A unit far below the heads is not inert; what a kind does below the absolute floor is."""
    items = make_items({f"{r}{f}": r for r in "ab" for f in range(3)})
    values = np.zeros((6, 3))
    values[:, 0], values[2, 1], values[4, 2] = 9.0, 0.3, FLOOR / 2
    effects = Effects(("a0.h0", "m0.u0", "bank 1:0"), values, np.ones(6), np.ones(6, dtype=bool))
    found = {one.component: one.label for one in measure_specificity(effects, lay_out(items), resamples=20)}
    assert found == {"a0.h0": "abstract", "m0.u0": "specific", "bank 1:0": "inert"}
