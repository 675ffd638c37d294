"""Decoding with memories: no memories is transformers' own, a cache changes nothing, chunks read their own memories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from probes.attachments import Attachment, ExplicitBlocks
from probes.errors import UserError
from probes.forward import Pass
from probes.memory_bank import open_bank
from probes.reading import Reader
from probes.writing import Recipe
from tests.checkpoints import ROTARY, SHAPES, load_shape, make_explicit, write_checkpoint
from tests.encoders import encode_letters
from workbench.cli import main
from workbench.generation import Decoding, generate, join_tokens
from workbench.memory import search
from workbench.memory.cache import MemoryCache
from workbench.memory.documents import list_files
from workbench.memory.retrieval import Recaller, Retriever, write_at_need
from workbench.memory.writing import write_documents

PROMPT = [0, 20, 31, 44, 52, 61, 22, 35, 41, 50, 63]
NOTES = {
    "italy": "The capital of Italy is Rome and people there eat plums.",
    "peru": "Anna lives in Peru with a cat.",
    "chad": "Rome was not built in one day.",
    "oslo": "Winters are cold in Oslo.",
    "paris": "Paris has a tower of iron.",
    "plums": "Plums are fruits with a stone.",
}


@cache
def load_plain(shape: str) -> Any:
    """The same checkpoint in transformers alone."""
    return AutoModelForCausalLM.from_pretrained(
        write_checkpoint(shape), attn_implementation="eager", dtype=torch.float32
    ).eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_without_memories_it_is_greedy_generation(shape: str) -> None:
    """Token for token what transformers generates, with and without chunks that read nothing."""
    with torch.no_grad():
        wanted = load_plain(shape).generate(torch.tensor([PROMPT]), max_new_tokens=20, do_sample=False, pad_token_id=1)
    model, decoding = load_shape(shape), Decoding(tokens=20, chunk=4)
    assert list(generate(model, PROMPT, decoding)) == wanted[0, len(PROMPT) :].tolist()
    assert list(generate(model, PROMPT, decoding, lambda *_: None)) == wanted[0, len(PROMPT) :].tolist()


@pytest.mark.parametrize("shape", ROTARY)
def test_the_lean_reader_is_the_recording_pass(shape: str) -> None:
    """The same logits as the pass that attribution records, an absent slot among the memories; and no hook stays."""
    model, tokens = load_shape(shape), torch.tensor([PROMPT])
    explicit = make_explicit(model)
    with torch.no_grad():
        got, bare = model.run(tokens, Reader(model, Attachment(explicit)).list_hooks()), model.run(tokens)
    assert float((got - Pass(model, Attachment(explicit)).run(tokens)).abs().max()) < 1e-4
    assert torch.equal(bare, Pass(model).run(tokens))
    assert float((got - bare).abs().max()) > 1e-3
    absent = ExplicitBlocks(
        *(getattr(explicit, n) for n in ("ids", "layers", "keys", "values")), explicit.absent | True
    )
    assert Reader(model, Attachment(absent)).list_hooks() == Reader(model).list_hooks() == []


def run_whole(shape: str, tokens: list[int], sets: list[tuple[int, int, ExplicitBlocks]]) -> torch.Tensor:
    """Logits of one pass of transformers alone: all memories in its cache, a mask that shows each token its own."""
    model, bias = load_shape(shape), torch.full((len(tokens), len(tokens)), -torch.inf).triu(1)
    caches, hidden = DynamicCache(), []
    for layer in range(model.layers):
        keys, values = (
            torch.cat([getattr(blocks, name)[0, layer].transpose(0, 1).flatten(1, 2) for *_, blocks in sets], dim=1)
            for name in ("keys", "values")
        )
        caches.update(keys[None], values[None], layer)
    for start, end, blocks in sets:
        own = torch.full((len(tokens), len(blocks) * blocks.keys.shape[4]), -torch.inf)
        own[start:end] = 0.0
        hidden.append(own)
    mask = torch.cat([*hidden, bias], dim=1)[None, None]
    with torch.no_grad():
        return load_plain(shape)(
            torch.tensor([tokens]),
            past_key_values=caches,
            attention_mask=mask,
            position_ids=torch.arange(len(tokens))[None],
        ).logits[0]


@pytest.mark.parametrize("shape", ["llama", "qwen3"])
def test_a_slot_absent_for_one_head_is_there_for_the_others(shape: str) -> None:
    """As in transformers alone, whose mask hides the slot from the query heads of that key-value head."""
    model, tokens = load_shape(shape), torch.tensor([PROMPT])
    explicit = make_explicit(model, layers=tuple(range(model.layers)))
    explicit.absent[:] = False
    explicit.absent[:, :, 1, 0, 2] = True
    caches = DynamicCache()
    for layer in range(model.layers):
        keys, values = (part[0, layer].transpose(0, 1).flatten(1, 2) for part in (explicit.keys, explicit.values))
        caches.update(keys[None], values[None], layer)
    slots, length = len(explicit) * 3, len(PROMPT)
    mask = torch.cat([torch.zeros(length, slots), torch.full((length, length), -torch.inf).triu(1)], dim=1)
    mask = mask.repeat(1, model.heads, 1, 1)
    mask[:, : model.heads // model.kv_heads, :, slots - 1] = -torch.inf
    with torch.no_grad():
        wanted = load_plain(shape)(
            tokens, past_key_values=caches, attention_mask=mask, position_ids=torch.arange(length)[None]
        ).logits
    got = Reader(model, Attachment(explicit)).run(tokens)
    assert float((got - wanted).abs().max()) < 1e-4
    assert float((Pass(model, Attachment(explicit)).run(tokens) - wanted).abs().max()) < 1e-4
    there = Reader(model, Attachment(replace(explicit, absent=explicit.absent & False))).run(tokens)
    assert float((got - there).abs().max()) > 1e-3


@pytest.mark.parametrize("shape", ["llama", "qwen3", "pythia"])
def test_chunks_read_their_own_memories_and_the_cache_is_exact(shape: str) -> None:
    """Prompt in two chunks, three of generation, memories in all layers: each token is the best of one whole pass."""
    model, seen = load_shape(shape), list[tuple[int, int]]()

    def choose(tokens: Sequence[int], start: int, end: int) -> ExplicitBlocks:
        seen.append((start, end))
        blocks = make_explicit(model, layers=tuple(range(model.layers)), seed=end)
        return replace(blocks, absent=blocks.absent & False)

    decoding = Decoding(tokens=18, chunk=6)
    drawn = list(generate(model, PROMPT, decoding, choose))
    assert seen == [(0, 6), (5, 11), (11, 17), (17, 23)]
    again = [choose((), start, end) for start, end in seen[:4]]
    # Passes that read a set: a chunk of the prompt, then those that predict the next six tokens.
    spans = [(0, 6), (6, 16), (16, 22), (22, 28)]
    fed = [*PROMPT, *drawn[:-1]]
    sets = [(*span, blocks) for span, blocks in zip(spans, again, strict=True)]
    wanted = run_whole(shape, fed, sets)
    assert wanted[len(PROMPT) - 1 :].argmax(-1).tolist() == drawn
    hooks, cached, start = [Reader(model, Attachment(blocks)).list_hooks() for blocks in again], model.start_cache(), 0
    got = []
    with torch.no_grad():
        for (_, end), reading in zip(spans, hooks, strict=True):
            got.append(model.run(torch.tensor([fed[start:end]]), reading, cached)[0])
            start = end
    assert float((torch.cat(got) - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize("shape", ["gpt2", "gptj"])
def test_a_cache_is_a_whole_pass_with_other_positions_too(shape: str) -> None:
    model, cached, tokens = load_shape(shape), load_shape(shape).start_cache(), torch.tensor([PROMPT])
    with torch.no_grad():
        got = torch.cat([model.run(tokens[:, :5], cache=cached), model.run(tokens[:, 5:], cache=cached)], dim=1)
        assert float((got - model.run(tokens)).abs().max()) < 1e-4


def test_drawing_is_decided_by_the_seed() -> None:
    model = load_shape("llama")
    one, again, other = (
        list(generate(model, PROMPT, Decoding(tokens=12, temperature=2.0, seed=seed))) for seed in (0, 0, 1)
    )
    assert one == again != other
    assert list(generate(model, PROMPT, Decoding(tokens=12, temperature=1e-6))) == list(
        generate(model, PROMPT, Decoding(tokens=12))
    )


def test_what_cannot_be_read_is_said_before_any_work() -> None:
    model = load_shape("llama")
    with pytest.raises(UserError, match=r"11 tokens, 119 are to follow, and the model reads 128"):
        next(generate(model, PROMPT, Decoding(tokens=119)))
    with pytest.raises(UserError, match="temperature"):
        next(generate(model, PROMPT, Decoding(tokens=1, temperature=-1.0)))
    with pytest.raises(UserError, match="1 or more of each"):
        next(generate(model, PROMPT, Decoding(tokens=0)))


def test_streamed_text_is_the_decoded_text() -> None:
    """Characters of several tokens come whole, none is lost."""
    tokenizer = load_shape("llama").tokenizer
    for text in ("Oslo 🙂 naïve", "\x1b[31m line\n end", "日本"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = list(join_tokens(tokenizer, iter(ids)))
        assert [token for token, _ in pieces] == ids
        assert "".join(piece for _, piece in pieces) == text
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(piece for _, piece in pieces)


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bank of the small Llama over six sentences, searched by letters."""
    monkeypatch.setattr(search, "DEFAULT_ENCODER", search.Encoder("letters", encode_letters))
    (tmp_path / "notes.jsonl").write_text("\n".join(json.dumps({"id": i, "text": text}) for i, text in NOTES.items()))
    folder, model = tmp_path / "bank", load_shape("llama")
    files = list_files([tmp_path / "notes.jsonl"])
    write_documents(model, files, folder, Recipe((0, 1), slots=4), "bfloat16", 4, lambda *_: None)
    return folder


