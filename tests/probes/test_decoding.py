"""The twin without hook points: the model's own weights and logits, memories exchanged in its cache, refusals."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from probes.attachments import Attachment, ExplicitBlocks
from probes.decoding import build_twin, see_context
from tests.checkpoints import SHAPES, load_shape, make_explicit
from workbench.generation import Decoding, HookedText, generate

TWINS = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
PROMPT = [0, 20, 31, 44, 52, 61, 22, 35, 41, 50, 63]


@pytest.mark.parametrize("shape", TWINS)
def test_the_twin_is_the_model_with_hooks(shape: str) -> None:
    """Logits at every step, bare and with memories that change with each chunk, one slot absent, one set missing."""
    model = load_shape(shape)
    twin, hooked = build_twin(model), HookedText(model)
    assert twin is not None
    sets = [make_explicit(model, layers=layers, seed=seed) for seed, layers in enumerate([(0, 2), (0, 1), (1, 2)])]
    twin.start()
    hooked.start()
    for explicit, tokens in zip([None, *sets, None], (PROMPT[:5], PROMPT[5:], [7], [8, 9], [3]), strict=True):
        twin.attach(explicit)
        hooked.attach(Attachment(explicit))
        for piece in (tokens, [11]):
            assert float((twin.read(piece) - hooked.read(piece)).abs().max()) < 1e-4


@pytest.mark.parametrize("shape", TWINS)
def test_the_same_tokens_come_with_and_without_it(shape: str) -> None:
    model = load_shape(shape)
    made = build_twin(model)
    assert made is not None

    def choose(tokens: Sequence[int], start: int, end: int) -> ExplicitBlocks:
        return make_explicit(model, layers=(0, 2), seed=end)

    for chosen in (None, choose):
        drawn = [list(generate(model, PROMPT, Decoding(16, chunk=5), chosen, twin=twin)) for twin in (None, made, made)]
        assert drawn[0] == drawn[1] == drawn[2]


def test_nothing_is_copied() -> None:
    model = load_shape("llama")
    twin = build_twin(model)
    assert twin is not None
    own = {parameter.data_ptr() for parameter in model.bridge.original_model.parameters()}
    assert {parameter.data_ptr() for parameter in twin.network.parameters()} == own


def test_other_architectures_have_none() -> None:
    assert all(build_twin(load_shape(shape)) is None for shape in ("gpt2", "pythia", "mixtral"))
    assert set(TWINS) < set(SHAPES)


def test_a_twin_that_is_not_the_model_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a window that is one too narrow the logits differ, and no twin is given."""
    model, plain = load_shape("gemma3"), see_context

    def narrow(queries: int, keys: int, front: object, window: int | None, device: torch.device) -> object:
        return plain(queries, keys, None, None if window is None else window - 1, device)

    monkeypatch.setattr("probes.decoding.see_context", narrow)
    assert build_twin(model) is None
