"""Quality measures at the points where they are known: the whole graph as a circuit, exact scores, equal circuits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.agreement import STRATA, compare_circuits, correlate, measure_agreement, sample_edges
from circuits.assembly import assemble
from circuits.circuit import Circuit, EdgeScores, mask_edges
from circuits.connectivity import Mask
from circuits.curves import GRID, build_curve, measure_curves, rank_signed
from circuits.faithfulness import measure_kept, normalise
from circuits.methods import Options
from circuits.metrics import build_readout
from circuits.patching import measure_patches, patch_node
from circuits.problem import Inputs, Problem, pose_problem
from circuits.quality import list_edges_of, measure_quality, remove
from circuits.scoring import score
from circuits.selection import Goal, rank_edges, select_top
from probes.attachments import Attachment
from probes.progress import quiet
from tests.checkpoints import load_shape, make_bank


@pytest.fixture(scope="module")
def problem() -> Problem:
    """One pair of three tokens on a model with grouped key-value heads and bank blocks."""
    model = load_shape("llama")
    attachment = Attachment(bank=make_bank(model))
    clean, other = torch.tensor([[0, 20, 31]]), torch.tensor([[0, 22, 33]])
    return pose_problem(model, Inputs(clean, other, attachment, attachment, build_readout([3], [[5]], [[9]])))


@pytest.fixture(scope="module")
def scores(problem: Problem) -> EdgeScores:
    """EAP scores of the problem."""
    return score(problem, "eap", Options(), quiet)


def build_circuit(scores: EdgeScores, mask: Mask) -> Circuit:
    """Circuit at rest of a mask, with even attention."""
    plan = scores.wiring.plan
    attention = np.full((plan.layers, plan.heads, *mask.shape[:1] * 2), 0.5, dtype=np.float32)
    return assemble(scores, mask, int(mask.sum()), attention)


def test_areas_are_those_of_the_benchmark() -> None:
    """The trapezoidal sum written out as MIB does, and its fixed points."""
    values = tuple(np.random.default_rng(0).normal(size=len(GRID)).tolist())
    under = distance = 0.0
    for (x, f), (x2, f2) in zip(zip(GRID, values, strict=True), list(zip(GRID, values, strict=True))[1:], strict=False):
        under += (x2 - x) * (f + f2) / 2
        distance += (x2 - x) * (abs(1 - f) + abs(1 - f2)) / 2
    curve = build_curve(GRID, tuple(range(10)), values)
    assert (curve.cpr, curve.cmd) == (pytest.approx(under), pytest.approx(distance))
    perfect = build_curve(GRID, tuple(range(10)), (1.0,) * 10)
    assert (perfect.cpr, perfect.cmd) == (pytest.approx(0.999), 0.0)


def test_curves_end_at_the_model_and_rank_as_they_say(problem: Problem, scores: EdgeScores) -> None:
    """All edges give 1; each point is the circuit of that size measured alone; the signed ranking sorts by sign."""
    told: list[tuple[str, int, int]] = []
    curves = measure_curves(problem, scores, 2, 0, lambda *tick: told.append(tick))
    # Two draws at each size but the last, which is the whole graph, once.
    assert {(done, total) for label, done, total in told if label == "random curve"} == {(0, 2), (0, 1)}
    assert told[-1] == ("random curve", 0, 1)
    for curve in (curves.absolute, curves.signed, curves.random):
        assert curve.faithfulness[-1] == pytest.approx(1.0, abs=1e-4)
        assert curve.edges[-1] == scores.wiring.edges * 3
    mask = select_top(scores, Goal(int(0.1 * scores.wiring.edges * 3), (2,))).mask
    (value,) = measure_kept(problem, [mask], 1, quiet, "")
    assert curves.absolute.faithfulness[6] == pytest.approx(normalise(problem, value), abs=1e-5)
    assert curves.absolute.edges[6] == mask.sum()
    signed = scores.edges.ravel()[rank_edges(rank_signed(scores))]
    assert (np.diff(signed) <= 0).all() and signed[0] > 0 > signed[-1]


def test_the_whole_graph_is_sufficient_necessary_and_complete(problem: Problem, scores: EdgeScores) -> None:
    """Nothing is left without it, knock-outs in it are knock-outs in the model, and its drops are exact effects."""
    whole = build_circuit(scores, np.broadcast_to(scores.wiring.visible, scores.edges.shape))
    found = measure_quality(problem, whole, 4, 0, quiet)
    assert found.sufficiency == pytest.approx(1.0, abs=1e-4)
    assert found.necessity == pytest.approx(1.0, abs=1e-4)
    assert found.completeness.largest == pytest.approx(0.0, abs=1e-4)
    assert found.edges.measured == 256 < found.edges.parts
    change = problem.metric_clean - problem.metric_ablated
    for drop in (one for one in found.nodes.drops if ".kv" not in one.name):
        name, _, position = drop.name.partition("@")
        exact = patch_node(problem, scores.wiring.find_writer(name), int(position), quiet)
        assert drop.drop == pytest.approx(exact / change, abs=1e-4)


def test_removals_are_measured_one_by_one(problem: Problem, scores: EdgeScores) -> None:
    """A node's removal takes its edges and no others; shares, orders and seeds are what they say."""
    circuit = build_circuit(scores, select_top(scores, Goal(60, (2,))).mask)
    mask = mask_edges(circuit, scores.wiring, 3)
    found = measure_quality(problem, circuit, 3, 7, quiet)
    assert found == measure_quality(problem, circuit, 3, 7, quiet)
    assert found.edges.measured == found.edges.parts == mask.sum()
    drops = [one.drop for one in found.edges.drops]
    assert drops == sorted(drops, reverse=True)
    assert found.edges.share_without_effect == np.mean([abs(drop) < found.edges.tolerance for drop in drops])
    wiring, keys = scores.wiring, [f"a1.kv1.{role}" for role in "kv"]
    left = remove(np.broadcast_to(wiring.visible, mask.shape), list_edges_of("a1.kv1@2", wiring))
    gone = np.argwhere(np.broadcast_to(wiring.visible, mask.shape) & ~left)
    assert {int(position) for position, _, _ in gone} == {2}
    assert {wiring.readers[reader].name for _, _, reader in gone} == set(keys)


