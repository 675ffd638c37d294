"""Scores of heads and layers by where they take answers from, on planted models and against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.causal_tracing import STATES, restore_states
from circuits.component_effects import Item
from circuits.head_sources import (
    contrast_sources,
    diverge,
    measure_context_scores,
    measure_parameter_scores,
    measure_previous,
    measure_relevance,
)
from circuits.knowledge_neurons import attribute_units, find_neurons
from circuits.planted.facts import LAST, SUBJECT, plant_unit_fact
from circuits.planted.model import Planted
from circuits.planted.paths import plant_induction
from circuits.planted.planting import load_planted, pose_planted
from probes.attachments import NOTHING
from probes.errors import UserError
from probes.models import Model
from tests.checkpoints import load_shape


def ask(model: Model, prompt: str, answer: str) -> Item:
    """A prompt with nothing attached."""
    return Item(prompt, "", tuple(model.encode(prompt)), tuple(model.encode_plain(answer)), NOTHING)


def load(planted: Planted) -> Model:
    """A planted model."""
    return load_planted(planted)


def test_induction_model_reads_the_context() -> None:
    """Its second head is the in-context head, its first attends to the previous token."""
    model = load(plant_induction(0))
    texts = [tuple(model.encode("x A B y A")), tuple(model.encode("E C x D y"))]
    previous = measure_previous(model, texts).mean(axis=0)
    assert previous.argmax() == 0 and previous[0, 0] > 0.9
    found = contrast_sources(model, [ask(model, "x A C y A", "C")], [ask(model, "x y x y A", "B")])[0]
    assert np.unravel_index(found.argmax(), found.shape) == (1, 2)


def test_unit_model_knows_by_a_unit() -> None:
    """The planted unit is a knowledge neuron where it is read; at the end of a prompt none stands out as it does."""
    model = load(plant_unit_fact(0))
    wordings = [
        ask(model, prompt, "Paris") for prompt in ("the capital of France", "capital of France", "the the France")
    ]
    scores = [attribute_units(model, item) for item in wordings]
    assert all(own.shape == (3, 8) for own in scores)
    relevance = measure_relevance(model, [ask(model, "the capital of France is", "Paris")])[0]
    assert np.unravel_index(relevance.argmax(), relevance.shape) == (1, 1)
    # Layer 0 changes what France is read as: its FFN moves the lens more at France than at a word it does not know.
    known, other = measure_parameter_scores(model, [wordings[0], ask(model, "the capital of the", "Paris")])
    assert known[0] > 2 * other[0]


def test_knowledge_neurons_add_up_to_a_layer() -> None:
    """Attributions of a layer sum to what the probability gains from an empty layer to the whole one."""
    model = load_shape("llama")
    item = Item("a", "", (0, 20, 31, 44), (5,), NOTHING)
    scores = attribute_units(model, item, steps=200)

    def measure(factor: float) -> float:
        def scale(values: torch.Tensor, hook: object) -> torch.Tensor:
            values = values.clone()
            values[:, -1] *= factor
            return values

        logits = model.run(torch.tensor([item.ids]), [("blocks.1.mlp.out.hook_in", scale)])
        return float(logits[0, -1].detach().softmax(-1)[5])

    assert scores[1].sum() == pytest.approx(measure(1.0) - measure(0.0), rel=0.05, abs=1e-5)
    assert find_neurons([np.array([[1.0, 0.1]]), np.array([[0.5, 0.4]])]).tolist() == [[True, False]]
    assert not find_neurons([np.zeros((1, 2))]).any()


def test_context_scores_are_cosines() -> None:
    """Between -1 and 1; 1 where the last state is its own context."""
    model = load_shape("llama")
    item = Item("a", "", (0, 20, 31, 44), (5,), NOTHING)
    found = measure_context_scores(model, [item, item], [(1, 3), (3, 4)])
    assert np.abs(found).max() <= 1 + 1e-6 and found[1] == pytest.approx(np.ones((3, 4)))
    with pytest.raises(UserError, match="no text before the question"):
        measure_context_scores(model, [item], [(2, 2)])


def test_divergence_is_bounded_and_symmetric() -> None:
    """0 of equal distributions, log 2 of those that share nothing."""
    one = torch.tensor([[0.5, 0.5, 1e-30, 1e-30]]).log()
    other = torch.tensor([[1e-30, 1e-30, 0.5, 0.5]]).log()
    assert float(diverge(one, one)) == pytest.approx(0, abs=1e-6)
    assert float(diverge(one, other)) == pytest.approx(float(np.log(2)), rel=1e-5)
    assert float(diverge(one, other)) == pytest.approx(float(diverge(other, one)))


def test_causal_tracing_follows_the_planted_path() -> None:
    """The answer sits at the subject up to the head of layer 1 that carries it to the end."""
    problem = pose_planted(plant_unit_fact(0))
    found = {state: restore_states(problem, state).normalise() for state in STATES}
    stream = found["stream"]
    assert stream.shape == (4, 6) and found["mlp"].shape == (3, 6)
    for layer in (0, 1):
        assert stream[layer, SUBJECT] == pytest.approx(1, abs=0.1) and abs(stream[layer, LAST]) < 0.1
    for layer in (2, 3):
        assert stream[layer, LAST] == pytest.approx(1, abs=0.1) and abs(stream[layer, SUBJECT]) < 0.1
    assert found["mlp"][0, SUBJECT] > 0.9 and found["attention"][1, LAST] > 0.9
    assert np.abs(found["mlp"]).sum() < 1.3 and np.abs(found["attention"]).sum() < 1.3


@pytest.mark.parametrize("shape", ["gpt2", "pythia", "gemma3"])
def test_restoring_all_that_differs_restores_all(shape: str) -> None:
    """On prompts that differ at one position, the stream there before the first layer is the whole difference."""
    from circuits.metrics import build_readout
    from circuits.problem import Inputs, pose_problem

    model = load_shape(shape)
    clean, other = torch.tensor([[0, 20, 31, 44]]), torch.tensor([[0, 20, 33, 44]])
    inputs = Inputs(clean, other, NOTHING, NOTHING, build_readout([4], [[5]], [[9]]))
    problem = pose_problem(model, inputs, parts=True)
    stream = restore_states(problem, "stream").normalise()
    assert stream[0].tolist() == pytest.approx([0, 0, 1, 0], abs=1e-3)
    assert stream[3].tolist() == pytest.approx([0, 0, 0, 1], abs=1e-3)
    # What attention and MLP of one layer add is what the stream gains there.
    problem_zero = pose_problem(model, inputs, "zero", parts=True)
    with pytest.raises(UserError, match="one prompt with its counterfactual"):
        restore_states(problem_zero)
