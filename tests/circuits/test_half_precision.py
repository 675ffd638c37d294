"""The whole engine in bfloat16 beside float32, and on an accelerator beside the CPU where there is one.

Both models have the same weights, rounded to bfloat16. What bfloat16 then adds is a rounding of each number on its
way, of relative size at most half of `eps` = 2^-7. A score has some ROUNDINGS of them behind it; they are independent,
so their sizes add up like the root of their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuits.attribution import attribute
from circuits.batches import hold, measure_faithfulness
from circuits.curves import measure_curves
from circuits.effects import measure_memory_effects
from circuits.methods import METHODS, Options
from circuits.metrics import build_readout
from circuits.patching import list_edge_patches, measure_masks, measure_patches
from circuits.problem import Inputs, Problem, pose_problem
from circuits.scoring import score
from circuits.selection import Goal, select_top
from circuits.units import attribute_parts
from probes.attachments import Attachment
from probes.models import Model, load_model
from probes.progress import quiet
from tests.checkpoints import make_bank, make_explicit, make_root, write_checkpoint

SHAPES = ("gpt2", "llama", "gemma2")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
# Where, and in which precision, beside float32 on the CPU.
CASES = [
    pytest.param("cpu", "bfloat16", id="cpu-bfloat16"),
    pytest.param("cuda", "float32", id="cuda-float32", marks=CUDA),
    pytest.param("cuda", "bfloat16", id="cuda-bfloat16", marks=CUDA),
]
# A layer: norm, projection, rotation, score, softmax, read, output and sum; norm, gate, up, product, down and sum.
# Gemma 2 has two norms more, of two roundings each, and caps (divide, tanh, multiply) on scores and at the end.
ROUNDINGS = {"gpt2": 14 * 3, "llama": 14 * 3, "gemma2": (14 + 2 * 2 + 3) * 3 + 3}
ESTIMATES = ("eap", "eap-ig", "eap-ig-activations", "atp", "relp", "attnlrp")
MEASURED = ("exact-nodes", "direct")
CLEAN, OTHER = [[0, 20, 31, 44, 52]], [[0, 20, 33, 41, 52]]


def allow(shape: str, dtype: str) -> float:
    """Relative error allowed, of a norm over many scores: forward and backward, and `eps` for half of it.

    Sums run in another order on another device, so in float32 every rounding stands for a hundred.
    """
    return (
        math.sqrt(2 * ROUNDINGS[shape]) * torch.finfo(getattr(torch, dtype)).eps * (1 if dtype == "bfloat16" else 100)
    )


@cache
def write_rounded(shape: str) -> Path:
    """Checkpoint of a shape in float32 whose weights are numbers of bfloat16."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_root() / f"{shape}-rounded"
    AutoModelForCausalLM.from_pretrained(write_checkpoint(shape)).bfloat16().float().save_pretrained(folder)
    AutoTokenizer.from_pretrained(write_checkpoint(shape)).save_pretrained(folder)
    return folder