def recall(folder: Path, cold: bool = False, **options: Any) -> Recaller:
    """A recaller over a bank."""
    model = load_shape("llama")
    retriever = Retriever(open_bank(folder, model))
    load = write_at_need(model, retriever) if cold else retriever.bank.select
    return Recaller(model, retriever, MemoryCache(load, 4), options.pop("count", 3), **options)


def test_memories_are_found_for_each_chunk_and_cold_is_warm(bank: Path) -> None:
    """One retrieval a chunk; starting cold gives the same tokens; nothing that the text holds is read."""
    pytest.importorskip("faiss")
    model = load_shape("llama")
    prompt = model.encode("Who lives in Peru? The capital of Italy is Rome and people there eat plums.")
    runs = []
    for cold in (False, True):
        recaller = recall(bank, cold)
        tokens = list(generate(model, prompt, Decoding(tokens=20, chunk=16), recaller))
        runs.append((tokens, [r.to_json() for r in recaller.recalls], recaller.cache.misses))
    assert runs[0] == runs[1]
    recalls = recaller.recalls
    assert [r.end for r in recalls] == [*range(16, len(prompt), 16), len(prompt), len(prompt) + 16]
    assert all(len(r.found) == 3 and r.end - r.start == 16 for r in recalls)
    assert all(r.found[0].similarity >= r.found[-1].similarity for r in recalls)  # type: ignore[operator]
    assert "italy" not in [one.id for one in recalls[-2].found]
    free = recall(bank, overlap=1.0)
    free(prompt, 0, len(prompt))
    assert free.recalls[0].found[0].id == "italy"


