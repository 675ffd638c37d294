"""Costs: published figures come out, formulas agree with counted operations and real modules, caches behave."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from probes.errors import UserError
from tests.checkpoints import SHAPES, write_checkpoint
from workbench.commands.papers import PAPERS
from workbench.commands.papers_document import list_parts, read_part, render_part
from workbench.costs import memory3
from workbench.costs.blocks import KINDS, Bank
from workbench.costs.formats import Usage, compare_formats, run_forward
from workbench.costs.hierarchical import ANCHORS, LEFT_OUT
from workbench.costs.published import Claim
from workbench.costs.shapes import Shape, parse_shape, read_shape
from workbench.costs.tiers import Tier, draw_paths, simulate_cache, time_fetch

DOCUMENT = Path(__file__).parents[2] / "docs" / "papers.md"


@pytest.mark.parametrize("paper", PAPERS)
def test_published_figures_come_out(paper: str) -> None:
    claims = PAPERS[paper]()
    # The one that does not is a slip of the paper, and says so.
    assert [claim.note for claim in claims if not claim.ok] == ([LEFT_OUT] if paper == "hierarchical" else [])


@pytest.mark.parametrize("part", list_parts())
def test_the_page_carries_every_table(part: str) -> None:
    assert read_part(DOCUMENT, part) == render_part(part), "`make docs` writes the tables"


def test_a_claim_agrees_to_the_digits_that_were_printed() -> None:
    def agree(published: str, ours: float) -> bool:
        return Claim("x", published, ours, "", "exact", "").ok

    assert agree("2.24", 2.2385) and not agree("2.24", 2.2449999 + 0.0011)
    assert agree("13400", 13388.4) and not agree("13400", 13300.0)
    assert agree("1.44e-4", 1.441792e-4) and not agree("1.44e-4", 1.46e-4)
    assert agree("225280", 225280) and not agree("225281", 225280)


def test_places_are_those_of_figure_4() -> None:
    assert all(wanted == found for _, wanted, found in memory3.list_placements())


def test_formulas_hold_for_ungated_models_too() -> None:
    gpt2 = Shape(12, 12, 12, 64, 768, 3072, 50257, gated=False, tied=True)
    formats = compare_formats(gpt2, Usage(6, 6, training=1024))
    assert formats.write["parameters"] == pytest.approx(0.10212, rel=1e-4)
    assert formats.write["explicit"] == pytest.approx(0.00996567, rel=1e-5)
    assert formats.interval == pytest.approx((0.471639, 9765.06), rel=1e-5)


def test_the_forward_formula_counts_what_a_model_really_does() -> None:
    """torch counts the products of a run; beyond the formula it has the upper half of the scores, and the logits."""
    config = AutoConfig.for_model(
        "llama", hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, vocab_size=100,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    counter = FlopCounterMode(display=False)
    tokens = 20
    with counter, torch.no_grad():
        model.model(torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    shape = parse_shape(config.to_dict())
    formula = run_forward(shape, tokens)
    whole = formula.total + formula.terms["attention scores"]
    # The rotary frequencies are a product of their own.
    assert counter.get_total_flops() == pytest.approx(whole * 1e12, rel=2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_read_from_any_checkpoint(shape: str) -> None:
    folder = write_checkpoint(shape)
    found = read_shape(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    layer = next(part for name, part in model.named_modules() if name.endswith(("layers.0", "h.0")))
    # Experts are stacked in one tensor of three axes.
    matrices = [weight for name, weight in layer.named_parameters() if weight.dim() >= 2]
    assert found.layer_weights == sum(weight.numel() for weight in matrices)
    assert (found.ffn_weights < found.layer_weights - found.attention_weights) == (found.active < found.experts)
    assert found.vocabulary == model.get_input_embeddings().weight.shape[0]


def test_a_shape_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        read_shape(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="no JSON object"):
        read_shape(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 4, "num_hidden_layers": 1}')
    with pytest.raises(UserError, match="num_attention_heads"):
        read_shape(tmp_path)


def test_block_sizes_are_the_papers_and_add_up() -> None:
    shape = Shape(24, 16, 16, 64, 1024, 2816, 1)
    paper = {
        "FFN": 3 * 1024, "LoRA (query, key)": 2 * (1024 + 1024), "LoRA (value, output)": 2 * (1024 + 1024),
        "LoRA (FFN)": 3 * (1024 + 2816), "key-value": 2 * 1024,
    }  # fmt: skip
    assert {kind: size(shape) for kind, size in KINDS.items()} == paper
    bank = Bank(ANCHORS["410M"], (512, 128, 32, 0))
    assert bank.unit == 73_728 and bank.clusters == (16, 256, 4096, 65536) and bank.comparisons == 64
    assert bank.find_parent(40_000, 2, 4) == 40_000 // 256


def test_equal_tiers_queue_and_different_ones_work_side_by_side() -> None:
    slow, fast = Tier("disk", 10.0, latency=1.0), Tier("memory", 100.0)
    assert time_fetch([20.0, 30.0], [slow, slow]) == pytest.approx(2 * 1.0 + 50 / 10)
    assert time_fetch([20.0, 300.0], [slow, fast]) == pytest.approx(max(3.0, 3.0))
    with pytest.raises(UserError, match="bandwidth"):
        Tier("broken", 0.0)


def test_a_cache_of_everything_misses_each_block_once_and_more_skew_hits_more() -> None:
    sizes, disk, memory = [4.0, 2.0], [Tier("disk", 1.0)] * 2, Tier("memory", 1e9)
    paths = draw_paths(3000, 4, 2, 1.0, seed=3)
    assert (paths[:, 1] // 4 == paths[:, 0]).all() and paths.max() < 16
    used = simulate_cache(paths, sizes, disk, memory, capacity=1000.0)
    seen = [len(np.unique(paths[:, level])) for level in range(2)]
    assert used.hits == pytest.approx([1 - count / 3000 for count in seen])
    assert used.seconds == pytest.approx((seen[0] * 4.0 + seen[1] * 2.0) / 3000, rel=1e-3)

    def hit(exponent: float) -> float:
        drawn = draw_paths(3000, 4, 2, exponent, seed=3)
        return simulate_cache(drawn, sizes, disk, memory, capacity=10.0).hits[1]

    assert len(np.unique(draw_paths(3000, 4, 2, 0.0, seed=3)[:, 1])) == 16, "every leaf is drawn"
    assert hit(0.0) < hit(1.0) < hit(2.0)
    assert math.isclose(hit(0.0), 2 / 16, abs_tol=0.08), "a level-2 block stays only a text or two"
    with pytest.raises(UserError, match="enlarge"):
        simulate_cache(paths, sizes, disk, memory, capacity=5.0)