def test_misses_are_the_largest_errors_of_a_sample_from_strong_to_weak(problem: Problem, scores: EdgeScores) -> None:
    """Sampled edges are patched one by one; the strongest are always among them."""
    chosen = sample_edges(scores, 34, 0)
    assert len(set(chosen.tolist())) == len(chosen) == 34
    ranks = np.flatnonzero(np.isin(rank_edges(scores), chosen))
    assert ranks[:3].max() < 20 and ranks[-1] > len(rank_edges(scores)) // 3
    # As even over the strata as whole numbers allow, except where all that were left are taken.
    cuts = sorted({round(len(rank_edges(scores)) ** (power / STRATA)) for power in range(1, STRATA + 1)} - {1})
    for place, cut in enumerate(cuts, start=1):
        assert (ranks < cut).sum() in (cut, pytest.approx(34 * place / len(cuts), abs=0.5))
    places = np.array(np.unravel_index(chosen, scores.edges.shape)).T.tolist()
    drops = measure_patches(problem, [(p, r, w) for p, w, r in places], quiet, "").numpy()
    found = measure_agreement(problem, scores, 34, 0, quiet)
    assert found.spearman is not None and 0 < found.spearman < 1
    errors = [abs(miss.estimate - miss.exact) for miss in found.misses]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(np.abs(scores.edges.ravel()[chosen] - drops).max(), rel=1e-4)


def test_rank_correlation_is_none_where_there_is_nothing_to_rank() -> None:
    line = np.array([0.0, 0.5, 1.0])
    assert correlate(line, -line) == pytest.approx(-1.0)
    assert correlate(line, np.array([0.0, 0.0, 1.0])) == pytest.approx(0.75**0.5)
    assert correlate(np.ones(3), line) is None and correlate(line, np.ones(3)) is None
    assert correlate(line[:2], line[:2]) is None


def test_a_sample_as_large_as_the_graph_is_the_graph(scores: EdgeScores) -> None:
    ranked = rank_edges(scores)
    assert sorted(sample_edges(scores, len(ranked), 0).tolist()) == sorted(ranked.tolist())


def test_equal_circuits_overlap_and_disjoint_ones_do_not(scores: EdgeScores) -> None:
    """1 with itself, 0 with what shares no edge; moving edges to another position changes nothing."""
    mask = select_top(scores, Goal(60, (2,))).mask
    same = compare_circuits("same", (scores, mask), (scores, mask))
    assert (same.jaccard, same.spearman) == (1.0, pytest.approx(1.0))
    moved = compare_circuits("moved", (scores, mask), (replace(scores, edges=scores.edges[::-1].copy()), mask[::-1]))
    assert moved.jaccard == 1.0
    other = np.broadcast_to(scores.wiring.visible, mask.shape) & ~mask.any(axis=0)
    assert compare_circuits("other", (scores, mask), (scores, other)).jaccard == 0.0


def test_exact_scores_agree_with_exact_patching(problem: Problem) -> None:
    """A correlation of 1 and no miss, whatever is sampled."""
    small = pose_problem(
        problem.model,
        replace(
            problem.inputs,
            clean=problem.inputs.clean[:, :2],
            counterfactual=problem.inputs.counterfactual[:, :2],
            readout=build_readout([2], [[5]], [[9]]),
        ),
    )
    exact = score(small, "exact", Options(), quiet)
    found = measure_agreement(small, exact, 40, 1, quiet)
    # How many rows run together decides the last bits, and effects that are equal up to those swap their ranks.
    assert found.spearman is not None and found.spearman > 0.999
    assert found.sign == 1.0
    assert max(abs(miss.estimate - miss.exact) for miss in found.misses) < 1e-5
