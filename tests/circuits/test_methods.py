"""Every method of the table, under one signature: shapes, costs, batches, padding, and the law each one promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from circuits.attribution import attribute, attribute_nodes
from circuits.circuit import EdgeScores
from circuits.effects import measure_direct_effects, measure_total_effects
from circuits.graph import Kind
from circuits.methods import METHODS, Options, list_stages, measure_size
from circuits.metrics import build_readout
from circuits.patching import measure_patches
from circuits.problem import Inputs, Problem, pad_tokens, pose_problem
from circuits.scoring import SCORERS, score
from probes.attachments import Attachment, stack_attachments
from probes.errors import UserError
from probes.models import Model
from probes.progress import quiet
from tests.checkpoints import load_shape, make_bank, make_explicit

CLEAN = [[0, 20, 31, 44, 52], [0, 22, 35], [0, 21, 30, 40]]
OTHER = [[0, 20, 33, 41, 52], [0, 23, 35], [0, 21, 32, 43]]
ANSWERS = [[5, 6], [7], [8, 9]]
FOILS = [[9, 4], [3], [2, 9]]
OPTIONS = Options(steps=2)
SHAPES = ("gpt2", "pythia", "llama")

# What decides jointly over the pairs gives a batch no mean of single runs.
JOINT: set[str] = set()


def remember(model: Model, row: int) -> Attachment:
    """A row's own memories, where the architecture takes explicit ones; none on GPT-2, to keep its graph small."""
    if model.attention is None:
        return Attachment()
    return Attachment(make_explicit(model, (0,), 1, seed=10 + row), make_bank(model, (1,), (2, 1), seed=20 + row))


def pose(shape: str, rows: list[int], fill: int = 0, ablation: str = "counterfactual", kept: bool = False) -> Problem:
    """Problem of some of the rows, answers taught; positions summed unless `kept`, other memories on the other side."""
    model = load_shape(shape)
    taught = [[*CLEAN[i], *ANSWERS[i][:-1]] for i in rows]
    other = [[*OTHER[i], *ANSWERS[i][:-1]] for i in rows]
    readout = build_readout([len(CLEAN[i]) for i in rows], [ANSWERS[i] for i in rows], [FOILS[i] for i in rows])
    attachments = [stack_attachments([remember(model, row + shift) for row in rows]) for shift in (0, 5)]
    inputs = Inputs(pad_tokens(taught, fill), pad_tokens(other, fill), *attachments, readout)
    return pose_problem(model, inputs, ablation, summed=not kept, differentiable=True)


def run(problem: Problem, method: str, options: Options = OPTIONS) -> EdgeScores:
    """Scores by a method of the table."""
    return score(problem, method, options, quiet)


@dataclass
class Count:
    """Passes over all prompts that were run."""

    forward: float = 0
    backward: int = 0


@contextmanager
def count_passes(problem: Problem) -> Iterator[Count]:
    """Count forward passes (a batch of many masks of one pair as many) and backward passes of the model."""
    count, patch = Count(), pytest.MonkeyPatch()
    forward, backward = Model.run, torch.autograd.grad

    def run_forward(self: Model, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        count.forward += tokens.shape[0] / problem.inputs.clean.shape[0]
        return forward(self, tokens, *rest)  # type: ignore[arg-type]

    def run_backward(*arguments: object, **named: object) -> object:
        count.backward += 1
        return backward(*arguments, **named)  # type: ignore[arg-type]

    patch.setattr(Model, "run", run_forward)
    patch.setattr(torch.autograd, "grad", run_backward)
    try:
        yield count
    finally:
        patch.undo()


def test_the_table_and_the_functions_have_the_same_names() -> None:
    """Each record stands under its own name and has a function; options it needs exist."""
    assert list(METHODS) == list(SCORERS) == [method.name for method in METHODS.values()]
    assert all(hasattr(Options(), name) for method in METHODS.values() for name in method.needs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_scores_every_edge_at_the_cost_it_tells(method: str, shape: str) -> None:
    """Finite scores, none where there is no edge, something above 0, and no more passes than the table says."""
    problem = pose(shape, [1])
    size = measure_size(problem.wiring, problem.positions, len(problem.list_ends()))
    with count_passes(problem) as count:
        scores = run(problem, method)
    told = METHODS[method].count(size, OPTIONS)
    assert (round(count.forward), count.backward) == (told.forward, told.backward)
    assert scores.edges.shape == (1, *problem.wiring.visible.shape)
    assert np.isfinite(scores.edges).all() and np.isfinite(scores.nodes).all()
    assert not scores.edges[:, ~problem.wiring.visible].any()
    assert np.abs(scores.edges).max() > 1e-3
    assert (scores.method, scores.metric) == (method, "logit-diff")


@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_no_score(method: str) -> None:
    """Pairs of different lengths with answers of several tokens: what fills up the shorter rows does not matter."""
    first, second = (run(pose("gpt2", [0, 1, 2], fill=fill), method) for fill in (0, 17))
    assert first.edges == pytest.approx(second.edges, abs=1e-4 * float(np.abs(first.edges).max()))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in JOINT and METHODS[name].level == "edges"])
