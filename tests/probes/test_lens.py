"""Lenses end in the model's own prediction, a tuned lens comes nearer to it, and probes know what they cannot know."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.attachments import NOTHING
from probes.errors import UserError
from probes.forward import Pass
from probes.lens import read_lens, stack_streams, train_lens, unembed
from probes.linear_probe import draw_control, probe_labels
from tests.checkpoints import load_shape

TOKENS = torch.tensor([[0, 20, 31, 44, 52]])


@pytest.mark.parametrize("shape", ["gpt2", "pythia", "gemma2"])
def test_the_last_depth_is_the_model(shape: str) -> None:
    """And the first is the embedding alone."""
    model = load_shape(shape)
    whole = Pass(model)
    logits = whole.run(TOKENS)
    found = read_lens(model, TOKENS, NOTHING, 2)
    assert found.shape == (4, model.d_vocab)
    torch.testing.assert_close(found[-1], logits[0, 2].log_softmax(-1), atol=1e-4, rtol=1e-4)
    first = unembed(model, stack_streams(whole.record, 3)[0, 0, 2:3])[0]
    torch.testing.assert_close(found[0], first.log_softmax(-1), atol=1e-4, rtol=1e-4)


def test_a_tuned_lens_comes_nearer_to_the_model() -> None:
    """On its training texts, at every layer; without steps it is the logit lens; the same seed gives the same."""
    model = load_shape("llama")
    texts = [
        torch.randint(2, model.d_vocab, (2, 12), generator=torch.Generator().manual_seed(seed)) for seed in range(3)
    ]
    lens = train_lens(model, texts, steps=30, rows=16, seed=0)
    assert all(after < before for before, after in lens.losses)
    again = train_lens(model, texts, steps=30, rows=16, seed=0)
    assert torch.equal(lens.weights, again.weights)
    plain = train_lens(model, texts, steps=0, rows=16, seed=0)
    torch.testing.assert_close(
        read_lens(model, TOKENS, NOTHING, 3, plain), read_lens(model, TOKENS, NOTHING, 3), atol=1e-5, rtol=1e-5
    )
    with pytest.raises(UserError, match="needs texts"):
        train_lens(model, [], 1, 1, 0)


def test_probes_are_held_against_control_tasks() -> None:
    """A label in a linear direction is read well above control; one of the facts' identity alone is not selective."""
    generator = np.random.default_rng(0)
    types = [f"fact {i}" for i in range(24) for _ in range(4)]
    folds = [wording for _ in range(24) for wording in range(4)]
    labels = ["even" if int(name[5:]) % 2 == 0 else "odd" for name in types]
    noise = generator.normal(size=(96, 6))
    told = noise.copy()
    told[:, 0] += [4.0 if label == "even" else -4.0 for label in labels]
    score = probe_labels(told, labels, types, folds, 0)
    assert score.accuracy > 0.95 and score.selectivity > 0.25
    assert score.majority == 0.5 and (score.labels, score.items) == (2, 96)
    by_heart = np.eye(24)[[int(name[5:]) for name in types]]
    learnt = probe_labels(by_heart, labels, types, folds, 0)
    assert learnt.accuracy == 1 and learnt.control == 1 and learnt.selectivity == 0
    assert probe_labels(told, labels, types, folds, 0) == score


def test_control_labels_belong_to_types() -> None:
    """Every item of a type has the same label."""
    types = ["a", "a", "b", "c"]
    control = draw_control(types, ["x", "x", "y", "y"], np.random.default_rng(0))
    assert control[0] == control[1] and set(control) <= {"x", "y"}


def test_what_cannot_be_probed() -> None:
    """One label, or one wording."""
    with pytest.raises(UserError, match="two labels"):
        probe_labels(np.zeros((2, 1)), ["x", "x"], ["a", "b"], [0, 1], 0)
    with pytest.raises(UserError, match="two wordings"):
        probe_labels(np.zeros((2, 1)), ["x", "y"], ["a", "b"], [0, 0], 0)
