"""Definitions 2 to 5: homomorphisms with negative controls, matching, and what planted circuits are classed as."""

from __future__ import annotations

import itertools
import random

import pytest

from circuits.classes import PIECES, CircuitClass, find_circuits, judge
from circuits.homomorphism import (
    Subgraph,
    are_equivalent,
    canonise,
    classify_subgraphs,
    find_member,
    is_homomorphic,
    join_edges,
    list_pairs,
)
from circuits.planted.facts import plant_unit_fact
from circuits.planted.model import Planted
from circuits.planted.paths import plant_induction
from circuits.planted.planting import load_planted
from circuits.text_graph import Text, TextEdge
from probes.models import Model

EARLY, LATE = TextEdge(0, False, 0, 2, 3), TextEdge(1, False, 2, 3, 5)
INDUCTION = frozenset({EARLY, LATE})


def move(subgraph: Subgraph, places: dict[int, int]) -> Subgraph:
    """The subgraph at other positions."""
    return frozenset(e._replace(source=places[e.source], target=places[e.target]) for e in subgraph)


def test_induction_pairs_of_two_texts_are_one_circuit() -> None:
    """Wherever the two positions and the end stand."""
    other = move(INDUCTION, {2: 1, 3: 2, 5: 9})
    assert are_equivalent(INDUCTION, other) and canonise(INDUCTION) == canonise(other)


@pytest.mark.parametrize(
    ("other", "forth", "back"),
    [
        (frozenset({EARLY, LATE._replace(part=3)}), False, False),
        (frozenset({EARLY, LATE._replace(layer=2)}), False, False),
        (frozenset({EARLY, LATE._replace(mlp=True, target=3)}), False, False),
        (frozenset({EARLY, LATE._replace(source=4)}), False, True),
        (frozenset({EARLY, LATE._replace(target=3)}), True, False),
        (frozenset({EARLY}), False, True),
        (INDUCTION | {EARLY._replace(source=1)}, True, True),
    ],
    ids=["other head", "other layer", "unit", "position split", "position merged", "edge missing", "edge doubled"],
)
def test_what_is_another_circuit(other: Subgraph, forth: bool, back: bool) -> None:
    """Splitting or merging positions leaves a map one way, doubling an edge both ways; another head none."""
    assert (is_homomorphic(INDUCTION, other), is_homomorphic(other, INDUCTION)) == (forth, back)
    assert are_equivalent(INDUCTION, other) == (forth and back)
    assert len(set(classify_subgraphs([INDUCTION, other]))) == (1 if forth and back else 2)


def test_a_merged_position_is_an_image() -> None:
    """Source and destination may fall together, one way only."""
    loop = frozenset({TextEdge(0, False, 0, 4, 4)})
    edge = frozenset({TextEdge(0, False, 0, 1, 4)})
    assert is_homomorphic(edge, loop) and not is_homomorphic(loop, edge)


def draw_subgraph(generator: random.Random, edges: int) -> Subgraph:
    """Random edges of two heads of two layers, and two units, over five positions."""
    found = set()
    while len(found) < edges:
        layer, mlp, index = generator.randrange(2), generator.random() < 0.3, generator.randrange(2)
        source = generator.randrange(5)
        found.add(TextEdge(layer, mlp, index, source, source if mlp else generator.randrange(source, 5)))
    return frozenset(found)


def search_by_brute_force(first: Subgraph, second: Subgraph) -> bool:
    """Whether any map of positions is a homomorphism."""
    places = sorted({place for edge in first for place in (edge.source, edge.target)})
    images = sorted({place for edge in second for place in (edge.source, edge.target)})
    return any(
        move(first, dict(zip(places, chosen, strict=True))) <= second
        for chosen in itertools.product(images, repeat=len(places))
    )


def test_the_checker_agrees_with_every_map_tried() -> None:
    """On random pairs, of which some are homomorphic."""
    generator = random.Random(0)
    answers = []
    for _ in range(300):
        first, second = draw_subgraph(generator, generator.randint(1, 3)), draw_subgraph(generator, 4)
        answers.append(is_homomorphic(first, second))
        assert answers[-1] == search_by_brute_force(first, second)
    assert any(answers) and not all(answers)


