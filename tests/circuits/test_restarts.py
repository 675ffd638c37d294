"""Patches measured by taking up the model where they act are what a masked run of the whole model gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from circuits import patching
from circuits.metrics import build_readout
from circuits.patching import (
    count_patches,
    count_rows,
    group_patches,
    list_edge_patches,
    measure_masks,
    measure_patches,
)
from circuits.problem import Inputs, Problem, pad_tokens, pose_problem
from circuits.restarts import Patch
from probes.attachments import Attachment, stack_attachments
from probes.progress import quiet
from tests.checkpoints import SHAPES, load_shape, make_bank, make_explicit

CLEAN = [[0, 20, 31, 44, 52], [0, 22, 35]]
OTHER = [[0, 20, 33, 41, 52], [0, 23, 35]]


def pose(shape: str, rows: int, ablation: str = "counterfactual") -> Problem:
    """Problem of one or two pairs of different length, with every kind of memory the architecture allows."""
    model = load_shape(shape)
    seeds = [range(10 * side, 10 * side + rows) for side in (1, 2)]
    sides = [
        stack_attachments(
            [
                Attachment(make_explicit(model, seed=s) if model.attention else None, make_bank(model, seed=s))
                for s in side
            ]
        )
        for side in seeds
    ]
    readout = build_readout([len(row) for row in CLEAN[:rows]], [[5], [7]][:rows], [[9], [3]][:rows])
    inputs = Inputs(pad_tokens(CLEAN[:rows]), pad_tokens(OTHER[:rows]), *sides, readout)
    return pose_problem(model, inputs, ablation)


def list_patches(problem: Problem) -> list[Patch]:
    """Every writer and, into every reader, the edge from its latest writer; at one position or at all in turn."""
    positions, visible = problem.positions, torch.from_numpy(problem.wiring.visible)
    latest = {reader: writer for _, reader, writer in list_edge_patches(visible, 1)}
    ends = [(slice(None), writer) for writer in range(len(visible))] + list(latest.items())
    return [(slice(None) if i % 2 else i // 2 % positions, *end) for i, end in enumerate(ends)]


def measure_masked(problem: Problem, patches: list[Patch]) -> torch.Tensor:
    """The same drops from masked runs, one mask a patch."""
    masks = torch.ones(len(patches), problem.positions, len(problem.wiring.readers), len(problem.wiring.writers))
    for row, patch in enumerate(patches):
        masks[(row, *patch)] = 0.0
    return problem.metric_clean - measure_masks(problem, masks)


@pytest.mark.parametrize(("shape", "rows"), [*((shape, 1) for shape in SHAPES), ("llama", 2), ("pythia", 2)])
def test_restarted_patches_are_masked_runs(shape: str, rows: int) -> None:
    """Nodes and edges of every kind, at one position or all, with memories attached, one pair or several."""
    problem = pose(shape, rows)
    patches = list_patches(problem)
    restarted, masked = measure_patches(problem, patches, quiet, ""), measure_masked(problem, patches)
    assert torch.allclose(restarted, masked, atol=1e-5)
    assert (masked.abs() > 1e-3).sum() > len(patches) / 5


@pytest.mark.parametrize("ablation", ["mean", "zero"])
@pytest.mark.parametrize("shape", ["gemma2", "pythia"])
def test_other_ablations_restart_too(shape: str, ablation: str) -> None:
    """What an ablated write counts as does not matter to where the model is taken up; nor do summed positions."""
    problem = pose(shape, 1, ablation)
    for one in (problem, replace(problem, summed=True)):
        patches = list_patches(one)[::4]
        assert torch.allclose(measure_patches(one, patches, quiet, ""), measure_masked(one, patches), atol=1e-5)


def test_long_prompts_run_fewer_rows_at_once() -> None:
    """Masked runs together hold no more than is allowed, however long the prompt; one always runs."""
    problem = replace(pose("llama", 1), summed=True)
    rows = []
    for length in (5, 4_000, 1_000_000):
        inputs = replace(problem.inputs, clean=torch.zeros(1, length, dtype=torch.long))
        rows.append(count_rows(replace(problem, inputs=inputs)))
        state = length * (len(problem.wiring.writers) * problem.model.d_model + problem.model.heads * length)
        # 1 GB of float32.
        assert rows[-1] == 1 or rows[-1] * state * 4 <= 2**30
    assert rows[0] == 64 > rows[1] > rows[2] == 1


@pytest.mark.parametrize(("rows", "wanted"), [(1, [3]), (2, [2, 2, 2])])
def test_masks_of_one_pair_run_together(rows: int, wanted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three masks of one pair are one run of three rows; of two pairs each is a run of both, and the whole model."""
    problem, seen, run = pose("llama", rows), list[int](), patching.run_masked

    def count(*arguments: Any) -> torch.Tensor:
        seen.append(len(arguments[2]))
        return run(*arguments)

    monkeypatch.setattr(patching, "run_masked", count)
    masks = torch.ones(3, problem.positions, len(problem.wiring.readers), len(problem.wiring.writers))
    assert measure_masks(problem, masks).tolist() == pytest.approx([problem.metric_clean] * 3, abs=1e-5)
    assert seen == wanted


def test_patches_run_together_as_far_as_2048_tokens_go() -> None:
    """As many as fit, and one alone where not even that fits; the work is told before each batch, from 0 on."""
    problem = pose("llama", 1)
    counts = []
    for length in (5, 700, 3000):
        inputs = replace(problem.inputs, clean=torch.zeros(1, length, dtype=torch.long))
        counts.append(count_patches(replace(problem, inputs=inputs)))
    assert counts == [2048 // 5, 2048 // 700, 1]
    patches, seen = list_patches(problem), list[tuple[str, int, int]]()
    measure_patches(problem, patches, lambda *told: seen.append(told), "patched")
    sizes = [len(indices) for _, indices in group_patches(problem, patches, counts[0])]
    assert sum(sizes) == len(patches) and len(sizes) > 2
    assert seen == [("patched", sum(sizes[:index]), len(patches)) for index in range(len(sizes))]
