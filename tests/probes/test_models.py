"""Loading checkpoints: every architecture decomposes, everything a person can mend is one clear error."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from probes.decomposition import check_decomposition
from probes.errors import UserError
from probes.models import load_model
from probes.norms import Norm
from probes.prompts import encode_answer, pair_prompts
from tests.checkpoints import MIXTURES, PARALLEL, ROTARY, SHAPES, load_shape, write_checkpoint


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_read(shape: str) -> None:
    """Counts come from the weights: grouped heads are not expanded, rotary attention is recognised."""
    model = load_shape(shape)
    assert (model.layers, model.heads, model.d_model, model.d_head) == (3, 4, 32, 8)
    assert model.kv_heads == (4 if shape == "gpt2" or shape in PARALLEL else 2)
    assert model.parallel == (shape in PARALLEL)
    for weights in model.weights:
        assert (weights.experts is None, weights.down is not None) == ((shape not in MIXTURES,) * 2)
    assert (model.attention is not None) == (shape != "gptj")
    if model.attention is not None:
        assert model.attention.rotary == (shape in ROTARY)
        assert model.attention.shows_turned == (shape in ROTARY and shape != "pythia")
        assert model.attention.scale == pytest.approx(8**-0.5, rel=1e-4)
        assert model.attention.soft_cap == (50.0 if shape == "gemma2" else None)
    assert len(model.sha256) == 64


def test_a_stream_that_does_not_add_up_is_refused() -> None:
    """A weight that is not what the model uses is found at load."""
    model = load_shape("llama")
    wrong = replace(model.weights[1], output=model.weights[1].output * 1.01)
    with pytest.raises(UserError, match="the sum of embedding"):
        check_decomposition(replace(model, weights=(model.weights[0], wrong, model.weights[2])))


def test_a_model_that_scales_what_it_adds_is_refused() -> None:
    """Granite multiplies every half layer's output before adding it: its stream is not the sum that would be listed."""
    with pytest.raises(UserError, match="the sum of embedding, heads, MLPs and biases differs"):
        load_shape("granite")


def copy_without(folder: Path, target: Path, *names: str) -> Path:
    """Copy of a checkpoint without some files."""
    shutil.copytree(folder, target)
    for name in names:
        for path in target.glob(name):
            path.unlink()
    return target


def test_missing_things_are_named(tmp_path: Path) -> None:
    """Folder, config, tokenizer and weights: each error says what is missing."""
    folder = write_checkpoint("llama")
    cases = {
        "no model folder": str(tmp_path / "nowhere" / "here"),
        "no config.json": str(copy_without(folder, tmp_path / "a", "config.json")),
        "no tokenizer": str(copy_without(folder, tmp_path / "b", "tokenizer*")),
        "no .safetensors": str(copy_without(folder, tmp_path / "c", "*.safetensors")),
    }
    for message, name in cases.items():
        with pytest.raises(UserError, match=message.replace(".", r"\.")):
            load_model(name, device="cpu")


def test_damaged_and_unknown_checkpoints_are_refused(tmp_path: Path) -> None:
    """A cut-off weight file and an unknown architecture are one line each."""
    folder = copy_without(write_checkpoint("llama"), tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot load"):
        load_model(str(folder), device="cpu")
    strange = copy_without(write_checkpoint("llama"), tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(
        json.dumps(config | {"model_type": "nosuch", "architectures": ["NoSuchForCausalLM"]})
    )
    with pytest.raises(UserError, match="cannot load"):
        load_model(str(strange), device="cpu")


def test_settings_are_checked() -> None:
    """Unknown dtype and device are named with what there is."""
    folder = str(write_checkpoint("llama"))
    with pytest.raises(UserError, match="choose one of float32"):
        load_model(folder, dtype="int4")
    with pytest.raises(UserError, match="not usable here"):
        load_model(folder, device="nosuchdevice")


def test_bfloat16_loads_and_decomposes() -> None:
    """Half precision passes the load check with its own tolerance."""
    model = load_model(str(write_checkpoint("llama")), dtype="bfloat16", device="cpu")
    assert model.describe()["dtype"] == "bfloat16"


def test_answers_have_one_token_or_several() -> None:
    """A space goes before an answer; all its tokens are kept; prompts too long and empty answers are refused."""
    model = load_shape("llama")
    assert encode_answer(model, "Paris", "The capital of France is") == (" Paris", (model.encode_plain(" Paris")[0],))
    text, ids = encode_answer(model, "Constantinople", "The capital is")
    assert text == " Constantinople" == "".join(model.decode(token) for token in ids)
    assert len(ids) > 1
    pair = pair_prompts(model, "The capital is", "The capital is", "Constantinople", "Rome")
    assert pair.fed_ids[0] == (*pair.clean_ids, *ids[:-1])
    assert "".join(pair.answer_tokens) == text
    with pytest.raises(UserError, match="the model reads 128"):
        model.encode("Paris " * 300)
    with pytest.raises(UserError, match="the model reads 128, the last not counted"):
        pair_prompts(model, "Paris" * 20, "Paris" * 20, " Constantinople" * 20, "Rome")
    with pytest.raises(UserError, match="the foil is empty"):
        encode_answer(model, " ", "The capital is", "foil")


def test_pairs_align() -> None:
    """Prompts of equal length give the stretch that changed; unequal ones an error."""
    model = load_shape("llama")
    pair = pair_prompts(model, "The capital of France is", "The capital of Italy is", "Paris", "Rome")
    (span,) = pair.spans
    assert span.name == "changed"
    assert "".join(pair.clean_tokens[span.start : span.stop]).strip() == "France"
    with pytest.raises(UserError, match="positions must match"):
        pair_prompts(model, "The capital of France is", "The capital is", "Paris", "Rome")


@pytest.mark.parametrize("centred", [True, False])
def test_norms_pull_gradients_back(centred: bool) -> None:
    """The pulled-back gradient is autograd's."""
    torch.manual_seed(0)
    norm = Norm(torch.randn(16), torch.randn(16) if centred else None, 1e-3, centred)
    x = torch.randn(2, 3, 16, requires_grad=True)
    gradient = torch.randn(2, 3, 16)
    (wanted,) = torch.autograd.grad(norm.apply(x), x, gradient)
    assert torch.allclose(norm.pull_back(gradient, x.detach()), wanted, atol=1e-5)


@pytest.mark.parametrize("centred", [True, False])
def test_heads_are_pulled_back_in_one_product(centred: bool) -> None:
    """Folding weight, scale and mean into the product gives what projecting back and pulling back does."""
    torch.manual_seed(1)
    norm = Norm(torch.randn(16), torch.randn(16) if centred else None, 1e-3, centred)
    x, gradient, projection = torch.randn(2, 3, 16), torch.randn(2, 3, 4, 5), torch.randn(4, 16, 5)
    projected = torch.einsum("bphd,hmd->hbpm", gradient, projection)
    wanted = norm.pull_back(projected, x)
    output = torch.einsum("bpm,hmd->bphd", norm.apply(x), projection)
    room = torch.empty(6, 2, 3, 16)
    pulled = norm.pull_back_heads(gradient, projection, x, output, room)
    assert torch.allclose(pulled, wanted, atol=1e-5)
    assert pulled.data_ptr() == room.data_ptr()
    assert torch.equal(norm.pull_back_heads(gradient, projection, x, output), pulled)
