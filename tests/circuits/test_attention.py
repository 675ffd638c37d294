"""Laws of attention edges: they add up to heads, are slopes of exact removal, and removal is editing the pattern."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.attention import attribute_attention, remove_attention
from circuits.attribution import attribute
from circuits.metrics import build_readout
from circuits.parts import Removal
from circuits.problem import Inputs, Problem, pose_problem
from probes.attachments import Attachment
from probes.errors import UserError
from probes.progress import quiet
from tests.checkpoints import load_shape, make_explicit

CLEAN = torch.tensor([[0, 20, 31, 44, 52]])
OTHER = torch.tensor([[0, 20, 33, 41, 52]])
READOUT = build_readout([5], [[5]], [[9]])
SHAPES = ("gpt2", "pythia", "llama", "gemma3", "mixtral")


def pose(shape: str, ablation: str = "counterfactual", memories: bool = True) -> Problem:
    """Problem with explicit memories whose contents differ on the counterfactual side."""
    model = load_shape(shape)
    explicit = make_explicit(model) if memories and model.attention is not None else None
    changed = explicit and replace(explicit, keys=explicit.keys.flip(2), values=explicit.values * 0.5)
    inputs = Inputs(CLEAN, OTHER, Attachment(explicit), Attachment(changed), READOUT)
    return pose_problem(model, inputs, ablation, differentiable=True, attention=True, parts=True)


@pytest.mark.parametrize(("ablation", "removal"), [("counterfactual", "ablated"), ("zero", "contribution")])
@pytest.mark.parametrize("shape", SHAPES)
def test_sources_add_up_to_their_head(shape: str, ablation: str, removal: Removal) -> None:
    """Over the sources of one destination, to the head's node score there."""
    problem = pose(shape, ablation)
    (found,) = attribute_attention(problem, quiet, (removal,))
    nodes = attribute(problem, quiet).sum(dim=2).numpy()
    for layer in range(3):
        for head in range(4):
            whole = nodes[:, problem.wiring.find_writer(f"a{layer}.h{head}")]
            total = found.edges[layer, head].sum(axis=1)
            assert np.abs(total - whole).max() <= 1e-4 * np.abs(nodes).max()
    assert not np.triu(found.edges, k=1).any() and not np.triu(found.slopes, k=1).any()


@pytest.mark.parametrize("removal", ["ablated", "contribution", "renormalised"])
@pytest.mark.parametrize("shape", ["llama", "gemma3"])
def test_estimates_are_slopes_of_exact_removal(shape: str, removal: Removal) -> None:
    """A finite difference of the exactly measured metric agrees on the strongest edges."""
    problem = pose(shape)
    (found,) = attribute_attention(problem, quiet, (removal,))
    step = 1e-2
    for flat in np.argsort(-np.abs(found.edges), axis=None)[:4]:
        edge = tuple(int(i) for i in np.unravel_index(flat, found.edges.shape))
        high, low = (float(remove_attention(problem, [edge], quiet, removal, strength=s)) for s in (step, -step))
        assert (high - low) / (2 * step) == pytest.approx(float(found.edges[edge]), rel=0.02, abs=2e-3)


def measure_pattern(problem: Problem, layer: int, head: int, query: int, row: torch.Tensor) -> float:
    """Metric when one head attends from one position as `row` says."""

    def overwrite(pattern: torch.Tensor, hook: object) -> torch.Tensor:
        pattern = pattern.clone()
        pattern[0, head, query] = row
        return pattern

    with torch.no_grad():
        logits = problem.model.run(CLEAN, [(f"blocks.{layer}.attn.hook_pattern", overwrite)])
    return float(problem.metric(logits))


def test_removal_is_editing_the_pattern() -> None:
    """Contribution: the weight is 0. Renormalised: the other weights share it out. A slope is a weight's derivative."""
    problem = pose("llama", memories=False)
    (found,) = attribute_attention(problem, quiet)
    layer, head, query, key = 1, 2, 3, 1
    row = problem.clean_record.pattern[layer][0, head, query].detach()
    without = row.clone()
    without[key] = 0.0
    for removal, edited in (("contribution", without), ("renormalised", without / without.sum())):
        drop = problem.metric_clean - measure_pattern(problem, layer, head, query, edited)
        (got,) = remove_attention(problem, [(layer, head, query, key)], quiet, removal)
        assert abs(drop) > 1e-4
        assert float(got) == pytest.approx(drop, abs=2e-5)
    step = torch.zeros_like(row)
    step[key] = 2e-2
    high, low = (measure_pattern(problem, layer, head, query, row + sign * step) for sign in (1, -1))
    assert (high - low) / 4e-2 == pytest.approx(float(found.slopes[layer, head, query, key]), rel=0.02, abs=2e-3)


def test_a_head_without_another_source_reads_nothing() -> None:
    """At the first position there is nothing to share a weight out to: renormalised removal is plain removal."""
    problem = pose("llama", memories=False)
    edge = (2, 1, 0, 0)
    values = [float(remove_attention(problem, [edge], quiet, removal)) for removal in ("contribution", "renormalised")]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    found = attribute_attention(problem, quiet, ("contribution", "renormalised"))
    assert found[0].edges[edge] == pytest.approx(found[1].edges[edge], abs=1e-6)


def test_what_has_no_meaning_is_refused() -> None:
    """Edges to the past's future, heads that are not there, and a mean edge."""
    problem = pose("llama", "mean")
    with pytest.raises(UserError, match="gives an attention edge no replacement"):
        attribute_attention(problem, quiet, ("ablated",))
    with pytest.raises(UserError, match="sources stand before destinations"):
        remove_attention(problem, [(0, 0, 1, 2)], quiet)
    with pytest.raises(UserError, match="no head 4 in layer 0"):
        remove_attention(problem, [(0, 4, 1, 1)], quiet)
