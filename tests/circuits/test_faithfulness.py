"""Faithfulness at its fixed points: everything kept is 1, nothing kept is 0, random circuits have the same size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.batches import hold, measure_faithfulness
from circuits.faithfulness import draw_random_masks
from circuits.methods import Options
from circuits.metrics import build_readout
from circuits.problem import Inputs, pose_problem
from circuits.scoring import collect_scores, score
from circuits.selection import keep_strongest
from probes.attachments import Attachment
from probes.errors import UserError
from tests.checkpoints import load_shape, make_bank


def test_faithfulness_runs_from_nothing_to_everything() -> None:
    """0 for the empty circuit, 1 for the whole graph, between them what a masked run gives."""
    model = load_shape("llama")
    attachment = Attachment(bank=make_bank(model))
    clean, other = torch.tensor([[0, 20, 31, 44]]), torch.tensor([[0, 22, 33, 44]])
    problem = pose_problem(model, Inputs(clean, other, attachment, attachment, build_readout([4], [[5]], [[9]])))
    scores = score(problem, "eap", Options(), lambda *_: None)
    whole = np.broadcast_to(scores.wiring.visible, scores.edges.shape)

    def measure(mask: np.ndarray) -> float:
        return measure_faithfulness(
            hold(problem), problem.wiring, mask, "logits", 0, lambda *_: None, draws=2
        ).normalised

    assert measure(whole.copy()) == pytest.approx(1.0, abs=1e-3)
    assert measure(np.zeros_like(whole)) == pytest.approx(0.0, abs=1e-3)
    strong = measure_faithfulness(
        hold(problem), problem.wiring, keep_strongest(scores, 400), "logits", 0, lambda *_: None, draws=3
    )
    assert strong.edges == 400
    assert strong.random.low <= strong.random.mean <= strong.random.high
    again = measure_faithfulness(
        hold(problem), problem.wiring, keep_strongest(scores, 400), "logits", 0, lambda *_: None, draws=3
    )
    assert again == strong


def test_random_circuits_have_the_size_and_only_existing_edges() -> None:
    """Each draw keeps as many edges, none of them impossible, and the seed decides which."""
    model = load_shape("llama")
    clean, other = torch.tensor([[0, 20, 31]]), torch.tensor([[0, 22, 31]])
    wiring = pose_problem(
        model, Inputs(clean, other, Attachment(), Attachment(), build_readout([3], [[5]], [[9]]))
    ).wiring
    masks = np.stack(list(draw_random_masks(wiring, 3, 50, 4, seed=7)))
    assert masks.sum(axis=(1, 2, 3)).tolist() == [50] * 4
    assert not (masks & ~wiring.visible).any()
    assert np.array_equal(masks, np.stack(list(draw_random_masks(wiring, 3, 50, 4, seed=7))))
    assert not np.array_equal(masks, np.stack(list(draw_random_masks(wiring, 3, 50, 4, seed=8))))


def test_scores_that_are_not_finite_are_refused() -> None:
    """NaN in a score is an error that says what to change, not a number in a file."""
    model = load_shape("llama")
    clean, other = torch.tensor([[0, 20, 31]]), torch.tensor([[0, 22, 31]])
    problem = pose_problem(model, Inputs(clean, other, Attachment(), Attachment(), build_readout([3], [[5]], [[9]])))
    bad = torch.full((3, len(problem.wiring.writers), len(problem.wiring.readers)), float("nan"))
    with pytest.raises(UserError, match="not finite"):
        collect_scores(problem.wiring, problem.ablation, problem.metric_name, bad, None, "eap")
