"""Training a bank: only fetched blocks move, packing changes nothing, subtrees merge, faults are said."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from circuits.problem import record_run
from probes.attachments import Attachment
from probes.bank import GENERIC, fetch_blocks, find_bank_faults, load_bank
from probes.blocks import Design
from probes.errors import UserError
from probes.models import load_model
from tests.checkpoints import TEXT, load_shape, write_checkpoint
from tests.workbench.test_training_reader import Stopped, embed_words, stop_after
from workbench.banks import writing
from workbench.banks.writing import write_bank
from workbench.cli import main
from workbench.training import routing
from workbench.training.attached_blocks import BlockHooks, measure_network
from workbench.training.bank import train_bank
from workbench.training.bank_material import BankMaterial, build_bank_material, choose_subtree
from workbench.training.bank_plan import BankPlan
from workbench.training.bank_trainer import BankTrainer, Learner, make_trainer, measure_modes
from workbench.training.block_tables import BlockTables, name_shards
from workbench.training.merging import merge_banks
from workbench.training.networks import open_network
from workbench.training.processes import Processes

NAMES = ("Anna", "Berta", "Carl", "Doris", "Emil", "Frida", "Georg", "Hanna", "Ida", "Jan", "Karl", "Lena")
PLAN = BankPlan(
    units=(3, 2), branching=2, steps=6, rows=4, length=64, rate=1e-2, seed=1, whiten=False, precision="float32"
)
KINDS: dict[str, dict[str, Any]] = {
    "ffn": {},
    "lora": {"kind": "lora", "targets": ("query", "value", "output", "gate", "down")},
    "key-value": {"kind": "key-value"},
}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A document about each person, some of several sentences."""
    monkeypatch.setattr(routing, "encode_texts", embed_words)
    path = tmp_path / "corpus.jsonl"
    texts = [f"{name} lives in Oslo. {name} eats plums." * (1 + place % 3) for place, name in enumerate(NAMES)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def train(corpus: Path, out: Path, plan: BankPlan = PLAN, shape: str = "llama", **choices: Any) -> dict[str, Any]:
    """Train a bank for a random model."""
    given = {"device": "cpu", "minutes": 60.0, "resume": True, "tick": lambda *_: None} | choices
    return train_bank(str(write_checkpoint(shape)), [str(corpus)], out, plan, **given)


def make_material(corpus: Path, plan: BankPlan = PLAN) -> BankMaterial:
    """Material of the corpus."""
    tokenizer = load_shape("llama").tokenizer
    return build_bank_material(
        [(corpus, corpus.name)], 1000, tokenizer, plan.length, plan.branching, len(plan.units), 0, plan.whiten, None,
        lambda *_: None,
    )  # fmt: skip


def start(corpus: Path, plan: BankPlan = PLAN) -> BankTrainer:
    """A trainer that has done nothing yet."""
    network = open_network(str(write_checkpoint("llama")), "cpu")
    return make_trainer(network, plan, plan.build_design(network), make_material(corpus, plan), Processes())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["llama", "qwen3", "gemma3"])
def test_blocks_do_in_training_what_they_do_in_a_trace(kind: str, shape: str, tmp_path: Path) -> None:
    network, model = open_network(str(write_checkpoint(shape)), "cpu"), load_shape(shape)
    network.model.eval()
    choices = {"kind": kind, "targets": ()} | KINDS[kind]
    design = Design(choices["kind"], measure_network(network), (0, 2), (3, 2), branching=2, targets=choices["targets"])
    tables = BlockTables(design, seed=0)
    ids = torch.tensor([model.encode(TEXT)])
    paths, hooks = torch.tensor([[1, 2]]), BlockHooks(network.model, design)
    plain = network.model(input_ids=ids, use_cache=False).logits

    def run() -> torch.Tensor:
        with hooks.install(), hooks.attach(tables.fetch(paths, torch.device("cpu")).attach(paths)):
            return network.model(input_ids=ids, use_cache=False).logits

    assert torch.equal(run(), plain), "new blocks add nothing"
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for table in tables.tables:
            table += 0.3 * torch.randn(table.shape, generator=generator)
    shards = tables.cut_shards(torch.float32, name_shards(design, None))
    write_bank(tmp_path / "bank", design, model.sha256, shards)
    bank = load_bank(tmp_path / "bank", model)
    attached = Attachment(bank=fetch_blocks(bank, model, (1, 2)))
    assert (run() - plain).abs().max() > 0.05
    torch.testing.assert_close(run(), record_run(model, ids, attached)[1], atol=3e-4, rtol=1e-4)
    assert torch.equal(network.model(input_ids=ids, use_cache=False).logits, plain), "hooks are gone"