def attach(model: Model, seed: int) -> Attachment:
    """Every kind of memory that the architecture allows, its numbers those of bfloat16."""

    def move(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(move(part) for part in value)
        if isinstance(value, Mapping):
            return {name: move(part) for name, part in value.items()}
        if not isinstance(value, torch.Tensor):
            return value
        return (value.bfloat16().float() if value.is_floating_point() else value).to(model.device)

    def move_all(blocks: Any) -> Any:
        return replace(blocks, **{field.name: move(getattr(blocks, field.name)) for field in fields(blocks)})

    explicit = move_all(make_explicit(model, seed=seed)) if model.attention is not None else None
    return Attachment(explicit, move_all(make_bank(model, seed=seed + 1)))


@cache
def pose(shape: str, device: str, dtype: str, ablation: str = "counterfactual") -> Problem:
    """One pair with memories, other ones on the counterfactual side."""
    model = load_model(str(write_rounded(shape)), dtype=dtype, device=device)
    clean, other = (torch.tensor(rows, device=model.device) for rows in (CLEAN, OTHER))
    readout = build_readout([5], [[5]], [[9]], device)
    inputs = Inputs(clean, other, attach(model, 1), attach(model, 11), readout)
    return pose_problem(model, inputs, ablation, summed=True, parts=True)


def measure_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def find_size(problem: Problem) -> float:
    """How large the logits are that a measured drop is the difference of: its error goes with them, not with it."""
    return abs(problem.metric_clean) + abs(problem.metric_ablated)


def measure_spread(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference."""
    return float(np.sqrt(np.mean((found - wanted) ** 2)))


@pytest.mark.parametrize(("device", "dtype"), CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_methods_agree(shape: str, device: str, dtype: str) -> None:
    """Scores of edges and nodes by every method that is not a search; measured drops as far as logits resolve them."""
    problem, reference = pose(shape, device, dtype), pose(shape, "cpu", "float32")
    for method in ESTIMATES:
        found, wanted = (score(one, method, Options(steps=2), quiet) for one in (problem, reference))
        assert measure_error(found.edges, wanted.edges) < allow(shape, dtype), method
        # A node is a sum in which edges cancel; its rounding is as large as theirs, at worst all of one sign.
        scale = np.abs(wanted.edges).sum(axis=2) if METHODS[method].level == "edges" else wanted.nodes
        assert np.linalg.norm(found.nodes - wanted.nodes) < allow(shape, dtype) * np.linalg.norm(scale), method
    for method in MEASURED:
        found, wanted = (score(one, method, Options(), quiet) for one in (problem, reference))
        assert measure_spread(found.nodes, wanted.nodes) < allow(shape, dtype) * find_size(reference), method


@pytest.mark.parametrize(("device", "dtype"), CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_parts_and_patches_agree(shape: str, device: str, dtype: str) -> None:
    """Units and slots as nodes and into the logits; every third edge patched exactly."""
    problem, reference = pose(shape, device, dtype), pose(shape, "cpu", "float32")
    tables = [attribute_parts(one, quiet)[1] for one in (problem, reference)]
    found, wanted = (np.concatenate([part.values.ravel() for part in table.scores]) for table in tables)
    assert measure_error(found, wanted) < allow(shape, dtype)
    patches = list(list_edge_patches(torch.from_numpy(reference.wiring.visible), 1))[::3]
    found, wanted = (measure_patches(one, patches, quiet, "").cpu().numpy() for one in (problem, reference))
    assert measure_spread(found, wanted) < allow(shape, dtype) * find_size(reference)


@pytest.mark.parametrize(("device", "dtype"), CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_quality_agrees(shape: str, device: str, dtype: str) -> None:
    """The whole graph is the model; faithfulness, curves and effects of memories."""
    problem, reference = pose(shape, device, dtype), pose(shape, "cpu", "float32")
    size = find_size(reference)
    near = allow(shape, dtype) * size / abs(reference.metric_clean - reference.metric_ablated)
    whole = torch.ones(1, 1, len(problem.wiring.readers), len(problem.wiring.writers), device=problem.model.device)
    assert float(measure_masks(problem, whole)) == pytest.approx(problem.metric_clean, abs=allow(shape, dtype) * size)
    scores = score(reference, "eap", Options(), quiet)
    mask = select_top(scores, Goal(100, reference.list_ends())).mask
    found, wanted = (
        measure_faithfulness(hold(one), one.wiring, mask, "logits", 0, quiet, 3) for one in (problem, reference)
    )
    assert found.normalised == pytest.approx(wanted.normalised, abs=near)
    found_curves, wanted_curves = (measure_curves(one, scores, 2, 0, quiet) for one in (problem, reference))
    assert found_curves.absolute.faithfulness == pytest.approx(wanted_curves.absolute.faithfulness, abs=near)
    assert found_curves.absolute.cpr == pytest.approx(wanted_curves.absolute.cpr, abs=near)
    for one, two in zip(*(measure_memory_effects(side, quiet) for side in (problem, reference)), strict=True):
        assert one.contribution == pytest.approx(two.contribution, abs=allow(shape, dtype) * size)
        assert one.renormalised == pytest.approx(two.renormalised, abs=allow(shape, dtype) * size)


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_other_ablations_agree(ablation: str) -> None:
    """What ablated writes count as is held in float32 where it is a mean."""
    found, wanted = (
        attribute(pose("gemma2", "cpu", dtype, ablation), quiet).numpy() for dtype in ("bfloat16", "float32")
    )
    assert measure_error(found, wanted) < allow("gemma2", "bfloat16")
