"""Every method of the table, under one signature: shapes, costs, batches, padding, and the law each one promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from circuits.attribution import attribute, attribute_nodes
from circuits.circuit import EdgeScores
from circuits.edge_masks import train_gates
from circuits.effects import measure_direct_effects, measure_memory_effects, measure_total_effects
from circuits.faithfulness import draw_random_masks, measure_kept, normalise
from circuits.graph import Kind
from circuits.methods import METHODS, Options, list_stages, measure_size
from circuits.metrics import build_readout
from circuits.patching import measure_masks, measure_patches
from circuits.problem import REMOVALS, Inputs, Problem, pad_tokens, pose_problem, record_run
from circuits.pruning import prune_edges
from circuits.relevance import RelevancePass, activate, attribute_relevance, freeze_norms
from circuits.scoring import SCORERS, score
from circuits.stages import attribute_along_stages
from probes.attachments import Attachment, stack_attachments
from probes.errors import UserError
from probes.models import Model, load_model
from probes.progress import quiet
from tests.checkpoints import load_shape, make_bank, make_explicit, make_root, train_tokenizer

CLEAN = [[0, 20, 31, 44, 52], [0, 22, 35], [0, 21, 30, 40]]
OTHER = [[0, 20, 33, 41, 52], [0, 23, 35], [0, 21, 32, 43]]
ANSWERS = [[5, 6], [7], [8, 9]]
FOILS = [[9, 4], [3], [2, 9]]
OPTIONS = Options(steps=2, threshold=0.1, edges=20, updates=3)
SHAPES = ("small", "llama")

# What decides jointly over the pairs gives a batch no mean of single runs.
JOINT = {"acdc", "edge-masks"}


@cache
def load_small(linear: bool) -> Model:
    """A GPT-2 of two layers and two heads; or one that is linear in what it reads.

    Linear: patterns are uniform, the activation is the identity, and the norms' scales drown in their epsilon.
    """
    config = GPT2Config(
        vocab_size=315, n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=1,
        initializer_range=0.15, activation_function="linear" if linear else "gelu_new",
        layer_norm_epsilon=1e8 if linear else 1e-5,
    )  # fmt: skip
    torch.manual_seed(1)
    network = AutoModelForCausalLM.from_config(config)
    for name, parameter in network.named_parameters():
        if linear and "ln_" in name and name.endswith("weight"):
            parameter.data.fill_(1e4)
        if linear and "c_attn" in name:
            parameter.data[..., :32] = 0.0
    folder = make_root() / f"small-{linear}"
    network.save_pretrained(folder)
    train_tokenizer().save_pretrained(folder)
    return load_model(str(folder), device="cpu")


def remember(model: Model, row: int) -> Attachment:
    """A row's own memories, where the architecture takes explicit ones; none on GPT-2."""
    if model.attention is None:
        return Attachment()
    return Attachment(make_explicit(model, (0,), 1, seed=10 + row), make_bank(model, (1,), (2, 1), seed=20 + row))


