"""Planted circuits: exact patching confirms each of their edges and no other, and rankings are measured right."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float

from circuits.faithfulness import measure_kept, normalise
from circuits.methods import Options
from circuits.patching import patch_everything
from circuits.planted.families import FAMILIES
from circuits.planted.model import Planted, PlantedEdge, mark_edges
from circuits.planted.planting import PLANTERS, pose_planted
from circuits.planted.validation import find_parts, measure_auroc, measure_precision
from circuits.problem import Problem
from circuits.scoring import score
from probes.progress import quiet

# A planted edge changes the metric by more than this share of its whole change (clean to ablated), any other by less.
STRONG, NOISE = 0.8, 0.12


@cache
def pose(family: str) -> tuple[Planted, Problem]:
    """Planted model of a family, shared by the tests of a process."""
    planted = PLANTERS[family](0)
    return planted, pose_planted(planted)


@cache
def patch(family: str) -> Float[np.ndarray, "pos writer reader"]:
    """Exact drop of the metric by every edge alone, as a share of the whole change."""
    _, problem = pose(family)
    edges, _ = patch_everything(problem, quiet)
    return edges.numpy() / (problem.metric_clean - problem.metric_ablated)


def mark(family: str, *edges: PlantedEdge) -> np.ndarray:
    """Mask of some edges; of all planted ones when none are named."""
    planted, problem = pose(family)
    return mark_edges(edges or planted.edges, problem.wiring, problem.positions)


def keep(family: str, *kept: np.ndarray) -> list[float]:
    """Normalised metric with only these edges kept, one number a mask."""
    _, problem = pose(family)
    visible = problem.wiring.visible
    return [normalise(problem, value) for value in measure_kept(problem, np.stack([mask & visible for mask in kept]))]


def test_every_family_is_planted() -> None:
    assert list(PLANTERS) == list(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_planted_edges_and_no_others_change_the_metric(family: str) -> None:
    """Alone, each planted edge moves the metric by its whole change or so, and each other edge by the noise at most."""
    planted, problem = pose(family)
    drops, mask = np.abs(patch(family)), mark(family)
    unseen = mark_edges(planted.unseen, problem.wiring, problem.positions)
    assert drops[mask & ~unseen].min() > STRONG
    assert drops[~mask].max() < NOISE
    assert bool(planted.unseen) == bool(FAMILIES[family].limit)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.limit])
def test_what_single_edges_hide_shows_in_pairs(family: str) -> None:
    """An unseen edge moves nothing alone; beside the edges that make up for it, it moves the metric as any other."""
    planted, _ = pose(family)
    drops = patch(family)
    for edge, partners in planted.unseen.items():
        assert abs(drops[mark(family, edge)][0]) < NOISE
        with_edge, without = keep(family, ~mark(family, *partners), ~mark(family, *partners, edge))
        assert abs(with_edge - without) > STRONG


@pytest.mark.parametrize("family", FAMILIES)
def test_the_planted_circuit_is_sufficient_and_complete(family: str) -> None:
    """The planted edges alone keep the metric, and all the others together keep none of it."""
    alone, rest = keep(family, mark(family), ~mark(family))
    assert alone == pytest.approx(1.0, abs=NOISE)
    assert rest == pytest.approx(0.0, abs=NOISE)


def rank(family: str, method: str, found: np.ndarray | None = None) -> float:
    """AUROC of a method's scores, or of scores that are given."""
    _, problem = pose(family)
    found = score(problem, method, Options(), quiet).edges if found is None else found
    mask = mark(family)
    existing = np.broadcast_to(problem.wiring.visible, mask.shape)
    return measure_auroc(np.abs(found[existing]), mask[existing])


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if not family.limit])
def test_exact_patching_and_integrated_gradients_find_what_single_edges_show(family: str) -> None:
    assert rank(family, "exact", patch(family)) == 1.0
    assert rank(family, "eap-ig") >= 0.98


@pytest.mark.parametrize("family", ["unit", "bank", "explicit", "two-hop"])
def test_a_fact_in_one_part_comes_out_as_the_top_part(family: str) -> None:
    """Planted units and slots rank above every other of their kind, and removing them moves the metric by as much."""
    planted, problem = pose(family)
    found = [finding for finding in find_parts(planted, problem, family, 0) if finding.kind != "attention edge"]
    assert len(found) == 1
    for finding in found:
        assert finding.worst == finding.planted
        assert finding.strongest < NOISE
        # Either slot of the explicit memory carries half of the change: the answer's and the foil's.
        assert finding.weakest > STRONG / (2 if family == "explicit" else 1)
        assert finding.weakest == pytest.approx(finding.exact, abs=NOISE)


@pytest.mark.parametrize("family", ["unit", "bank", "explicit", "two-hop", "induction"])
def test_planted_attention_edges_matter_exactly(family: str) -> None:
    """Each of them moves the metric by its whole change, whatever its estimate says where attention is saturated."""
    planted, problem = pose(family)
    (finding,) = [found for found in find_parts(planted, problem, family, 0) if found.kind == "attention edge"]
    assert finding.exact > STRONG


def test_background_is_drawn_and_the_circuit_is_not() -> None:
    """Another seed gives other random weights, the same seed the same, and neither moves a planted one."""
    first, again, other = PLANTERS["unit"](0).sketch, PLANTERS["unit"](0).sketch, PLANTERS["unit"](1).sketch
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    name = "model.layers.0.mlp.gate_proj.weight"
    assert torch.equal(first.tensors[name][0], other.tensors[name][0])
    assert not torch.equal(first.tensors[name][1:], other.tensors[name][1:])


def test_norms_read_what_was_written() -> None:
    """Behind every norm the stream reads as it was written, and the large number as 1."""
    planted, problem = pose("unit")
    record, model = problem.clean_record, problem.model
    for layer, weights in enumerate(model.weights):
        stream = record.attention_stream[layer]
        assert torch.allclose(weights.attention_norm.apply(stream)[..., 1:], stream[..., 1:], rtol=1e-5, atol=1e-6)
    place = planted.sketch.place["answer"]
    assert float(model.final_norm.apply(record.final_stream)[0, -1, place]) == pytest.approx(1.0, abs=NOISE)  # type: ignore[arg-type]


SCORES = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12).filter(
    lambda rows: len({planted for _, planted in rows}) == 2
)


@given(SCORES)
def test_ranking_measures_are_what_they_say(rows: list[tuple[int, bool]]) -> None:
    """AUROC counts pairs, ties half; average precision averages over planted edges, ties taken together."""
    scores = np.array([value for value, _ in rows], dtype=float)
    planted = np.array([is_planted for _, is_planted in rows])
    ours, others = scores[planted], scores[~planted]
    pairs = [(a > b) + 0.5 * (a == b) for a in ours for b in others]
    assert measure_auroc(scores, planted) == pytest.approx(np.mean(pairs))
    shares = [planted[scores >= a].mean() for a in ours]
    assert measure_precision(scores, planted) == pytest.approx(np.mean(shares))
