"""Scores of heads are what a plain pass with one head changed says, in every architecture; laws of their averages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from circuits.head_scores import (
    Passage,
    correlate_heads,
    estimate_heads,
    measure_induction,
    measure_performance,
    measure_retrieval,
)
from probes.errors import UserError
from probes.forward import Pass
from probes.models import name_hook
from tests.checkpoints import SHAPES, TEXT, load_shape, write_checkpoint
from workbench.cli import main

PASSAGES = [
    Passage((0, 70, 71, 72, 73, 74, 75, 72, 77, 78), (7, 9)),
    Passage((0, 81, 82, 83, 84, 85, 86, 87, 81), (8,)),
]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "gptj"])
def test_a_masked_head_sees_only_its_window(shape: str) -> None:
    """Each head's performance is that of the whole model with this head's attention cut to the window, text by text."""
    model, window = load_shape(shape), 3
    masked, whole = measure_performance(model, PASSAGES, window, 2, lambda *_: None)
    assert masked.shape == (2, model.layers, model.heads) and whole.shape == (2, model.layers, 1)

    def run(passage: Passage, layer: int, head: int | None) -> float:
        def cut(scores: torch.Tensor, hook: object) -> torch.Tensor:
            scores = scores.clone()
            for query in range(scores.shape[2]):
                if head is not None and query > window:
                    scores[:, head, query, 1 : query - window] = float("-inf")
            return scores

        logits = model.run(torch.tensor([passage.ids]), [(name_hook(layer, "attn.hook_attn_scores"), cut)])[0]
        logs = logits.float().log_softmax(-1)
        return float(np.mean([float(logs[end - 1, passage.ids[end]]) for end in passage.targets]))

    for row, passage in enumerate(PASSAGES):
        assert whole[row] == pytest.approx(run(passage, 0, None), abs=1e-4)
        for layer, head in ((0, 0), (1, model.heads - 1), (model.layers - 1, 1)):
            assert masked[row, layer, head] == pytest.approx(run(passage, layer, head), abs=1e-4)
    assert np.abs(masked - whole).max() > 1e-3


def test_a_model_whose_scores_cannot_be_changed_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be masked head by head"):
        measure_performance(load_shape("gptj"), PASSAGES, 3, 2, lambda *_: None)


def test_a_window_that_masks_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"the farthest is 7.* a --window below 7"):
        measure_performance(load_shape("llama"), PASSAGES, 100, 2, lambda *_: None)


def test_retrieval_is_the_strongest_attention() -> None:
    """A head scores where its largest weight lies on the copied token; a text without its answer is refused."""
    model = load_shape("llama")
    passages = [Passage((*PASSAGES[0].ids,), (7,)), PASSAGES[1]]
    found = measure_retrieval(model, passages, 1, lambda *_: None)
    for row, (passage, source, at) in enumerate(zip(passages, (3, 1), (6, 7), strict=True)):
        whole = Pass(model, attention=True)
        whole.run(torch.tensor([passage.ids]))
        for layer in range(model.layers):
            for head in range(model.heads):
                assert found[row, layer, head] == float(
                    int(whole.record.pattern[layer][0, head, at].argmax()) == source
                )
    with pytest.raises(UserError, match="text 1 does not say its answer"):
        measure_retrieval(model, [Passage((0, 5, 6, 7), (3,))], 1, lambda *_: None)


def test_induction_follows_the_first_time() -> None:
    """Attention from each token's second time to what came after its first; batches and runs agree."""
    model = load_shape("llama")
    found = measure_induction(model, 3, 2, 0, lambda *_: None)
    assert found.shape == (3, model.layers, model.heads)
    assert (found == measure_induction(model, 3, 3, 0, lambda *_: None)).mean() > 0.9
    draw = np.random.default_rng(0)
    special = set(model.tokenizer.all_special_ids)
    plain = np.array([token for token in range(model.d_vocab) if token not in special])
    half = draw.choice(plain, 24, replace=False).tolist()
    whole = Pass(model, attention=True)
    whole.run(torch.tensor([[0, *half, *half]]))
    wanted = np.mean([float(whole.record.pattern[1][0, 2, 24 + i, i + 1]) for i in range(1, 25)])
    assert found[0, 1, 2] == pytest.approx(wanted, abs=1e-6)


def test_estimates_and_correlations() -> None:
    """Means and rank correlations are numpy's and scipy's; a score that is constant has none."""
    draw = np.random.default_rng(0)
    base = draw.normal(size=(1, 3, 4))
    first, second = base + 0.3 * draw.normal(size=(20, 3, 4)), base + 0.3 * draw.normal(size=(15, 3, 4))
    rows = estimate_heads(first, 0)
    assert rows[2][1].value == pytest.approx(first.mean(axis=0)[2, 1]) and rows[2][1].low < rows[2][1].high
    found = correlate_heads(first, second, 0)
    assert found is not None and found.low <= found.value <= found.high and found.n == 12
    assert found.value == pytest.approx(spearmanr(first.mean(0).ravel(), second.mean(0).ravel()).statistic)
    assert correlate_heads(first, np.zeros((5, 3, 4)), 0) is None


def test_the_command_on_ones_own_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text(TEXT * 3)
    options = ["heads", "--model", str(write_checkpoint("llama")), "--texts", str(tmp_path / "a.txt"), "--limit", "2"]
    assert main([*options, "--window", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = {"finder", "metric", "layer", "head", "value", "unit", "n", "low", "high"}
    assert all(set(row) - {"candidate"} == names for row in found["rows"])
    assert [row["finder"] for row in found["rows"]].count("memory") == 2 * 3 * 4
    pairs = [["memory", "induction"], ["memory", "previous"], ["induction", "previous"]]
    assert [row["finders"] for row in found["comparisons"]] == pairs
    assert main([*options, "--window", "500"]) == 2
    assert main([*options, "--finder", "retrieval"]) == 2
    assert "leave --texts out" in capsys.readouterr().err
