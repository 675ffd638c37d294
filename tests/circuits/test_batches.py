"""A data set in batches is the data set at once: scores, parts, means and faithfulness add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.batches import Batches, hold, measure_faithfulness, sweep
from circuits.graph import Kind
from circuits.methods import METHODS, Options
from circuits.metrics import build_readout
from circuits.problem import Inputs, Means, Problem, average, mix_means, pad_tokens, pose_problem
from circuits.selection import keep_strongest
from probes.attachments import Attachment, stack_attachments
from probes.errors import UserError
from probes.progress import Tick, quiet
from tests.checkpoints import load_shape, make_bank, make_explicit

CLEAN = [[0, 20, 31, 44, 52], [0, 22, 35], [0, 24, 31, 44], [0, 25, 33, 41, 50], [0, 21, 30]]
OTHER = [[0, 20, 33, 41, 52], [0, 23, 35], [0, 24, 36, 40], [0, 25, 38, 49, 50], [0, 28, 30]]
ANSWERS, FOILS = [[5], [7, 9], [6], [11], [12]], [[9], [3, 4], [8], [13], [14]]
REFERENCES = [torch.tensor([[0, 60, 61, 62]]), torch.tensor([[0, 63, 64]])]
KINDS = (Kind.MLP, Kind.BANK, Kind.EXPLICIT)
OPTIONS = Options(steps=2)


def build(rows: range) -> Inputs:
    """Inputs of some of the pairs, each with memories of its own."""
    model = load_shape("llama")

    def attach(side: int) -> Attachment:
        seeds = [10 * side + row for row in rows]
        return stack_attachments([Attachment(make_explicit(model, seed=s), make_bank(model, seed=s)) for s in seeds])

    clean, other, answers, foils = ([part[row] for row in rows] for part in (CLEAN, OTHER, ANSWERS, FOILS))
    readout = build_readout([len(row) for row in clean], answers, foils)
    taught = [[row + answer[:-1] for row, answer in zip(side, answers, strict=True)] for side in (clean, other)]
    return Inputs(pad_tokens(taught[0]), pad_tokens(taught[1]), attach(1), attach(2), readout)


def pose(rows: range, ablation: str, means: Means | None = None) -> Problem:
    """Problem of some of the pairs, positions summed even for one."""
    return pose_problem(
        load_shape("llama"),
        build(rows),
        ablation,
        references=REFERENCES,
        summed=True,
        differentiable=True,
        attention=True,
        parts=True,
        means=means,
        alone=len(rows) == len(CLEAN),
    )


def split(ablation: str) -> Batches:
    """The five pairs in batches of two, two and one."""
    groups = [range(2), range(2, 4), range(4, 5)]
    means = None
    if ablation == "mean":
        model = load_shape("llama")
        found = [(average(model, build(rows), REFERENCES, quiet, parts=True), len(rows) / 5) for rows in groups]
        means = mix_means(found)
    return Batches([len(rows) for rows in groups], lambda index, tick: pose(groups[index], ablation, means))


@pytest.mark.parametrize(
    ("method", "ablation"),
    [
        *((method, "counterfactual") for method in ("eap", "eap-ig", "atp", "attnlrp", "direct", "exact-nodes")),
        *(("eap", ablation) for ablation in ("mean", "zero", "memory-renormalised")),
        ("exact-nodes", "mean"),
    ],
)
def test_batches_add_up_to_the_whole(method: str, ablation: str) -> None:
    """Pairs of different lengths, answers of several tokens, memories of their own: to float32's rounding."""
    whole = sweep(hold(pose(range(5), ablation)), method, OPTIONS, quiet, ("logits", "m2"), KINDS)
    added = sweep(split(ablation), method, OPTIONS, quiet, ("logits", "m2"), KINDS)
    scale = np.abs(whole.scores.edges).max()
    assert np.abs(added.scores.edges - whole.scores.edges).max() < 1e-5 * scale
    assert np.abs(added.scores.nodes - whole.scores.nodes).max() < 1e-5 * np.abs(whole.scores.nodes).max()
    assert added.context == pytest.approx(whole.context, abs=1e-6)
    assert (added.ends, added.summed) == (whole.ends, whole.summed) == ((0,), True)
    assert added.parts is not None and whole.parts is not None
    most = max(float(np.abs(found.values).max()) for found in whole.parts.scores)
    for ours, theirs in zip(added.parts.scores, whole.parts.scores, strict=True):
        assert (ours.whole, ours.reader, ours.removal) == (theirs.whole, theirs.reader, theirs.removal)
        assert np.abs(ours.values - theirs.values).max() < 1e-5 * most


@pytest.mark.parametrize("ablation", ["counterfactual", "mean"])
def test_faithfulness_is_that_of_the_whole(ablation: str) -> None:
    problem = pose(range(5), ablation)
    scores = sweep(hold(problem), "eap", OPTIONS, quiet).scores
    mask = keep_strongest(scores, 60)
    whole, added = (
        measure_faithfulness(batches, scores.wiring, mask, "logits", 3, quiet, draws=3)
        for batches in (hold(problem), split(ablation))
    )
    assert added.edges == whole.edges == 60
    for name in ("metric_whole", "metric_empty", "metric_circuit", "normalised"):
        assert getattr(added, name) == pytest.approx(getattr(whole, name), abs=1e-4)
    assert added.random.mean == pytest.approx(whole.random.mean, abs=1e-4)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.additive])
def test_methods_that_decide_on_all_pairs_are_refused(method: str) -> None:
    """Before any pair is run."""
    with pytest.raises(UserError, match="in 2 batches: raise --rows"):
        sweep(Batches((1, 1), lambda index, tick: pytest.fail("was run")), method, OPTIONS, quiet)


def test_work_is_told_and_stopped_between_batches() -> None:
    """A tick before each batch says how many pairs are done; one that raises stops the work there."""
    seen: list[tuple[str, int, int]] = []
    batches = split("counterfactual")

    def tick(label: str, done: int, total: int) -> None:
        seen.append((label, done, total))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sweep(batches, "eap", OPTIONS, tick)
    assert seen == [("pairs run", 0, 5), ("pairs run", 2, 5)]


def test_pairs_with_other_graphs_and_a_still_metric_are_refused() -> None:
    """Memories that only some pairs have, and a metric that as a whole does not move."""
    bare = Inputs(torch.tensor([CLEAN[1]]), torch.tensor([OTHER[1]]), Attachment(), Attachment(),
                  build_readout([3], [[5]], [[9]]))  # fmt: skip

    def run(index: int, tick: Tick) -> Problem:
        if index:
            return pose_problem(load_shape("llama"), bare, summed=True, attention=True, alone=False)
        return pose(range(1), "counterfactual")

    with pytest.raises(UserError, match="different memories attached"):
        sweep(Batches((1, 1), run), "eap", OPTIONS, quiet)
    still = Inputs(bare.clean, bare.clean, Attachment(), Attachment(), bare.readout)
    problem = pose_problem(load_shape("llama"), still, summed=True, attention=True, alone=False)
    with pytest.raises(UserError, match="does not move"):
        sweep(Batches((1, 1), lambda index, tick: problem), "eap", OPTIONS, quiet)
