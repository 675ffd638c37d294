"""Writing in batches equals writing one at a time; a bank on disk gives back what was written, or says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from probes.errors import UserError
from probes.memory_bank import find_faults, open_bank
from probes.writing import Recipe, write_batch, write_memories
from tests.checkpoints import ROTARY, load_shape
from tests.small_world import write_world

TEXTS = {
    "long": "The capital of France is Paris. The capital of Italy is Rome. Anna lives in Oslo and eats plums.",
    "middle": "Anna lives in Oslo.",
    "short": "Rome",
}


@pytest.mark.parametrize("shape", ROTARY)
@pytest.mark.parametrize("scoring", ["softmax", "exp-sum"])
def test_a_batch_is_one_at_a_time(shape: str, scoring: str) -> None:
    """Filling up on the right changes neither which tokens are kept nor, beyond rounding, their keys and values."""
    model = load_shape(shape)
    together = write_memories(model, TEXTS, layers=(0, 2), slots=6, scoring=scoring)  # type: ignore[arg-type]
    alone = write_memories(model, TEXTS, layers=(0, 2), slots=6, scoring=scoring, batch=1)  # type: ignore[arg-type]
    assert torch.equal(together.positions, alone.positions)
    assert float((together.keys - alone.keys).abs().max()) < 1e-5
    assert float((together.values - alone.values).abs().max()) < 1e-5
    assert (together.positions[2] == -1).any()
    first = len(model.tokenizer("Reference:")["input_ids"])
    assert ((together.positions == -1) | (together.positions >= first)).all()


def test_layers_come_in_the_order_of_the_recipe() -> None:
    """Kept tokens of all memory layers come out in the order of the recipe."""
    model = load_shape("llama")
    ids = [model.encode("Reference: Anna lives in Oslo")]
    keys, _, _ = write_batch(model, Recipe((2, 0), slots=2), ids, 3)
    swapped, _, _ = write_batch(model, Recipe((0, 2), slots=2), ids, 3)
    assert torch.equal(keys[:, 0], swapped[:, 1]) and torch.equal(keys[:, 1], swapped[:, 0])


def test_the_first_version_is_read_by_the_same_reader(tmp_path: Path) -> None:
    """A single-file bank gives the memories that were put into it, has no faults, and another model may not read it."""
    folder = write_world(tmp_path / "world")
    bank = open_bank(folder / "memory", load_shape("llama"))
    texts = {f"document/{name}": f"The capital of {name} is {city}." for name, city in (("France", "Paris"),)}
    wanted = write_memories(load_shape("llama"), texts, layers=(0, 1), slots=4, offset=32)
    got = bank.select(("document/France",))
    assert torch.equal(got.positions, wanted.positions)
    assert float((got.keys - wanted.keys).abs().max()) < 1e-5
    assert "document/France" in bank and "document/Spain" not in bank and len(bank) == 3
    assert list(find_faults(folder / "memory")) == []
    with pytest.raises(UserError, match="made for another model"):
        open_bank(folder / "memory", load_shape("qwen3"))


def test_a_version_to_come_is_refused(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text(json.dumps({"format": "memory-circuits/explicit-memory", "version": 9}))
    with pytest.raises(UserError, match="version 9 and this release reads 1 and 2"):
        open_bank(tmp_path)


def test_learned_positions_are_refused() -> None:
    with pytest.raises(UserError, match="no plain rotary attention"):
        write_memories(load_shape("gpt2"), TEXTS)
