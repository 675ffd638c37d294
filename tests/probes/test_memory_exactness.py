"""Memories attached by hooks equal the same memories built into the model: cache, widened FFN, nothing at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from probes.attachments import Attachment, ExplicitBlocks
from probes.errors import UserError
from probes.explicit import ExplicitMemories, fetch_memories, fetch_memory_rows, turn_memories
from probes.forward import Pass
from probes.prefix import add_prefix, read_prefix
from probes.reading import Reader
from probes.writing import write_memories
from tests.checkpoints import ROTARY, SHAPES, load_shape, make_bank, make_explicit, write_checkpoint

TOKENS = torch.tensor([[0, 20, 31, 44, 52, 61], [0, 22, 35, 41, 50, 63]])
MEMORIES = {"a": "The capital of France is Paris.", "b": "Anna lives in Oslo and eats plums."}


def load_plain(shape: str) -> torch.nn.Module:
    """The same checkpoint in transformers alone."""
    return AutoModelForCausalLM.from_pretrained(
        write_checkpoint(shape), attn_implementation="eager", dtype=torch.float32
    ).eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_attached_is_the_base_model_bit_for_bit(shape: str) -> None:
    """A recorded pass without memories changes no bit of the bridge's logits, which are transformers' own."""
    model = load_shape(shape)
    with torch.no_grad():
        bare = model.bridge(TOKENS, return_type="logits", prepend_bos=False)
        plain = load_plain(shape)(TOKENS).logits
    assert torch.equal(Pass(model).run(TOKENS), bare)
    assert torch.equal(Pass(model, Attachment(), attention=True).run(TOKENS), bare)
    assert float((bare - plain).abs().max()) < 1e-5


@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3", "gemma2", "pythia"])
def test_explicit_memory_is_the_models_own_cache(shape: str) -> None:
    """Memory in every layer equals the same keys and values fed through past_key_values (GQA, capped scores too)."""
    model = load_shape(shape)
    explicit = make_explicit(model, layers=tuple(range(model.layers)), blocks=2)
    # Scores large enough to feel the cap of Gemma 2 (50).
    explicit = replace(explicit, keys=explicit.keys * (4 if shape == "gemma2" else 1))
    explicit = ExplicitBlocks(
        explicit.ids, explicit.layers, explicit.keys, explicit.values, torch.zeros_like(explicit.absent)
    )
    cache = DynamicCache()
    for layer in range(model.layers):
        keys, values = (part[0, layer].transpose(0, 1).flatten(1, 2) for part in (explicit.keys, explicit.values))
        cache.update(*(part[None].expand(2, -1, -1, -1).contiguous() for part in (keys, values)), layer)
    positions = torch.arange(TOKENS.shape[1])[None].expand(2, -1)
    with torch.no_grad():
        wanted = load_plain(shape)(TOKENS, past_key_values=cache, position_ids=positions).logits
        lean = Reader(model, Attachment(explicit)).run(TOKENS)
    got = Pass(model, Attachment(explicit)).run(TOKENS)
    assert float((got - wanted).abs().max()) < 1e-5 and float((lean - wanted).abs().max()) < 1e-5
    assert float((got - Pass(model).run(TOKENS)).abs().max()) > 1e-3


@pytest.mark.parametrize("shape", ["llama", "qwen2"])
def test_bank_blocks_are_a_wider_ffn(shape: str) -> None:
    """Blocks attached by hooks equal a checkpoint whose SwiGLU was widened by concatenation."""
    model, plain = load_shape(shape), load_plain(shape)
    bank = make_bank(model, layers=(0, 1, 2), units=(3, 2))
    for layer, block in enumerate(plain.model.layers):
        for level in range(len(bank)):
            for name, rows, axis in (
                ("gate_proj", bank.pick("gate", level, layer)[0], 0),
                ("up_proj", bank.pick("up", level, layer)[0], 0),
                ("down_proj", bank.pick("down", level, layer)[0].T, 1),
            ):
                linear = getattr(block.mlp, name)
                linear.weight = torch.nn.Parameter(torch.cat([linear.weight.data, rows], dim=axis))
    with torch.no_grad():
        wanted = plain(TOKENS).logits
    got = Pass(model, Attachment(bank=bank)).run(TOKENS)
    assert float((got - wanted).abs().max()) < 1e-5
    assert float((got - Pass(model).run(TOKENS)).abs().max()) > 1e-3


def test_zero_blocks_change_nothing() -> None:
    """Blocks at their initialisation (zero down vectors) leave the logits as they are."""
    model = load_shape("llama")
    bank = make_bank(model)
    zero = bank.silence(range(len(bank)))
    assert torch.equal(Pass(model, Attachment(bank=zero)).run(TOKENS), Pass(model).run(TOKENS))


@pytest.mark.parametrize("shape", ROTARY)
def test_keeping_every_token_is_reading_the_reference(shape: str) -> None:
    """With all tokens kept in all layers, the memory is the reference's own cache at its distance from the context."""
    model = load_shape(shape)
    text, prompt = MEMORIES["a"], model.encode("Anna lives in")
    memories = write_memories(model, {"a": text}, layers=tuple(range(model.layers)), slots=64, offset=40, prefix="")
    reference = model.encode(f" {text}")
    kept = int((memories.positions[0, 0, 0] >= 0).sum())
    assert kept == len(reference) - 1
    got = Pass(model, Attachment(fetch_memories(memories, model, ("a",)))).run(torch.tensor([prompt]))
    if shape in ("gemma2", "gemma3"):
        assert torch.isfinite(got).all()
        return
    plain = load_plain(shape)
    cache = DynamicCache()
    with torch.no_grad():
        plain(torch.tensor([reference]), past_key_values=cache)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, 1:], layer.values[:, :, 1:]
        positions = 40 + torch.arange(len(prompt))[None]
        wanted = plain(torch.tensor([prompt]), past_key_values=cache, position_ids=positions).logits
    assert float((got - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3", "pythia"])
def test_the_prefix_is_the_models_own_cache_at_every_head_of_every_layer(shape: str) -> None:
    """The prefix alone equals its cache in transformers, at its distance; without it, and no memory, the base model."""
    model, plain = load_shape(shape), load_plain(shape)
    prefix = read_prefix(model, "Reference:", 40)
    ids = model.encode("Reference:")
    cache = DynamicCache()
    positions = 40 + torch.arange(TOKENS.shape[1])[None].expand(2, -1)
    with torch.no_grad():
        plain(torch.tensor([ids, ids]), past_key_values=cache)
        wanted = plain(TOKENS, past_key_values=cache, position_ids=positions).logits
        lean = model.run(TOKENS, Reader(model, Attachment(prefix)).list_hooks())
        bare = model.run(TOKENS, Reader(model).list_hooks())
    got = Pass(model, Attachment(prefix)).run(TOKENS)
    assert float((got - wanted).abs().max()) < 1e-4 and float((lean - wanted).abs().max()) < 1e-4
    assert torch.equal(bare, Pass(model).run(TOKENS)) and float((got - bare).abs().max()) > 1e-3


def test_the_prefix_beside_memories_is_read_where_they_are_not() -> None:
    """At memory layers the memories' slots and the prefix's are in one softmax, elsewhere the prefix is alone."""
    model = load_shape("qwen3")
    memories = fetch_memories(write_memories(model, MEMORIES, layers=(1,), slots=3), model, ("a", "b"))
    prefix = read_prefix(model, "Reference:", 128)
    both = add_prefix(memories, prefix)
    assert both.layers == (0, 1, 2) and both.ids == ("a", "b", "Reference:")
    whole = Pass(model, Attachment(both))
    got = whole.run(TOKENS)
    with torch.no_grad():
        assert float((got - model.run(TOKENS, Reader(model, Attachment(both)).list_hooks())).abs().max()) < 1e-4
    read = [whole.record.slot_weights[layer].sum(dim=(0, 1, 2, 4)) for layer in range(3)]
    assert all(float(weights[2]) > 0 for weights in read)
    assert float(read[0][:2].sum()) == float(read[2][:2].sum()) == 0 < float(read[1][:2].min())


def test_learned_positions_stay_as_they_were_written() -> None:
    """GPT-2: all tokens of a reference kept in all layers are its own cache, at the context's positions."""
    model, plain = load_shape("gpt2"), load_plain("gpt2")
    layers = tuple(range(model.layers))
    memories = write_memories(model, {"a": MEMORIES["a"]}, layers, 64, prefix="", positions="written")
    reference, cache = model.encode(f" {MEMORIES['a']}"), DynamicCache()
    explicit = fetch_memories(memories, model, ("a",))
    got = Pass(model, Attachment(explicit)).run(TOKENS[:1])
    with torch.no_grad():
        lean = model.run(TOKENS[:1], Reader(model, Attachment(explicit)).list_hooks())
        plain(torch.tensor([reference]), past_key_values=cache)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, 1:], layer.values[:, :, 1:]
        wanted = plain(TOKENS[:1], past_key_values=cache, position_ids=torch.arange(TOKENS.shape[1])[None]).logits
    assert float((got - wanted).abs().max()) < 1e-4 and float((lean - wanted).abs().max()) < 1e-4
    with pytest.raises(UserError, match=r"learned absolute positions.* --positions written"):
        write_memories(model, MEMORIES)
    with pytest.raises(UserError, match="has rotary positions"):
        write_memories(load_shape("llama"), MEMORIES, positions="written")
    with pytest.raises(UserError, match="no rotary positions"):
        read_prefix(model, "Reference:", 128)
    with pytest.raises(UserError, match="cannot join"):
        write_memories(load_shape("gptj"), MEMORIES)


def test_order_of_memories_does_not_matter() -> None:
    """Parallel positions: permuting the memories leaves the logits as they are, to rounding."""
    model = load_shape("qwen3")
    memories = write_memories(model, MEMORIES)
    first = Pass(model, Attachment(fetch_memories(memories, model, ("a", "b")))).run(TOKENS)
    second = Pass(model, Attachment(fetch_memories(memories, model, ("b", "a")))).run(TOKENS)
    assert float((first - second).abs().max()) < 1e-5


def test_selection_does_not_move_with_the_text() -> None:
    """Kept tokens are chosen before rotary: the same reference later in the positions keeps the same tokens."""
    model = load_shape("llama")
    first = write_memories(model, MEMORIES, layers=(0,), slots=3, offset=100, prefix="")
    later = write_memories(model, MEMORIES, layers=(0,), slots=3, offset=100, prefix="to to to")
    shift = int(later.positions.min() - first.positions.min())
    assert shift > 0
    assert torch.equal(later.positions, first.positions + shift)


def test_hooks_are_removed_when_a_pass_fails() -> None:
    """An error inside a hook leaves the model as it was."""
    model = load_shape("llama")

    def fail(tensor: torch.Tensor, hook: object) -> None:
        raise RuntimeError("planted")

    before = Pass(model).run(TOKENS)
    with pytest.raises(RuntimeError, match="planted"):
        model.run(TOKENS, [("blocks.1.attn.hook_q", fail)])
    assert torch.equal(Pass(model).run(TOKENS), before)


def test_slots_are_absent_where_no_token_was_kept() -> None:
    """Position 0 is a token, -1 is none; rows of several prompts share what they name, in their own order."""
    model = load_shape("llama")
    shape = (2, 1, model.kv_heads, 3)
    positions = torch.tensor([0, 4, -1]).expand(shape).int()
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(*shape, model.d_head, generator=generator) for _ in range(2))
    memories = ExplicitMemories(("a", "b"), (1,), 32, "", "0" * 64, keys, values, positions)
    block = turn_memories(memories, model)
    assert block.absent.shape == (1, 1, 2, model.kv_heads, 3)
    assert block.absent.reshape(-1, 3).unique(dim=0).tolist() == [[False, False, True]]
    torch.testing.assert_close(block.values[0, 0], values[:, 0])
    rows = fetch_memory_rows(memories, model, [("b", "a"), ("a", "b")])
    assert rows.ids == ("b", "a") and rows.keys.shape[0] == 2
    torch.testing.assert_close(rows.values[0], block.values[0].flip(1))
    torch.testing.assert_close(rows.keys[1], block.keys[0])