@pytest.mark.parametrize("kind", KINDS)
def test_only_fetched_blocks_have_gradients_and_move(corpus: Path, kind: str) -> None:
    trainer = start(corpus, replace(PLAN, rows=1, **KINDS[kind]))
    tables, anchor = trainer.tables, {name: w.clone() for name, w in trainer.network.model.named_parameters()}
    seen: list[tuple[torch.Tensor, ...]] = []
    move = tables.move

    def watch(fetched: Any, *others: Any) -> None:
        assert all(bool((copies.grad != 0).any(1).all()) for copies in fetched.copies)
        assert [len(rows) for rows in fetched.rows] == [len(copies) for copies in fetched.copies]
        seen.append(fetched.rows)
        move(fetched, *others)

    tables.move = watch  # type: ignore[method-assign]
    with trainer.learner.hooks.install():
        for step in range(6):
            before = [table.detach().clone() for table in tables.tables]
            moments = [s["exp_avg"].clone() for s in trainer.optimizer.state.values()] if step else []
            trainer.take(step)
            for level, table in enumerate(tables.tables):
                moved = torch.nonzero((table != before[level]).any(1))[:, 0]
                assert moved.tolist() == seen[step][level].tolist()
            for level, old in enumerate(moments):
                new = list(trainer.optimizer.state.values())[level]["exp_avg"]
                assert torch.nonzero((new != old).any(1))[:, 0].tolist() == seen[step][level].tolist()
    assert len(seen) == 6
    assert len({str([rows.tolist() for rows in step]) for step in seen}) > 1, "not every step fetches the same"
    for name, weight in trainer.network.model.named_parameters():
        assert weight.grad is None and torch.equal(weight, anchor[name])


def test_packing_changes_nothing_and_keeps_clusters_apart(corpus: Path) -> None:
    trainer = start(corpus)
    tables, packed = trainer.tables, trainer.packed
    with torch.no_grad():
        for table in tables.tables:
            table += 0.3 * torch.randn(table.shape, generator=torch.Generator().manual_seed(1))
    assert int((packed.segments.max(1).values > 0).sum()) > 0, "some rows hold several documents"
    tokens, total = 0, torch.zeros(())
    with trainer.learner.hooks.install(), torch.no_grad():
        paths = packed.paths.long()
        fetched = tables.fetch(paths, torch.device("cpu"))
        together = trainer.learner(packed.select(range(len(paths))), fetched.attach(paths))
        for row in range(len(packed.ids)):
            for segment in range(int(packed.segments[row].max()) + 1):
                ids = packed.ids[row][packed.segments[row] == segment][None].long()
                path = paths[row][None]
                with trainer.learner.hooks.attach(tables.fetch(path, torch.device("cpu")).attach(path)):
                    logits = trainer.network.model(input_ids=ids, use_cache=False).logits[0, :-1]
                total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
                tokens += ids.shape[1] - 1
    assert tokens == packed.select(range(len(paths))).count_targets()
    torch.testing.assert_close(together, total, rtol=1e-5, atol=1e-3)
    # Every document is there once, and those of a row are of one deepest cluster.
    words = [load_shape("llama").tokenizer.decode(ids, skip_special_tokens=True) for ids in packed.ids.tolist()]
    for name in NAMES:
        assert sum(name in text for text in words) == 1
    for text, path in zip(words, paths.tolist(), strict=True):
        names = [name for name in NAMES if name in text]
        found = make_material(corpus).routing.router.route(embed_words([first_document(corpus, n) for n in names]))
        assert found.tolist() == [path] * len(names)


def first_document(corpus: Path, name: str) -> str:
    """Text of the document about a person."""
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    return next(text for text in texts if name in text)


def test_generic_blocks_take_one_row_in_k_plus_one(corpus: Path) -> None:
    trainer = start(corpus)
    modes = torch.cat([trainer.choose_modes(step) for step in range(500)]).float()
    assert abs(float(modes.mean()) - 1 / 3) < 0.03
    assert not start(corpus, replace(PLAN, subtree=1)).choose_modes(0).any()
    assert start(corpus, replace(PLAN, subtree="generic")).choose_modes(0).all()