def pose(shape: str, rows: list[int], fill: int = 0, ablation: str = "counterfactual", kept: bool = False) -> Problem:
    """Problem of some of the rows, answers taught; positions summed unless `kept`, other memories on the other side."""
    model = load_small(linear=False) if shape == "small" else load_shape(shape)
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
    """Count forward passes (a batch of many masks or patches as many) and backward passes of the model."""
    count, patch = Count(), pytest.MonkeyPatch()
    forward, backward = Model.run, torch.autograd.grad

    def run_forward(self: Model, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        logits = forward(self, tokens, *rest)  # type: ignore[arg-type]
        rows, pairs = logits.shape[0], problem.inputs.clean.shape[0]
        # A run taken up in the middle is given one row of tokens, and compares its rows with one that is not patched.
        count.forward += (rows if rows == tokens.shape[0] else rows - pairs) / pairs
        return logits

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
    assert count.backward == told.backward
    assert count.forward <= told.forward if METHODS[method].bounded else round(count.forward) == told.forward
    assert scores.edges.shape == (1, *problem.wiring.visible.shape)
    assert np.isfinite(scores.edges).all() and np.isfinite(scores.nodes).all()
    assert not scores.edges[:, ~problem.wiring.visible].any()
    assert np.abs(scores.edges).max() > 1e-3
    assert (scores.method, scores.metric) == (method, "logit-diff")


@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_no_score(method: str) -> None:
    """Pairs of different lengths with answers of several tokens: what fills up the shorter rows does not matter."""
    first, second = (run(pose("small", [0, 1, 2], fill=fill), method) for fill in (0, 17))
    assert first.edges == pytest.approx(second.edges, abs=1e-4 * float(np.abs(first.edges).max()))


@pytest.mark.parametrize("method", [name for name in METHODS if name not in JOINT and METHODS[name].level == "edges"])
def test_a_batch_is_the_mean_of_its_pairs(method: str) -> None:
    """Several pairs at once score as the mean of single ones, each with its own length and answer."""
    together = run(pose("small", [0, 1, 2]), method).edges
    alone = np.mean([run(pose("small", [row]), method).edges for row in range(3)], axis=0)
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
    assert {writer.kind for writer in problem.wiring.writers} == set(Kind) - {Kind.KEY_VALUE, Kind.LEARNED, Kind.LOGITS}
    assert problem.wiring.plan.kv_heads == 2 < problem.wiring.plan.heads


@pytest.mark.parametrize(
    ("shape", "ablation"),
    [("small", "counterfactual"), ("pythia", "mean"), ("llama", "counterfactual"), ("gemma2", "counterfactual")],
)
def test_scores_of_a_stage_add_up_to_its_exact_effect(shape: str, ablation: str) -> None:
    """EAP-IG over activations is complete: each stage's edges sum to the drop when all its writers are ablated."""
    problem = pose(shape, [0], ablation=ablation)
    scores = attribute_along_stages(problem, 12, quiet)
    for stage in list_stages(problem.wiring):
        mask = torch.ones(1, problem.positions, len(problem.wiring.readers), len(problem.wiring.writers))
        mask[:, 0, :, stage.start : stage.stop] = 0.0
        drop = problem.metric_clean - float(measure_masks(problem, mask))
        assert float(scores[:, stage.start : stage.stop].sum()) == pytest.approx(drop, rel=0.02, abs=0.03)


def prune_slowly(problem: Problem, threshold: float) -> torch.Tensor:
    """ACDC as it is defined: one edge after the other, one run each, nothing guessed and nothing skipped."""
    wiring = problem.wiring
    mask = torch.ones(1, problem.positions, len(wiring.readers), len(wiring.writers))
    value = problem.metric_clean
    scores = torch.zeros(problem.positions, *wiring.visible.shape)
    for reader in reversed(range(len(wiring.readers))):
        for position in reversed(range(problem.positions)):
            for writer in reversed(range(len(wiring.writers))):
                if not wiring.visible[writer, reader]:
                    continue
                tried = mask.clone()
                tried[0, position, reader, writer] = 0.0
                found = float(measure_masks(problem, tried))
                if abs(value - found) < threshold:
                    mask, value = tried, found
                else:
                    scores[position, writer, reader] = value - found
    return scores


@pytest.mark.parametrize(
    ("rows", "kept", "metric"), [([1], True, "logit-diff"), ([1, 2], False, "logit-diff"), ([1], False, "kl")]
)
def test_pruning_in_batches_is_pruning_one_by_one(rows: list[int], kept: bool, metric: str) -> None:
    """Guessing and skipping change nothing: the same edges stay, with the same scores; some go and some stay.

    Where the metric is flat (KL) there is no estimate to guess by.
    """
    problem = pose("small", rows, kept=kept)
    if metric == "kl":
        problem = pose_problem(problem.model, problem.inputs, metric="kl", summed=True)
    fast, slow = prune_edges(problem, 0.1, quiet), prune_slowly(problem, 0.1)
    assert torch.allclose(fast, slow, atol=1e-4 * float(slow.abs().max()))
    assert 0 < int((fast != 0).sum()) < problem.wiring.edges * problem.positions


def run_relevance(problem: Problem, rule: Literal["frozen", "half"]) -> torch.Tensor:
    """Logits of the run that relevance rules take place in."""
    return RelevancePass(freeze_norms(problem.model), problem.inputs.attachment, rule).run(problem.inputs.clean)


@pytest.mark.parametrize("rule", ["frozen", "half"])
@pytest.mark.parametrize("shape", ["gpt2", "pythia", "llama", "qwen3", "gemma2"])
def test_relevance_rules_change_no_forward_pass(shape: str, rule: Literal["frozen", "half"]) -> None:
    """Only the backward pass follows the rules: the logits are the model's, memories attached."""
    problem = pose(shape, [0])
    value = problem.metric(run_relevance(problem, rule).detach()).mean()
    assert float(value) == pytest.approx(problem.metric_clean, abs=1e-5)


@pytest.mark.parametrize("shape", ["llama", "qwen3"])
def test_relevance_is_conserved(shape: str) -> None:
    """RelP without biases: across every cut of the model relevance adds up to the metric (as do its sources')."""
    problem = pose(shape, [0], ablation="zero")
    scores = attribute_relevance(problem, "frozen", quiet)[0]
    wiring = problem.wiring
    sources = [i for i, w in enumerate(wiring.writers) if w.kind in (Kind.EMBEDDING, Kind.EXPLICIT)]
    assert float(scores[sources].sum()) == pytest.approx(problem.metric_clean, rel=1e-3)
    for stage in list_stages(wiring)[1:]:
        later = [i for i in sources if i >= stage.start]
        behind = torch.from_numpy(wiring.visible[stage.start - 1])
        cut = scores[: stage.start][:, behind].sum() + scores[later].sum()
        assert float(cut) == pytest.approx(problem.metric_clean, rel=1e-3)


def test_relevance_of_one_unit_by_hand() -> None:
    """A gated unit hands half of its output to gate and up, whatever the activation; a zero input gets nothing."""
    gate, up = torch.tensor([1.5, -2.0, 0.0]).requires_grad_(), torch.tensor([0.7, 3.0, 2.0]).requires_grad_()
    output = torch.nn.functional.silu(gate) * up
    ruled = activate(output, gate, up)
    assert torch.equal(ruled, output)
    for factor, found in zip((gate, up), torch.autograd.grad(ruled.sum(), [gate, up]), strict=True):
        assert torch.allclose(factor * found, output / 2)
    assert torch.allclose(gate * torch.autograd.grad(activate(gate.relu(), gate, None).sum(), gate)[0], gate.relu())


def test_halved_products_split_their_relevance() -> None:
    """AttnLRP keeps what RelP says of values but for the half that goes to the pattern."""
    problem = pose("llama", [0])
    frozen, half = (attribute_relevance(problem, rule, quiet) for rule in ("frozen", "half"))
    last = [i for i, reader in enumerate(problem.wiring.readers) if reader.component.layer == problem.model.layers - 1]
    values = [i for i in last if problem.wiring.readers[i].role == "v"]
    queries = [i for i in last if problem.wiring.readers[i].role in ("q", "k")]
    assert torch.allclose(half[:, :, values], frozen[:, :, values] / 2, atol=1e-5)
    assert not frozen[:, :, queries].any()
    assert half[:, :, queries].any()


@pytest.mark.parametrize("method", ["eap", "eap-ig", "eap-ig-activations", "relp"])
def test_on_a_linear_model_every_estimate_is_exact(method: str) -> None:
    """Where nothing is curved, each estimate equals exact patching edge by edge, and AtP node by node."""
    clean, other = torch.tensor([[0, 20, 31]]), torch.tensor([[0, 22, 33]])
    inputs = Inputs(clean, other, Attachment(), Attachment(), build_readout([3], [[5]], [[9]]))
    problem = pose_problem(load_small(linear=True), inputs, summed=True)
    exact, found = run(problem, "exact"), run(problem, method)
    size = float(np.abs(exact.edges).max())
    assert found.edges == pytest.approx(exact.edges, abs=1e-3 * size)
    assert found.nodes == pytest.approx(exact.nodes, abs=1e-3 * size)
    assert run(problem, "atp").nodes == pytest.approx(exact.nodes, abs=1e-3 * size)
    assert size > 1e-2


def test_training_closes_gates_and_keeps_the_metric() -> None:
    """Trained gates reach the wanted number of edges and keep more of the metric than as many drawn at random."""
    problem = pose("small", [0])
    wanted = problem.wiring.edges // 4
    found = train_gates(problem, wanted, 120, 0, quiet)
    assert float(found.sum()) == pytest.approx(wanted, rel=0.3)
    assert torch.equal(found, train_gates(problem, wanted, 120, 0, quiet))
    kept = torch.zeros_like(found)
    kept.view(-1)[found.flatten().topk(wanted).indices] = 1.0
    value = normalise(problem, float(measure_masks(problem, kept.transpose(1, 2)[None])))
    random = measure_kept(problem, draw_random_masks(problem.wiring, 1, wanted, 8, seed=0))
    distance = np.abs(1 - np.array([normalise(problem, v) for v in random]))
    assert abs(1 - value) < np.median(distance)


@pytest.mark.parametrize("shape", ["llama", "pythia"])
def test_memories_are_removed_in_two_ways(shape: str) -> None:
    """Contribution only is a mask over what memories wrote under zero ablation; renormalised is having none."""
    problem = pose(shape, [0])
    model, inputs = problem.model, problem.inputs
    unread, removed = (pose_problem(model, inputs, ablation) for ablation in REMOVALS)
    zero = pose_problem(model, inputs, "zero", summed=True)
    mask = torch.ones(1, 1, len(zero.wiring.readers), len(zero.wiring.writers))
    mask[..., [i for i, w in enumerate(zero.wiring.writers) if w.kind in (Kind.EXPLICIT, Kind.BANK)]] = 0.0
    assert unread.metric_ablated == pytest.approx(float(measure_masks(zero, mask)), abs=1e-4)
    _, logits = record_run(model, inputs.clean, Attachment())
    assert removed.metric_ablated == pytest.approx(float(problem.metric(logits).mean()), abs=1e-4)
    assert abs(unread.metric_ablated - removed.metric_ablated) > 1e-3
    effects = {(effect.kind, effect.index): effect for effect in measure_memory_effects(problem, quiet)}
    for (kind, index), effect in effects.items():
        mask = torch.ones(1, 1, len(zero.wiring.readers), len(zero.wiring.writers))
        mask[..., [i for i, w in enumerate(zero.wiring.writers) if (w.kind, w.block) == (kind, index)]] = 0.0
        assert effect.contribution == pytest.approx(zero.metric_clean - float(measure_masks(zero, mask)), abs=1e-4)
        assert (abs(effect.contribution - effect.renormalised) < 1e-6) == (kind is Kind.BANK)
    assert len(effects) == 3
    with pytest.raises(UserError, match="no path of inputs"):
        run(removed, "eap-ig")
    with pytest.raises(UserError, match="no memory is attached"):
        pose_problem(model, replace(inputs, attachment=Attachment()), "memory-contribution")


def test_running_out_of_memory_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of error become one sentence; any other error of the runtime surfaces as it is."""
    problem = pose("llama", [0])
    for error, wanted in (
        (torch.OutOfMemoryError("CUDA out of memory"), UserError),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), UserError),
        (RuntimeError("shapes do not match"), RuntimeError),
    ):

        def fail(*arguments: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setitem(SCORERS, "eap", fail)
        with pytest.raises(wanted, match="out of memory while scoring by EAP" if wanted is UserError else "shapes"):
            run(problem, "eap")
