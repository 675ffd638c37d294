"""Generation with blocks of a bank beside explicit memories, and from documents of which no memory was written yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.attachments import Attachment
from probes.bank import GENERIC, load_bank
from probes.errors import UserError
from probes.forward import Pass
from probes.memory_bank import open_bank
from probes.models import load_model
from probes.writing import Recipe
from tests.checkpoints import load_shape, make_blocks, make_explicit, write_checkpoint
from tests.encoders import encode_letters
from tests.small_world import write_routed_world
from workbench.banks import encoding
from workbench.banks.fetching import Fetcher
from workbench.banks.routing import Vectors
from workbench.cli import main
from workbench.generation import Decoding, generate
from workbench.memory import search
from workbench.memory.cache import MemoryCache
from workbench.memory.cold import DocumentRetriever
from workbench.memory.documents import list_files
from workbench.memory.retrieval import Finder, Recaller, Retriever
from workbench.memory.store import delete_memories
from workbench.memory.writing import write_documents

PROMPT = [0, 20, 31, 44, 52, 61, 22, 35]
KINDS = [
    ("ffn", ()), ("key-value", ()), ("lora", ("query", "key")), ("lora", ("value", "output")),
    ("lora", ("gate", "up", "down")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "targets"), KINDS)
def test_cached_decoding_with_blocks_and_memories_is_the_recording_pass(kind: str, targets: tuple[str, ...]) -> None:
    """Each token is the best of a whole pass, without a cache, over the text so far with the same attached."""
    model = load_shape("llama")
    attachment = Attachment(make_explicit(model), make_blocks(model, kind, targets))
    drawn = list(
        generate(model, PROMPT, Decoding(tokens=6), lambda *_: attachment.explicit, lambda *_: attachment.bank)
    )
    logits = Pass(model, attachment).run(torch.tensor([[*PROMPT, *drawn[:-1]]]))[0]
    assert logits[len(PROMPT) - 1 :].argmax(-1).tolist() == drawn
    bare = Pass(model).run(torch.tensor([[*PROMPT, *drawn[:-1]]]))[0]
    assert float((logits - bare).abs().max()) > 1e-3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world; its router compares three numbers of a text."""
    return write_routed_world(tmp_path_factory.mktemp("world") / "world")


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were routed; those with a `z` go to cluster 1 of level 1."""
    seen: list[str] = []

    def encode(texts: Sequence[str]) -> Vectors:
        seen.extend(texts)
        return np.array([[0.1, 0.9, 0.2] if "z" in text else [0.9, 0.1, 0.2] for text in texts], np.float32)

    monkeypatch.setattr(encoding, "DEFAULT_ENCODER", search.Encoder("letters", encode))
    encoding.open_encoder.cache_clear()
    return seen


def test_blocks_are_routed_once_or_for_every_chunk(world: Path, routed: list[str]) -> None:
    model = load_model(str(world / "model"), device="cpu")
    bank, ids = load_bank(world / "bank", model), model.encode("zzzz aaaaaaaaaaaaaaaa zzzz")
    once, often = Fetcher(model, bank), Fetcher(model, bank, routing="chunk")
    for fetcher in (once, often):
        list(generate(model, ids, Decoding(tokens=1, chunk=4), fetch=fetcher))
    assert [(fetch.start, fetch.end, fetch.path) for fetch in once.fetches] == [(0, len(ids), (1, 2))]
    assert routed[0] == "zzzz aaaaaaaaaaaaaaaa zzzz"
    assert (often.fetches[0].start, often.fetches[0].end) == (0, 4)
    assert {fetch.path for fetch in often.fetches} == {(1, 2), (0, 0)}


def test_every_reading_mode(world: Path, routed: list[str]) -> None:
    model = load_model(str(world / "model"), device="cpu")
    bank, ids = load_bank(world / "bank", model), model.encode("zzzz")
    paths = {}
    for reading in ("none", "generic", "fetched", "wrong", "blocked"):
        fetcher = Fetcher(model, bank, reading)
        blocks = fetcher(ids, 0, len(ids))
        paths[reading] = None if blocks is None else blocks.path
    assert paths["none"] is None and paths["generic"] == (GENERIC, GENERIC) and paths["fetched"] == (1, 2)
    assert paths["wrong"] and paths["wrong"][0] == 0 and paths["blocked"] and paths["blocked"][0] == 0


def test_the_command_reads_blocks(world: Path, routed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    start = ["generate", "--model", str(world / "model"), "--prompt", "zzzz", "--tokens", "3"]
    assert main([*start, "--bank", str(world / "bank"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["bank"]
    assert found["reading"] == "fetched" and [fetch["path"] for fetch in found["fetches"]] == [[1, 2]]
    assert main([*start, "--bank", str(world / "bank"), "--reading", "generic"]) == 0
    assert "generic blocks" in capsys.readouterr().out
    assert main([*start, "--bank", "auto"]) == 2
    assert "no bank came with" in capsys.readouterr().err


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents that are searched by their letters."""
    monkeypatch.setattr(search, "DEFAULT_ENCODER", search.Encoder("letters", encode_letters))
    texts = ("The capital of Italy is Rome.", "Anna lives in Peru.", "Rome was not built in one day.", "Cold in Oslo.")
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "notes.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (folder / "again.txt").write_text(texts[0])
    return folder