def test_a_batch_is_the_mean_of_its_pairs(method: str) -> None:
    """Several pairs at once score as the mean of single ones, each with its own length and answer."""
    together = run(pose("gpt2", [0, 1, 2]), method).edges
    alone = np.mean([run(pose("gpt2", [row]), method).edges for row in range(3)], axis=0)
    assert together == pytest.approx(alone, abs=1e-4 * float(np.abs(alone).max()))


@pytest.mark.parametrize("name", ["atp", "exact-nodes", "direct"])
def test_node_methods_of_a_batch_are_means_of_its_pairs(name: str) -> None:
    """Node scores of several pairs at once are the mean of single ones, memories of their own attached."""
    together = run(pose("llama", [0, 1, 2]), name).nodes
    alone = np.mean([run(pose("llama", [row]), name).nodes for row in range(3)], axis=0)
    assert together == pytest.approx(alone, abs=1e-4 * float(np.abs(alone).max()))


@pytest.mark.parametrize("shape", ["gpt2", "pythia", "llama", "qwen3", "gemma2"])
def test_node_attribution_is_the_sum_over_outgoing_edges(shape: str) -> None:
    """AtP of a node, from the gradient of its stream alone, equals its EAP edges added up (chain rule)."""
    problem = pose(shape, [0], kept=True)
    nodes, edges = attribute_nodes(problem, quiet), attribute(problem, quiet)
    assert torch.allclose(nodes, edges.sum(dim=2), atol=1e-4 * float(nodes.abs().max()))


def test_stages_are_what_cannot_see_each_other() -> None:
    """Embedding, attention and MLP of each layer in turn; a layer of a parallel model is one stage."""
    wiring = pose("llama", [0]).wiring
    stages = list_stages(wiring)
    assert [i for stage in stages for i in stage] == list(range(len(wiring.writers)))
    assert len(stages) == 1 + 2 * wiring.plan.layers
    assert len(list_stages(pose("pythia", [0]).wiring)) == 1 + wiring.plan.layers


def test_effects_of_nodes_are_patches_of_their_edges() -> None:
    """Total effect: all outgoing edges off. Direct effect on the logits: the edge into them off, exactly."""
    problem = pose("llama", [0], kept=True)
    writer, logits = problem.wiring.find_writer("x0.h1.b0"), problem.wiring.find_reader("logits")
    end = problem.list_ends()[0]
    total, direct = measure_total_effects(problem, quiet), measure_direct_effects(problem, quiet)
    (whole,) = measure_patches(problem, [(end, slice(None), writer)], quiet, "")
    (alone,) = measure_patches(problem, [(end, logits, writer)], quiet, "")
    assert float(total[end, writer]) == pytest.approx(float(whole), abs=1e-5)
    assert float(direct[end, writer]) == pytest.approx(float(alone), abs=1e-5)
    last = problem.wiring.find_writer("m2")
    assert torch.allclose(total[list(problem.list_ends()), last], direct[list(problem.list_ends()), last], atol=1e-5)
    assert not direct[:end].any()


def test_an_edge_of_a_node_method_is_as_strong_as_its_weaker_end() -> None:
    """Edges above a threshold are those between nodes above it; a key's strength is that of what reads it later."""
    problem = pose("llama", [0], kept=True)
    scores = run(problem, "exact-nodes")
    wiring, nodes = scores.wiring, np.abs(scores.nodes)
    for name, reader in (("m0", "m2"), ("embed", "a1.h2.q"), ("m1", "logits")):
        writer, strength = wiring.find_writer(name), np.inf
        if reader != "logits":
            strength = nodes[2, wiring.find_writer(reader.removesuffix(".q"))]
        wanted = min(nodes[2, writer], strength) * np.sign(scores.nodes[2, writer])
        assert scores.edges[2, writer, wiring.find_reader(reader)] == pytest.approx(wanted)
    heads = [wiring.find_writer(f"a1.h{head}") for head in (2, 3)]
    key = min(nodes[2, wiring.find_writer("m0")], nodes[2:, heads].max())
    found = scores.edges[2, wiring.find_writer("m0"), wiring.find_reader("a1.kv1.k")]
    assert abs(found) == pytest.approx(key)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].at_clean])
def test_a_gradient_at_the_clean_run_says_nothing_about_divergence(method: str) -> None:
    """KL is flat at the clean run: refused with what to choose instead."""
    problem = pose("llama", [0])
    flat = pose_problem(problem.model, problem.inputs, metric="kl")
    with pytest.raises(UserError, match="flat at the clean run"):
        run(flat, method)


def test_memories_and_embedding_are_writers_of_the_problem() -> None:
    """What the other tests rest on: the Llama problem has explicit and bank writers, with two key-value heads."""
    problem = pose("llama", [0])
    assert {writer.kind for writer in problem.wiring.writers} == set(Kind) - {Kind.KEY_VALUE, Kind.LOGITS}
    assert problem.wiring.plan.kv_heads == 2 < problem.wiring.plan.heads