def test_classes_are_those_of_comparing_every_pair() -> None:
    """Grouping by canonical form changes nothing."""
    generator = random.Random(1)
    subgraphs = [draw_subgraph(generator, generator.randint(1, 2)) for _ in range(60)]
    found = classify_subgraphs(subgraphs)
    for (one, a), (other, b) in itertools.combinations(zip(subgraphs, found, strict=True), 2):
        assert (a == b) == (search_by_brute_force(one, other) and search_by_brute_force(other, one))


def test_pieces() -> None:
    """Pairs feed each other in the order of depth; joined pieces hang together; a shared end does not join."""
    unit, beside = TextEdge(1, True, 0, 5, 5), TextEdge(0, False, 3, 0, 5)
    edges = [LATE, EARLY, unit, TextEdge(2, False, 1, 0, 4)]
    assert set(list_pairs(edges)) == {INDUCTION, frozenset({LATE, unit})}
    assert join_edges(edges) == [frozenset({EARLY, LATE, unit}), frozenset({TextEdge(2, False, 1, 0, 4)})]
    assert len(join_edges([LATE, beside])) == 2
    assert [len(PIECES[name](edges)) for name in ("edges", "whole")] == [4, 1] and PIECES["whole"]([]) == []
    assert find_member(INDUCTION, frozenset(edges)) == INDUCTION
    assert find_member(INDUCTION, frozenset([EARLY, unit])) is None


@pytest.mark.parametrize(
    ("outputs", "texts", "targets", "verdict"),
    [
        ([(1,)] * 4 + [(2,)], 5, 2, "specific"),
        ([(1,)] * 3 + [(2,)], 4, 2, "abstract"),
        ([(1,)] * 2, 2, 2, "undecided"),
        ([(1,)] * 5, 5, 1, "undecided"),
    ],
)
def test_verdicts(outputs: list[tuple[int, ...]], texts: int, targets: int, verdict: str) -> None:
    """A fifth may differ; too few texts or a single target decide nothing."""
    assert judge(outputs, texts, targets, 0.2)[1] == verdict


def class_planted(
    planted: Planted, prompts: dict[str, str], pieces: str = "joined"
) -> tuple[Model, list[CircuitClass]]:
    """Circuits of a planted model over prompts with their answers."""
    model = load_planted(planted)
    texts = []
    for prompt, answer in prompts.items():
        ids = (*model.encode(prompt), *model.encode_plain(answer))
        texts.append(Text(ids, (len(ids) - 1,)))
    return model, find_circuits(model, texts, pieces=pieces)[0]


def test_a_fact_in_a_unit_is_specific() -> None:
    """It occurs in every text about France and in no other, depends on the subject, and carries its capital."""
    prompts = dict.fromkeys(("capital of France is", "the capital of France is", "the the France is"), "Paris")
    prompts |= {"the capital of Italy is": "Rome", "capital Italy is": "Rome"}
    for seed in range(2):
        model, circuits = class_planted(plant_unit_fact(seed), prompts)
        labels = {frozenset(edge[:3] for edge in circuit.members[0][1]): circuit for circuit in circuits}
        found = labels[frozenset({(0, True, 0), (1, False, 1)})]
        assert found.verdict == "specific" and found.variability == 0
        assert found.rate.value == pytest.approx(3 / 5)
        assert {tuple(map(model.decode, ids)) for ids in found.outputs} == {("Paris",)}
        assert all("France" in map(model.decode, ids) for ids in found.inputs)


def test_induction_heads_are_abstract() -> None:
    """One circuit in all texts, whatever it copies."""
    prompts = {"x A B y A": "B", "x A C y A": "C", "x D C y D": "C", "x E B y y E": "B"}
    for seed in range(2):
        _, circuits = class_planted(plant_induction(seed), prompts, "pairs")
        labels = {frozenset(edge[:3] for edge in circuit.members[0][1]): circuit for circuit in circuits}
        found = labels[frozenset({(0, False, 0), (1, False, 2)})]
        assert found.verdict == "abstract" and found.rate.value == 1