def test_a_bank_learns_its_documents_and_opens(corpus: Path, tmp_path: Path) -> None:
    record = train(corpus, tmp_path / "bank", replace(PLAN, steps=60, rate=3e-2, units=(8, 8)))
    assert record["loss"]["fetched"] < record["loss"]["none"] - 0.5
    assert json.loads((tmp_path / "bank" / "training.json").read_text()) == json.loads(json.dumps(record))
    assert not (tmp_path / "bank.part").exists()
    model = load_shape("llama")
    bank = load_bank(tmp_path / "bank", model)
    assert list(find_bank_faults(bank)) == [] and bank.router["encoder"] == "all-MiniLM-L6-v2"
    fetch_blocks(bank, model, (GENERIC, GENERIC))
    assert record["numbers_fetched"] == sum(3 * units * 3 * 32 for units in (8, 8))


@pytest.mark.parametrize("anchor", ["frozen", "co-trained", "scratch"])
def test_a_stopped_training_goes_on_to_the_same_bytes(corpus: Path, tmp_path: Path, anchor: str) -> None:
    plan = replace(PLAN, anchor=anchor)

    def choose(name: str) -> dict[str, Any]:
        return {} if anchor == "frozen" else {"out_model": tmp_path / f"{name}-model"}

    train(corpus, tmp_path / "whole", plan, **choose("whole"))
    with pytest.raises(Stopped):
        train(corpus, tmp_path / "parts", plan, minutes=-1.0, tick=stop_after(4), **choose("parts"))
    assert not (tmp_path / "parts").exists()
    train(corpus, tmp_path / "parts", plan, **choose("parts"))
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes(), path.name
    if anchor != "frozen":
        weights = tmp_path / "whole-model" / "model.safetensors"
        assert weights.read_bytes() == (tmp_path / "parts-model" / "model.safetensors").read_bytes()
        assert weights.read_bytes() != (write_checkpoint("llama") / "model.safetensors").read_bytes()
        load_bank(tmp_path / "whole", load_model(str(tmp_path / "whole-model"), device="cpu"))


def test_subtrees_trained_apart_are_merged_as_they_are(corpus: Path, tmp_path: Path) -> None:
    parts = {"0": 0, "1": 1, "generic": "generic"}
    for name, subtree in parts.items():
        train(corpus, tmp_path / name, replace(PLAN, subtree=subtree))
    merged = tmp_path / "merged"
    head, lacking = merge_banks([tmp_path / name for name in parts], merged, lambda *_: None)
    assert lacking == [] and sorted(head.shards) == ["generic", "subtree-0000", "subtree-0001"]
    for name, shard in (("0", "subtree-0000"), ("1", "subtree-0001"), ("generic", "generic")):
        assert sorted(load_bank(tmp_path / name).head.shards) == [shard]
        own, joined = (load_file(folder / f"{shard}.safetensors") for folder in (tmp_path / name, merged))
        assert all(torch.equal(own[part], joined[part]) for part in own)
        assert bool(own["level1.down"].any())
    assert list(find_bank_faults(load_bank(merged, load_shape("llama")))) == []
    with pytest.raises(UserError, match="both have subtree-0000"):
        merge_banks([merged, tmp_path / "0"], tmp_path / "again", lambda *_: None)
    train(corpus, tmp_path / "other", replace(PLAN, subtree=0, units=(4, 2)))
    with pytest.raises(UserError, match="blocks of another design"):
        merge_banks([tmp_path / "1", tmp_path / "other"], tmp_path / "again", lambda *_: None)
    train(corpus, tmp_path / "whitened", replace(PLAN, subtree=0, whiten=True))
    with pytest.raises(UserError, match="another router"):
        merge_banks([tmp_path / "1", tmp_path / "whitened"], tmp_path / "again", lambda *_: None)
    assert not (tmp_path / "again").exists()
    assert main(["bank", "merge", str(tmp_path / "0"), "--out", str(tmp_path / "single")]) == 0


def test_clusters_of_a_bank_are_used_again(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "first")
    train(corpus, tmp_path / "second", replace(PLAN, seed=9, subtree=1), router=tmp_path / "first")
    routers = [(tmp_path / name / "router.safetensors").read_bytes() for name in ("first", "second")]
    assert routers[0] == routers[1]
    with pytest.raises(UserError, match="2 levels of 2 children, not 1 of 2"):
        train(corpus, tmp_path / "third", replace(PLAN, units=(4,)), router=tmp_path / "first")