def recall(finder: Finder, load: Any) -> tuple[list[int], list[Any]]:
    model = load_shape("llama")
    recaller = Recaller(model, finder, MemoryCache(load, 4), 2)
    ids = model.encode("Who lives in Peru? Is it Anna of Italy?")
    tokens = list(generate(model, ids, Decoding(tokens=12, chunk=8), recaller))
    return tokens, [recall.to_json() for recall in recaller.recalls]


def test_documents_read_cold_are_the_bank_of_these_documents(notes: Path, tmp_path: Path) -> None:
    """The same references, ids, finds and tokens as from a bank; a text that comes twice is one reference."""
    pytest.importorskip("faiss")
    model, recipe = load_shape("llama"), Recipe((0, 1), slots=4)
    cold = DocumentRetriever(model, list_files([notes]), recipe)
    write_documents(model, list_files([notes]), tmp_path / "bank", recipe, "bfloat16", 4, lambda *_: None)
    warm = Retriever(open_bank(tmp_path / "bank", model))
    assert len(cold) == len(warm.bank) == 4
    assert recall(cold, cold.write) == recall(warm, warm.bank.select)


def test_known_chunks_are_embedded_in_one_call(notes: Path) -> None:
    """The chunks of the prompt together, each later one alone: as many finds, fewer calls."""
    calls: list[int] = []

    def encode(texts: Sequence[str]) -> Vectors:
        calls.append(len(texts))
        return encode_letters(texts)

    model = load_shape("llama")
    finder = DocumentRetriever(model, list_files([notes]), Recipe((0, 1)), encoder=search.Encoder("counted", encode))
    _, found = recall(finder, finder.write)
    prompt = len(model.encode("Who lives in Peru? Is it Anna of Italy?"))
    known = -(-prompt // 8)
    assert len(found) > known and calls == [known, 4, *[1] * (len(found) - known)]


def test_the_command_starts_cold_from_documents(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_checkpoint("llama"))
    start = ["generate", "--model", model, "--prompt", "Who lives in Peru?", "--tokens", "3", "--documents", str(notes)]
    assert main([*start, "--memories", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["references"] == 4 and found["memory"]["loaded"] == 2
    assert main([*start, "--memory", "bank"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main([*start, "--memory-ids", "nothing"]) == 2
    assert "no reference 'nothing'" in capsys.readouterr().err


def test_documents_without_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": "  "}\n')
    with pytest.raises(UserError, match=r"hold no text|empty"):
        DocumentRetriever(load_shape("llama"), list_files([tmp_path]), Recipe((0,)))


def test_what_was_found_is_not_looked_for_again(notes: Path, tmp_path: Path) -> None:
    """A search tells the bank where its finds lie; in a bank with deleted rows, where places differ, it does not."""
    pytest.importorskip("faiss")
    model, folder = load_shape("llama"), tmp_path / "bank"
    write_documents(model, list_files([notes]), folder, Recipe((0,), slots=4), "bfloat16", 4, lambda *_: None)
    finder = Retriever(open_bank(folder, model))
    wanted = [(one.id, finder.bank.ids.to_pylist().index(one.id)) for one in finder.find("Anna in Peru", 3)]
    assert [(name, finder.bank.known[name]) for name, _ in wanted] == wanted
    delete_memories(folder, [wanted[0][0]])
    after = Retriever(open_bank(folder, model))
    found = after.find("Anna in Peru", 3)
    assert [one.id for one in found][:2] == [name for name, _ in wanted[1:]]
    places = after.bank.ids.to_pylist()
    assert all(after.bank.locate(one.id)[1] == places.index(one.id) for one in found)
