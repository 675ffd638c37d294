"""Experiments of the demo: memory kinds of one size, the better rate counts, tables of arms; all of it once, small."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.small_demo import SMALL_DEMO
from workbench.demo import evaluate, run_experiments, train
from workbench.demo.card import render_tables, write_tables
from workbench.demo.config import load_config
from workbench.demo.evaluation import collect_rows
from workbench.demo.kinds import KINDS, Blocks
from workbench.demo.network import build_network
from workbench.documents import BEGIN, END, read_tables

CONFIG = load_config()
WIDTH, FFN, HEADS, KV_HEADS, HEAD = (
    getattr(CONFIG.model, name) for name in ("d_model", "d_ffn", "heads", "kv_heads", "d_head")
)
NUMBERS = sum(CONFIG.bank.units) * 3 * WIDTH * CONFIG.model.layers  # the shipped bank's fetched units


@pytest.fixture
def anchor() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return build_network(CONFIG, 512, (0, 1, 2)).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_size_asked_for_and_begins_without_effect(anchor: LlamaForCausalLM, kind: str) -> None:
    ids = torch.randint(0, 512, (3, 7))
    plain = anchor(ids).logits
    blocks = Blocks(anchor, kind, 4, range(6), NUMBERS)
    # The next rank would not fit.
    assert blocks.numbers <= NUMBERS < blocks.numbers * (blocks.rank + 1) / blocks.rank
    with blocks.fetch(torch.tensor([0, 1, 2])):
        assert torch.equal(anchor(ids).logits, plain)
    with torch.no_grad():
        for weights in blocks.parameters():
            weights[1].normal_(std=0.2)
    with blocks.fetch(torch.tensor([0, 1, 2])):
        changed = (anchor(ids).logits - plain).abs().amax(dim=(1, 2))
    assert changed[1] > 1e-3 and changed[0] == changed[2] == 0
    assert torch.equal(anchor(ids).logits, plain)


def test_ranks_are_those_of_the_papers_sizes(anchor: LlamaForCausalLM) -> None:
    """Sizes of Pouransari et al. 2025: 3 r l d, 2 r l (d + h d_h) without shared keys, 3 r l (d + d_f), 2 r l h d_h."""
    ranks = {kind: Blocks(anchor, kind, 1, range(6), NUMBERS).rank for kind in KINDS}
    assert ranks["FFN"] == NUMBERS // (3 * 6 * WIDTH)
    assert ranks["LoRA (FFN)"] == NUMBERS // (3 * 6 * (WIDTH + FFN))
    assert ranks["key-value"] == NUMBERS // (2 * 6 * HEADS * HEAD)
    # Keys and values are of fewer heads than queries.
    wide, narrow = WIDTH + HEADS * HEAD, WIDTH + KV_HEADS * HEAD
    assert ranks["LoRA (query, key)"] == ranks["LoRA (value, output)"] == NUMBERS // (6 * (wide + narrow))


def make_row(experiment: str, condition: str, accuracy: float, paraphrase: str = "seen") -> dict[str, object]:
    return {
        "experiment": experiment, "condition": condition, "bucket": 1, "paraphrase": paraphrase,
        "accuracy": accuracy, "n": 10, "low": accuracy, "high": accuracy,
    }  # fmt: skip


def test_of_two_rates_the_lower_training_loss_counts() -> None:
    arms = [
        {"experiment": "depth", "condition": "late", "loss": loss, "rows": [make_row("depth", "late", accuracy)]}
        for loss, accuracy in ((1.2, 0.9), (1.1, 0.4), (1.3, 0.7))
    ]
    assert [row["accuracy"] for row in collect_rows(arms)] == [0.4]


def test_seeds_are_joined_in_the_card(tmp_path: Path) -> None:
    rows = [make_row("two stages", f"from the start, seed {seed}", seed / 10, "one memory") for seed in (0, 1, 2)]
    assert "| from the start | 10.0 (0, 10, 20) |" in render_tables(rows)
    card = tmp_path / "card.md"
    card.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_tables(card, rows)
    assert read_tables(card) == render_tables(rows) and "old" not in card.read_text()
    assert card.read_text().startswith("before\n") and card.read_text().endswith("after\n")


TINY = f"""{SMALL_DEMO}[training]
anchor_epochs = 0.5
bank_epochs = 0.5
last_epochs = 0.5
block_epochs = 0.5
rows = 4
reading_rows = 2
abstract_rows = 2
[experiments]
limit = 5
block_epochs = 0.5
block_rates = [0.01]
memory_layers = [[0, 1]]
sweep_steps = 3
stage_steps = 8
stage_rows = 4
seeds = [0]
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_small_world_from_training_to_the_card(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    folder, work = tmp_path / "demo", tmp_path / "work"
    train(tmp_path / "tiny.toml", folder)
    rows = run_experiments(folder, work)
    assert {row["experiment"] for row in rows} == {"memory kinds", "depth", "memory layers", "two stages"}
    stamps = {path: path.stat().st_mtime_ns for path in (work / "arms").glob("*.json")}
    assert run_experiments(folder, work) == rows
    assert stamps == {path: path.stat().st_mtime_ns for path in (work / "arms").glob("*.json")}, "arms are kept"
    measured = evaluate(folder, limit=5)
    assert [row for row in measured if row in rows] == rows
    assert "anchor trained alone" in {row["condition"] for row in measured}
    assert json.loads((folder / "experiments" / "arms.json").read_text())["arms"]
    train(tmp_path / "tiny.toml", tmp_path / "again", start=folder)
    first, second = (json.loads((one / "shipped.json").read_text()) for one in (folder, tmp_path / "again"))
    digest = hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert (first["from"], second["from"]) == (None, digest)