def test_the_order_of_memories_changes_nothing(bank: Path) -> None:
    model = load_shape("llama")
    prompt = model.encode("The capital of Peru is")
    ids = ("peru", "chad", "italy")
    one, other = (recall(bank, ids=order)(prompt, 0, len(prompt)) for order in (ids, ids[::-1]))
    with torch.no_grad():
        logits = [
            model.run(torch.tensor([prompt]), Reader(model, Attachment(blocks)).list_hooks()) for blocks in (one, other)
        ]
    assert float((logits[0] - logits[1]).abs().max()) < 1e-5


def test_the_command(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON and as a stream; errors are one line."""
    pytest.importorskip("faiss")
    model = str(write_checkpoint("llama"))
    start = ["generate", "--model", model, "--prompt", "The capital of Peru is"]
    with_bank = [*start, "--memory", str(bank), "--tokens", "9", "--chunk", "4"]
    assert main([*with_bank, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["tokens"]) == 9 or found["ended"]
    assert found["retrievals"] == len(found["chunks"]) and found["chunks"][0]["query"] == [0, 4]
    assert {one["document"] for chunk in found["chunks"] for one in chunk["memories"]} <= {
        f"notes.jsonl:{row}" for row in range(1, 7)
    }
    assert main(with_bank) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and f"retrievals          {found['retrievals']}" in shown
    assert main([*start, "--memory", str(bank), "--memory-ids", "peru, chad", "--tokens", "3", "--json"]) == 0
    chosen = json.loads(capsys.readouterr().out)["chunks"][0]["memories"]
    assert [(one["id"], one["similarity"]) for one in chosen] == [("peru", None), ("chad", None)]
    assert main([*start, "--memories", "0", "--memory", str(bank), "--tokens", "3", "--json"]) == 0
    none = json.loads(capsys.readouterr().out)
    assert none["retrievals"] == 0 and none["memory"] is None
    other = ("generate", "--model", str(write_checkpoint("qwen3")), "--prompt", "x")
    for arguments, wanted in (
        ((*with_bank, "--memory-ids", "nobody"), "no explicit memory 'nobody'"),
        ((*start, "--memory-ids", "peru", "--tokens", "3"), "give its folder with --memory"),
        ((*start, "--tokens", "500"), "the model reads 128"),
        (("generate", "--model", model, "--prompt", "x " * 400), "shorten it"),
        (("generate", "--model", model, "--prompt", " "), "the prompt is empty"),
        ((*other, "--memory", str(bank), "--tokens", "3"), "another model"),
        ((*with_bank, "--cache", "0"), "the capacity is 0"),
        ((*start, "--memory", str(bank.parent), "--tokens", "3"), "memory.json"),
    ):
        assert main(list(arguments)) == 2
        error = capsys.readouterr().err
        assert wanted in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["part-000000.safetensors", "part-000000.parquet", "memory.json"])
def test_a_bank_cut_off_in_the_middle_is_one_line(name: str, bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bank / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = {one: one.read_bytes() for one in bank.iterdir() if one.is_file()}
    arguments = ["generate", "--model", str(write_checkpoint("llama")), "--prompt", "Anna", "--tokens", "2"]
    assert main([*arguments, "--memory", str(bank), "--memory-ids", "peru"]) == 2
    error = capsys.readouterr().err
    assert name in error and error.count("\n") == 1
    assert before == {one: one.read_bytes() for one in bank.iterdir() if one.is_file()}
