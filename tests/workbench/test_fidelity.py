"""Fidelity of compression: steps that change nothing measure nothing, and every number is what a plain pass says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuits.intervals import estimate_mean
from probes.attachments import Attachment
from probes.errors import UserError
from probes.explicit import fetch_memories
from probes.forward import Pass
from probes.memory_bank import open_bank
from probes.writing import Recipe
from tests.checkpoints import load_shape, write_checkpoint
from workbench.cli import main
from workbench.memory.documents import list_files
from workbench.memory.fidelity import Query, measure_fidelity, read_queries
from workbench.memory.writing import write_documents

TEXTS = {"france": "The capital of France is Paris.", "anna": "Anna lives in Oslo and eats plums every day in Rome."}
PROMPTS = {"france": ("The capital of France is", " Paris"), "anna": ("Anna lives in", " Oslo")}


def write_bank(folder: Path, slots: int, precision: str) -> Path:
    """A bank of the texts above."""
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"id": k, "text": v}) for k, v in TEXTS.items()))
    files, recipe = list_files([folder / "rows.jsonl"]), Recipe((0, 1), slots=slots)
    write_documents(load_shape("llama"), files, folder / "bank", recipe, precision, 4, lambda *_: None)
    return folder / "bank"


def list_queries() -> list[Query]:
    """A query a text."""
    return [Query(*PROMPTS[name], name, TEXTS[name]) for name in TEXTS]


def measure(folder: Path, batch: int = 8) -> dict[tuple[str, str], float]:
    """Values by step and metric."""
    model = load_shape("llama")
    rows = measure_fidelity(
        model, open_bank(folder, model), "{document} {prompt}", list_queries(), batch, 0, lambda *_: None
    )
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    return {(row["step"], row["metric"]): row["value"] for row in rows}


def test_steps_that_change_nothing_measure_nothing(tmp_path: Path) -> None:
    """With a slot for every token, dense and sparse are the same; in float32 nothing is rounded, so no step is."""
    found = measure(write_bank(tmp_path, 40, "float32"))
    assert found["sparse, 40 tokens", "KL from the step before"] == pytest.approx(0, abs=1e-6)
    assert found["sparse, 40 tokens", "same best token as the step before"] == 1
    assert found["dense key-values", "KL from text"] > 1e-3
    assert {step for step, _ in found} == {
        "no memory", "text in the prompt", "dense key-values", "sparse, 40 tokens"
    }  # fmt: skip


def test_numbers_are_those_of_plain_passes(tmp_path: Path) -> None:
    """The bank's own step: margin and divergence from text, one prompt at a time; batches change nothing."""
    folder, model = write_bank(tmp_path, 3, "bfloat16"), load_shape("llama")
    bank, margins, divergences = open_bank(folder, model), [], []
    for query in list_queries():
        own, text = (
            Pass(model, attachment).run(torch.tensor([model.encode(prompt)]))[0, -1].float()
            for attachment, prompt in (
                (Attachment(fetch_memories(bank, model, (query.memory,))), query.prompt),
                (Attachment(), f"{query.text} {query.prompt}"),
            )
        )
        answer = model.encode_plain(query.answer)[0]
        foil = next(int(token) for token in text.argsort(descending=True) if token != answer)
        margins.append(float(own[answer] - own[foil]))
        logs = text.log_softmax(-1), own.log_softmax(-1)
        divergences.append(float((logs[0].exp() * (logs[0] - logs[1])).sum()))
    for batch in (1, 8):
        found = measure(folder, batch)
        assert found["bfloat16", "logit difference of answer and foil"] == pytest.approx(np.mean(margins), abs=1e-4)
        assert found["bfloat16", "KL from text"] == pytest.approx(np.mean(divergences), abs=1e-4)
        assert found["bfloat16", "keys and values of a memory"] == 2 * 2 * 2 * 3 * 8 * 2


def test_the_command_with_ones_own_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A compressed bank has a step of its own; rows have what they promise."""
    pytest.importorskip("faiss")
    folder = write_bank(tmp_path, 4, "bfloat16")
    table = tmp_path / "queries.jsonl"
    table.write_text(
        "\n".join(json.dumps(dict(zip(("prompt", "answer", "memory"), (*PROMPTS[k], k), strict=True))) for k in TEXTS)
    )
    small = str(tmp_path / "small")
    assert main(["memory", "compress", str(folder), "--out", small, "--code", "PQ2x2"]) == 0
    capsys.readouterr()
    command = ["memory", "fidelity", small, "--model", str(write_checkpoint("llama")), "--queries", str(table)]
    assert main([*command, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    assert all(set(row) == {"step", "metric", "value", "unit", "n", "low", "high"} for row in rows)
    last = {row["metric"]: row for row in rows if row["step"] == "PQ2x2"}
    assert last["KL from the step before"]["value"] > 0 and last["KL from the step before"]["n"] == 2
    assert last["keys and values of a memory"]["value"] == 2 * 2 * 2 * 4
    assert main(["memory", "fidelity", str(folder), "--model", str(write_checkpoint("llama"))]) == 2
    assert "none of these facts has its document in this bank" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "The", "answer": "x"}, "row 1 has no memory"),
        ({"prompt": "The", "answer": "x", "memory": "z"}, "no explicit memory 'z'"),
    ],
)
def test_a_bad_table_is_one_line(row: dict[str, str], wanted: str, tmp_path: Path) -> None:
    folder = write_bank(tmp_path, 2, "float32")
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=wanted):
        read_queries(tmp_path / "t.jsonl", open_bank(folder), 5)


def test_the_interval_of_a_mean() -> None:
    """It holds the mean, shrinks with n, is that of the seed, and is a point for equal values."""
    draw = np.random.default_rng(0)
    few, many = (estimate_mean(draw.normal(size=n), 0) for n in (20, 2000))
    assert few.low < few.value < few.high and many.high - many.low < (few.high - few.low) / 3
    assert many.high - many.low == pytest.approx(2 * 1.96 / 2000**0.5, rel=0.15)
    assert estimate_mean([2.0, 2.0], 1).low == 2.0
