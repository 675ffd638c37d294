"""Training to read explicit memories: read as the workbench reads, resumed to the same bytes, refused clearly."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuits.problem import record_run
from probes.attachments import Attachment
from probes.errors import UserError
from probes.explicit import encode_reference, fetch_memories
from probes.models import load_model
from probes.writing import write_memories
from tests.checkpoints import TEXT, load_shape, write_checkpoint
from workbench.cli import main
from workbench.training import checkpoints, reading_material
from workbench.training.corpus import cut_pieces
from workbench.training.live import CHUNK, READERS, share_live, write_live
from workbench.training.networks import open_network, save_network
from workbench.training.reader import Reader, ReaderPlan, make_optimizer, measure_tokens, train_reader
from workbench.training.reading_material import Material, choose_references
from workbench.training.steps import Steps, choose_rate, order_rows

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
NAMES = ("Anna", "Berta", "Carl", "Doris", "Emil", "Frida", "Georg", "Hanna")
PLAN = ReaderPlan(steps=4, warmup_steps=2, rows=2, length=64, rate=1e-3, slots=4, offset=64, seed=3)


def embed_words(texts: Sequence[str], *_: Any) -> np.ndarray:
    """Vectors of length 1 that words decide, in place of the sentence encoder."""
    vectors = np.zeros((len(texts), 64), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % 64] += 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixteen short documents, two about each person."""
    monkeypatch.setattr(reading_material, "encode_texts", embed_words)
    path = tmp_path / "corpus.jsonl"
    texts = [f"{name} lives in Oslo and eats plums." for name in NAMES] + [
        f"The capital that {name} likes is Paris. {name} eats plums in Rome." for name in NAMES
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def train(corpus: Path, out: Path, plan: ReaderPlan = PLAN, shape: str = "llama", **choices: Any) -> dict[str, Any]:
    """Train a random model."""
    given = {"device": "cpu", "minutes": 60.0, "resume": True, "tick": lambda *_: None} | choices
    return train_reader(str(write_checkpoint(shape)), [str(corpus)], out, plan, **given)


@pytest.mark.parametrize("shape", FAMILIES)
def test_training_reads_what_the_workbench_reads(shape: str) -> None:
    network = open_network(str(write_checkpoint(shape)), "cpu")
    network.model.eval()
    model = load_shape(shape)
    texts = {"one": "Anna lives in Oslo and eats plums.", "two": "The capital of Italy is Rome."}
    ids = torch.tensor([model.encode(TEXT)])
    memories = write_memories(model, texts, layers=(0, 1), slots=4, offset=64)
    _, expected = record_run(model, ids, Attachment(fetch_memories(memories, model, ("one", "two"))))
    rows = [encode_reference(model.tokenizer, "Reference:", text)[0] for text in texts.values()]
    first = encode_reference(model.tokenizer, "Reference:", "x")[1]
    references = torch.zeros(2, max(map(len, rows)), dtype=torch.long)
    for place, row in enumerate(rows):
        references[place, : len(row)] = torch.tensor(row)
    position = torch.arange(references.shape[1])
    valid = (position >= first) & (position < torch.tensor([[len(row)] for row in rows]))
    written = write_live(network.model, references, valid, (0, 1), 4, 64, gradient=True)
    # Two chunks begin before the text, so that both are read from its first token on.
    shared = share_live(written, torch.tensor([[0, 1]]), 2 * CHUNK)
    cut = {
        layer: replace(slots, seen=slots.seen[:, :, CHUNK : CHUNK + ids.shape[1]]) for layer, slots in shared.items()
    }
    found = network.model(input_ids=ids, use_cache=False, memory=cut).logits
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    plain = network.model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(plain, record_run(model, ids, Attachment())[1], atol=2e-4, rtol=1e-4)
    assert (plain - found).abs().max() > 1e-2


def test_a_reference_is_read_in_its_chunk_and_the_four_after_it() -> None:
    network = open_network(str(write_checkpoint("llama")), "cpu")
    ids = torch.randint(5, 200, (7, 20), generator=torch.Generator().manual_seed(0))
    written = write_live(network.model, ids, torch.ones(7, 20, dtype=torch.bool), (1,), 3, 64, gradient=False)
    chosen = torch.tensor([[0, 1, 2, -1, 4, 5, 6]])
    seen = share_live(written, chosen, 7 * CHUNK)[1].seen
    per_chunk = seen[0, 0].reshape(7, CHUNK, 7, 3)
    assert (per_chunk == per_chunk[:, :1]).all()
    expected = torch.tensor([[0 <= mine - it < READERS and it != 3 for it in range(7)] for mine in range(7)])
    assert (per_chunk[:, 0] == expected[:, :, None]).all()


@pytest.mark.parametrize("gradient", [True, False])
def test_gradients_through_the_write_are_a_choice(corpus: Path, tmp_path: Path, gradient: bool) -> None:
    network = open_network(str(write_checkpoint("llama")), "cpu")
    plan = replace(PLAN, gradient=gradient)
    material = make_material(network, corpus, plan)
    reader = Reader(network, plan, material, (0, 1), make_optimizer(network, plan))
    slots = reader.write([0, 1])
    assert [part.requires_grad for part in (slots[0].keys, slots[1].values)] == [gradient, gradient]
    ids = material.sequences[[0, 1]].long()
    value = network.model.model.layers[1].self_attn.v_proj.weight
    measure_tokens(network.model, ids, memory=slots).backward()
    through = value.grad.clone()
    value.grad = None
    cut = {layer: replace(part, keys=part.keys.detach(), values=part.values.detach()) for layer, part in slots.items()}
    measure_tokens(network.model, ids, memory=cut).backward()
    assert torch.allclose(through, value.grad, atol=1e-7) != gradient


def make_material(network: Any, corpus: Path, plan: ReaderPlan) -> Material:
    """Material of a corpus."""
    files = [(corpus, corpus.name)]
    return reading_material.build_material(
        files, 1000, network.tokenizer, plan.length, plan.prefix, plan.offset, plan.overlap, lambda *_: None
    )


def test_a_sequence_does_not_read_what_it_holds(corpus: Path) -> None:
    sequence = np.arange(64, dtype=np.int32)[None]
    references = [[99, *range(10, 30)], [99, *range(20, 0, -1)], [99, *range(200, 220)]]
    chosen = choose_references(sequence, references, iter([[0, 1, 2]]), 1, 0.9, lambda *_: None)
    assert chosen.tolist() == [[1]]
    chosen = choose_references(sequence, references, iter([[0]]), 1, 0.9, lambda *_: None)
    assert chosen.tolist() == [[-1]]
    material = make_material(open_network(str(write_checkpoint("llama")), "cpu"), corpus, PLAN)
    for sequence_ids, row in zip(material.sequences.tolist(), material.chosen.tolist(), strict=True):
        assert row[0] >= 0
        own = material.references[row[0], int(material.first) : int(material.lengths[row[0]])].tolist()
        assert str(own)[1:-1] not in str(sequence_ids)


def test_training_learns_and_its_result_is_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "reader"
    record = train(corpus, out, replace(PLAN, steps=30, rate=5e-3))
    losses = [row["loss"] for row in record["log"]]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    assert json.loads((out / "training.json").read_text()) == record
    assert record["chunks_with_a_reference"] == 1
    assert not out.with_name("reader.part").exists()
    model = load_model(str(out), device="cpu")
    memories = write_memories(model, {"one": TEXT}, layers=(0,))
    ids = torch.tensor([model.encode("Anna lives in")])
    record_run(model, ids, Attachment(fetch_memories(memories, model, ("one",))))


class Stopped(Exception):
    """Stands for a kill."""


def stop_after(step: int) -> Any:
    """A tick that ends the training after some steps."""

    def tick(label: str, done: int, total: int) -> None:
        if label.startswith("training") and done == step:
            raise Stopped

    return tick


@pytest.mark.parametrize("bf16", [False, True])
def test_a_stopped_training_goes_on_to_the_same_bytes(corpus: Path, tmp_path: Path, bf16: bool) -> None:
    plan = replace(PLAN, bf16=bf16)
    train(corpus, tmp_path / "whole", plan)
    for step in (3, 5):
        with pytest.raises(Stopped):
            train(corpus, tmp_path / "parts", plan, minutes=-1.0, tick=stop_after(step))
    assert not (tmp_path / "parts").exists()
    train(corpus, tmp_path / "parts", plan)
    for name in ("model.safetensors", "training.json", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_saving_changes_nothing(tmp_path: Path) -> None:
    for shape in FAMILIES:
        network = open_network(str(write_checkpoint(shape)), "cpu")
        assert save_network(network, tmp_path / shape) == network.sha256
        assert (tmp_path / shape / "config.json").read_bytes() == (network.folder / "config.json").read_bytes()


def test_rates_rise_hold_and_fall() -> None:
    rates = [choose_rate(step, 100, 1.0) for step in range(100)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[80] == 1.0
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert 0.1 < rates[-1] < 0.2


def test_ctrl_c_keeps_the_step_under_way() -> None:
    kept: list[int] = []

    def take(step: int) -> float:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    steps = Steps(5, take, lambda step, _: kept.append(step), minutes=60.0)
    with pytest.raises(KeyboardInterrupt):
        steps.run(0, lambda *_: None)
    assert kept == [3] and len(steps.log) == 3
    with pytest.raises(UserError, match="the loss of step 1 is nan"):
        Steps(1, lambda _: float("nan"), lambda *_: None, minutes=60.0).run(0, lambda *_: None)


def test_documents_are_tokenised_in_pieces_that_cut_no_word() -> None:
    words = " ".join(f"word{number}" for number in range(30_000))
    pieces = list(cut_pieces(iter(["  ", words[:70_001], words[70_001:], " \n"])))
    assert "".join(pieces) == words and len(pieces) > 3
    assert all(piece.split()[-1] in words.split(" ") for piece in pieces[:2])


def test_every_epoch_has_every_row_once() -> None:
    rows = [row for step in range(7) for row in order_rows(step, 3, 7, 1)]
    assert [sorted(rows[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert rows[:7] != rows[7:14]


def test_what_cannot_be_trained_is_refused(corpus: Path, tmp_path: Path) -> None:
    def refuse(words: str, documents: Path = corpus, plan: ReaderPlan = PLAN, shape: str = "llama") -> None:
        with pytest.raises(UserError, match=words):
            train(documents, tmp_path / "out", plan, shape)
        assert not list(tmp_path.glob("out*"))

    refuse("gpt2.*no rotary attention", shape="gpt2")
    refuse("gpt_neox.*blocks are not Llama's", shape="pythia")
    refuse("multiple of 64 up to 128", plan=replace(PLAN, length=100))
    refuse("memory layers", plan=replace(PLAN, layers=(7,)))
    refuse("tokens and a sequence takes 64", documents=write_text(tmp_path / "a.txt", "Anna lives."))
    empty = write_text(tmp_path / "b.txt", " ")
    refuse("is empty", documents=empty)
    one = write_text(tmp_path / "c.txt", TEXT)
    refuse("one reference long", documents=write_text(one, " ".join([TEXT] * 3)), plan=replace(PLAN, offset=128))
    refuse("overlaps it by more than 0.5", documents=one, plan=replace(PLAN, offset=40, overlap=0.5))


def write_text(path: Path, text: str) -> Path:
    """A text file."""
    path.write_text(text)
    return path


def test_other_options_and_other_folders_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(corpus, tmp_path / "out", tick=stop_after(2))
    with pytest.raises(UserError, match="begun with another model, corpus or options"):
        train(corpus, tmp_path / "out", replace(PLAN, rate=1e-5))
    train(corpus, tmp_path / "out", replace(PLAN, rate=1e-5), resume=False)
    with pytest.raises(UserError, match="exists already"):
        train(corpus, tmp_path / "out")
    (tmp_path / "else.part").mkdir()
    (tmp_path / "else.part" / "notes").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        train(corpus, tmp_path / "else", resume=False)
    assert (tmp_path / "else.part" / "notes").read_text() == "mine"


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped):
        train(corpus, tmp_path / "out", minutes=-1.0, tick=stop_after(3))

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", refuse)
        with pytest.raises(UserError, match="No space left on device"):
            train(corpus, tmp_path / "out", minutes=-1.0)
    done, _, _ = checkpoints.load_checkpoint(checkpoints.Workplace(tmp_path / "out.part"))
    assert done == 2
    arguments = ["memory", "train", "--model", str(write_checkpoint("llama")), "--corpus", str(corpus), "--json"]
    options = "--steps 4 --warmup-steps 2 --rows 2 --length 64 --rate 1e-3 --slots 4 --offset 64 --seed 3 --device cpu"
    assert main([*arguments, "--out", str(tmp_path / "out"), *options.split()]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == [0]
    assert main([*arguments, "--out", str(tmp_path / "out"), *options.split()]) == 2
    assert "exists already" in capsys.readouterr().err