def test_what_cannot_be_trained_is_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(words: str, plan: BankPlan = PLAN, documents: Path = corpus, shape: str = "llama", **more: Any) -> None:
        with pytest.raises(UserError, match=words):
            train(documents, tmp_path / "out", plan, shape, **more)
        assert not list(tmp_path.glob("out*"))

    one, empty = tmp_path / "one.txt", tmp_path / "empty.txt"
    one.write_text(TEXT * 9)
    empty.write_text("\n")
    refuse("1 document and a bank of clusters needs 2", documents=one)
    refuse("is empty", documents=empty)
    refuse("no rotary attention", shape="gpt2")
    refuse("levels", replace(PLAN, units=(0,)))
    refuse("branching is 1", replace(PLAN, branching=1))
    refuse("beside a frozen model", replace(PLAN, subtree=0, anchor="scratch"), out_model=tmp_path / "m")
    refuse("give it with --anchor", replace(PLAN, anchor="scratch"))
    refuse("subtree 5 is not in 0..1", replace(PLAN, subtree=5))
    refuse("give 8 to 128 tokens", replace(PLAN, length=500))
    with monkeypatch.context() as patch:
        patch.setattr(writing, "save_file", raise_full)
        with pytest.raises(UserError, match="No space left on device"):
            train(corpus, tmp_path / "full")
    assert not (tmp_path / "full").exists()
    train(corpus, tmp_path / "full")
    with pytest.raises(UserError, match="exists already"):
        train(corpus, tmp_path / "full")


def raise_full(*_: Any) -> None:
    """What a full disk answers."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_commands_say_what_they_made(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bank", "train", "--model", str(write_checkpoint("llama")), "--corpus", str(corpus), "--device", "cpu"]
    options = [
        "--units",
        "2,2",
        "--branching",
        "2",
        "--steps",
        "2",
        "--rows",
        "2",
        "--length",
        "64",
        "--kind",
        "lora-qk",
    ]
    assert main([*arguments, *options, "--out", str(tmp_path / "bank"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["targets"] == ["query", "key"] and set(record["loss"]) == {"none", "generic", "fetched", "wrong"}
    for wrong in ("--units=a", "--subtree=x"):
        assert main([*arguments, *options, "--out", str(tmp_path / "other"), wrong]) == 2
        assert capsys.readouterr().err.startswith("memory-circuits: --")


def test_an_empty_subtree_is_refused(corpus: Path) -> None:
    packed = make_material(corpus).packed
    gone = replace(packed, paths=torch.zeros_like(packed.paths))
    with pytest.raises(UserError, match="no document lies in subtree 1: those with documents are 0"):
        choose_subtree(gone, 1)


PROCESS = """
import sys
from pathlib import Path
from tests.workbench.test_training_bank import PLAN, embed_words, replace, train
from workbench.training import routing
routing.encode_texts = embed_words
corpus, out, anchor, rows = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
more = {} if anchor == "frozen" else {"out_model": out.with_name(out.name + "-model")}
train(corpus, out, replace(PLAN, anchor=anchor, rows=rows, steps=4), **more)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("anchor", ["frozen", "co-trained"])
def test_two_processes_train_as_one_with_all_rows(corpus: Path, tmp_path: Path, anchor: str) -> None:
    more = {} if anchor == "frozen" else {"out_model": tmp_path / "one-model"}
    one = train(corpus, tmp_path / "one", replace(PLAN, anchor=anchor, rows=4, steps=4), **more)
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    arguments = [f"--master-port={port}", str(script), str(corpus), str(tmp_path / "two"), anchor, "4"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=800,
        cwd=root,
        env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads((tmp_path / "two" / "training.json").read_text())
    losses = [[row["loss"] for row in record["log"]] for record in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for path in (tmp_path / "one").glob("*.safetensors"):
        ours, theirs = load_file(path), load_file(tmp_path / "two" / path.name)
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)


def test_reading_modes_are_measured(corpus: Path) -> None:
    trainer = start(corpus)
    learner = trainer.learner
    assert isinstance(learner, Learner)
    with learner.hooks.install():
        losses = measure_modes(trainer)
    assert len(set(losses.values())) == 1, "new blocks add nothing in any mode"
