"""Laws that hold for every architecture: whole graph = model, empty circuit = ablated run, EAP = first-order term."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.attribution import attribute, attribute_along_path
from circuits.graph import Kind
from circuits.masking import run_masked
from circuits.metrics import Readout, build_readout
from circuits.patching import measure_masks, measure_patches, patch_everything, patch_node
from circuits.problem import Inputs, Problem, pad_tokens, pose_problem, record_run
from probes.attachments import Attachment, stack_attachments
from probes.errors import UserError
from tests.checkpoints import SHAPES, load_shape, make_bank, make_explicit

CLEAN = torch.tensor([[0, 20, 31, 44, 52]])
OTHER = torch.tensor([[0, 20, 33, 41, 52]])

# The counterfactual on every architecture, the other ablations on two that differ most.
CASES = [(shape, "counterfactual") for shape in SHAPES] + [
    (shape, ablation) for shape in ("llama", "pythia") for ablation in ("mean", "zero")
]


def read_one(tokens: torch.Tensor, answer: int = 5, foil: int = 9) -> Readout:
    """Readout of one answer token after each row."""
    count = tokens.shape[0]
    return build_readout([tokens.shape[1]] * count, [[answer]] * count, [[foil]] * count)


def stay_quiet(label: str, done: int, total: int) -> None:
    """No progress in tests."""


def pose(shape: str, ablation: str = "counterfactual", metric: str = "logit-diff", memories: bool = True) -> Problem:
    """Problem with every kind of memory that the architecture allows, other memories on the counterfactual side."""
    model = load_shape(shape)
    attachment = other = Attachment()
    if memories:
        explicit = make_explicit(model) if model.attention is not None else None
        attachment = Attachment(explicit, make_bank(model))
        changed = explicit and replace(explicit, keys=explicit.keys.flip(2), values=explicit.values * 0.5)
        other = Attachment(changed, attachment.bank)
    return pose_problem(model, Inputs(CLEAN, OTHER, attachment, other, read_one(CLEAN)), ablation, metric)


@pytest.mark.parametrize(("shape", "ablation"), CASES)
def test_whole_graph_is_the_model(shape: str, ablation: str) -> None:
    """Keeping every edge gives the model's metric, whatever ablated edges would count as."""
    problem = pose(shape, ablation)
    whole = torch.ones(1, 1, len(problem.wiring.readers), len(problem.wiring.writers))
    assert float(measure_masks(problem, whole)) == pytest.approx(problem.metric_clean, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_empty_circuit_is_the_counterfactual_run(shape: str) -> None:
    """Ablating every edge by the counterfactual gives the model's metric on the counterfactual, memories included."""
    problem = pose(shape)
    _, logits = record_run(problem.model, OTHER, problem.inputs.counterfactual_attachment)
    assert problem.metric_ablated == pytest.approx(float(problem.metric(logits)), abs=1e-4)


@pytest.mark.parametrize(("shape", "ablation"), CASES)
def test_eap_is_the_derivative_of_the_masked_run(shape: str, ablation: str) -> None:
    """EAP equals, edge by edge, the derivative of the metric by that edge's mask in a full run with split inputs."""
    problem = pose(shape, ablation)
    wiring = problem.wiring
    mask = torch.ones(1, problem.positions, len(wiring.readers), len(wiring.writers), requires_grad=True)
    logits = run_masked(
        problem.model, problem.inputs.attachment, problem.inputs.clean, wiring.plan, mask, problem.ablated_writes
    )
    (gradient,) = torch.autograd.grad(problem.metric(logits).sum(), mask)
    brute = gradient[0].transpose(1, 2) * torch.from_numpy(wiring.visible)
    scores = attribute(problem, stay_quiet)
    assert float((scores - brute).abs().max()) <= 1e-4 * float(brute.abs().max())
    assert float(brute.abs().max()) > 1e-3


@pytest.mark.parametrize("shape", ["llama", "pythia"])
def test_eap_is_the_slope_of_exact_patching(shape: str) -> None:
    """A finite difference of the exactly patched metric agrees with EAP on the strongest edges."""
    problem = pose(shape)
    scores = attribute(problem, stay_quiet)
    step = 1e-2
    for flat in scores.abs().flatten().topk(5).indices.tolist():
        position, writer, reader = (int(i) for i in np.unravel_index(flat, tuple(scores.shape)))
        masks = torch.ones(2, problem.positions, len(problem.wiring.readers), len(problem.wiring.writers))
        masks[0, position, reader, writer] -= step
        masks[1, position, reader, writer] += step
        low, high = measure_masks(problem, masks)
        slope = float(high - low) / (2 * step)
        assert slope == pytest.approx(float(scores[position, writer, reader]), rel=0.02, abs=2e-3)


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_node_scores_are_sums_over_outgoing_edges(shape: str) -> None:
    """The gradient at a writer's output, times its difference, is the sum of its edges' scores (chain rule)."""
    problem = pose(shape, memories=False)
    scores = attribute(problem, stay_quiet)
    mask = torch.ones(1, problem.positions, 1, len(problem.wiring.writers), requires_grad=True)
    spread = mask.expand(-1, -1, len(problem.wiring.readers), -1)
    logits = run_masked(
        problem.model,
        problem.inputs.attachment,
        problem.inputs.clean,
        problem.wiring.plan,
        spread,
        problem.ablated_writes,
    )
    (gradient,) = torch.autograd.grad(problem.metric(logits).sum(), mask)
    assert torch.allclose(scores.sum(dim=2), gradient[0, :, 0], atol=1e-4 * float(gradient.abs().max()))


def test_a_run_kept_on_its_graph_gives_the_same_scores() -> None:
    """EAP from the clean run of the problem itself equals EAP from a run of its own, as often as it is asked."""
    model = load_shape("qwen3")
    attachment = Attachment(make_explicit(model), make_bank(model))
    inputs = Inputs(CLEAN, OTHER, attachment, attachment, read_one(CLEAN))
    kept, fresh = pose_problem(model, inputs, differentiable=True), pose_problem(model, inputs)
    first, again, other = attribute(kept, stay_quiet), attribute(kept, stay_quiet), attribute(fresh, stay_quiet)
    assert torch.equal(first, again)
    assert torch.allclose(first, other, atol=1e-5 * float(other.abs().max()))


def test_edges_into_the_logits_are_direct_effects() -> None:
    """Edge scores into the logits add up to the first-order effect of the whole final stream."""
    problem = pose("llama")
    scores = attribute(problem, stay_quiet)
    mask = torch.ones(1, problem.positions, len(problem.wiring.readers), len(problem.wiring.writers))
    last = torch.ones(1, requires_grad=True)
    joined = torch.cat([mask[:, :, :-1], mask[:, :, -1:] * last], dim=2)
    logits = run_masked(
        problem.model,
        problem.inputs.attachment,
        problem.inputs.clean,
        problem.wiring.plan,
        joined,
        problem.ablated_writes,
    )
    (gradient,) = torch.autograd.grad(problem.metric(logits).sum(), last)
    assert float(scores[:, :, -1].sum()) == pytest.approx(float(gradient), rel=1e-4)
    assert float(scores[:-1, :, -1].abs().max()) == 0.0


def test_exact_node_is_all_its_edges() -> None:
    """Patching a node is patching all edges out of it at once, and a single exact edge is a run of its own."""
    problem = pose("llama")
    edges, nodes = patch_everything(problem, stay_quiet)
    writer = problem.wiring.find_writer("m1")
    assert patch_node(problem, writer, 2, stay_quiet) == pytest.approx(float(nodes[2, writer]), abs=1e-5)
    reader = problem.wiring.find_reader("a2.kv1.v")
    (alone,) = measure_patches(problem, [(2, reader, writer)], stay_quiet, "edge")
    assert float(alone) == pytest.approx(float(edges[2, writer, reader]), abs=1e-5)


def test_exact_patching_of_a_node_is_replacing_its_output() -> None:
    """An MLP patched by masks equals the same model with that MLP's output overwritten by a plain hook."""
    problem = pose("llama", memories=False)
    model, writer = problem.model, problem.wiring.find_writer("m1")

    def overwrite(output: torch.Tensor, hook: object) -> torch.Tensor:
        output = output.clone()
        output[:, 3] = problem.ablated_writes[writer][:, 3]
        return output

    with torch.no_grad():
        logits = model.run(CLEAN, [("blocks.1.mlp.hook_out", overwrite)])
    drop = problem.metric_clean - float(problem.metric(logits))
    assert patch_node(problem, writer, 3, stay_quiet) == pytest.approx(drop, abs=1e-5)


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_integrated_gradients_are_complete(shape: str) -> None:
    """Along the path of inputs, the embedding's scores add up to the whole change (no memory moves here)."""
    problem = pose(shape, memories=False)
    scores = attribute_along_path(problem, 64, stay_quiet)
    embed = next(i for i, w in enumerate(problem.wiring.writers) if w.kind is Kind.EMBEDDING)
    change = problem.metric_clean - problem.metric_ablated
    assert float(scores[:, embed].sum()) == pytest.approx(change, rel=0.02, abs=0.02)


@pytest.mark.parametrize("metric", ["logit-diff", "log-prob", "prob", "kl"])
def test_exact_scores_are_drops_of_the_metric(metric: str) -> None:
    """Ablating everything at once drops the metric from clean to ablated, for every metric."""
    problem = pose("qwen3", metric=metric)
    everything = torch.zeros(1, 1, len(problem.wiring.readers), len(problem.wiring.writers))
    drop = problem.metric_clean - float(measure_masks(problem, everything))
    assert drop == pytest.approx(problem.metric_clean - problem.metric_ablated, abs=1e-5)
    assert metric != "kl" or (problem.metric_clean == pytest.approx(0, abs=1e-6) and problem.metric_ablated < 0)


def test_bad_problems_are_refused() -> None:
    """Unequal lengths, equal answer and foil, a metric that does not move, KL under EAP: one clear error each."""
    model = load_shape("llama")
    nothing = Attachment()
    with pytest.raises(UserError, match="tokens and the counterfactual"):
        pose_problem(model, Inputs(CLEAN, OTHER[:, :-1], nothing, nothing, read_one(CLEAN)))
    with pytest.raises(UserError, match="same token"):
        pose_problem(model, Inputs(CLEAN, OTHER, nothing, nothing, read_one(CLEAN, 5, 5)))
    with pytest.raises(UserError, match="does not move"):
        pose_problem(model, Inputs(CLEAN, CLEAN, nothing, nothing, read_one(CLEAN)))
    with pytest.raises(UserError, match="flat at the clean run"):
        attribute(pose("llama", metric="kl"), stay_quiet)


ROWS = [[0, 20, 31, 44, 52], [0, 22, 35], [0, 21, 30, 40]]
OTHERS = [[0, 20, 33, 41, 52], [0, 23, 35], [0, 21, 32, 43]]
ANSWERS = [[5, 6], [7], [8, 9]]
FOILS = [[9, 4], [3], [2, 9]]


def pose_rows(shape: str, rows: list[int], fill: int = 0, metric: str = "logit-diff") -> Problem:
    """Problem of some of the rows, answers taught, each row with explicit memories and bank blocks of its own."""
    model = load_shape(shape)
    taught = [[*ROWS[i], *ANSWERS[i][:-1]] for i in rows]
    other = [[*OTHERS[i], *ANSWERS[i][:-1]] for i in rows]
    attachment = stack_attachments(
        [Attachment(make_explicit(model, seed=10 + i), make_bank(model, seed=20 + i)) for i in rows]
    )
    readout = build_readout([len(ROWS[i]) for i in rows], [ANSWERS[i] for i in rows], [FOILS[i] for i in rows])
    inputs = Inputs(pad_tokens(taught, fill), pad_tokens(other, fill), attachment, attachment, readout)
    return pose_problem(model, inputs, metric=metric, summed=True)


@pytest.mark.parametrize("metric", ["logit-diff", "log-prob"])
@pytest.mark.parametrize("shape", ["llama", "pythia"])
def test_a_batch_is_the_mean_of_its_pairs(shape: str, metric: str) -> None:
    """Pairs of different lengths, answers of several tokens, own memories: scores are the mean of single runs."""
    together = attribute(pose_rows(shape, [0, 1, 2], metric=metric), stay_quiet)
    alone = torch.stack([attribute(pose_rows(shape, [row], metric=metric), stay_quiet) for row in range(3)])
    assert torch.allclose(together, alone.mean(dim=0), atol=1e-4 * float(alone.abs().max()))


def test_padding_changes_no_score() -> None:
    """Whatever fills up the shorter rows, EAP, EAP-IG and exact patching give the same numbers."""
    first, second = pose_rows("llama", [0, 1, 2], fill=0), pose_rows("llama", [0, 1, 2], fill=17)
    for method in (attribute, lambda problem, tick: attribute_along_path(problem, 2, tick)):
        a, b = method(first, stay_quiet), method(second, stay_quiet)
        assert torch.allclose(a, b, atol=1e-5 * float(a.abs().max()))
    patches = [(0, first.wiring.find_reader("m2"), first.wiring.find_writer(name)) for name in ("embed", "m0", "a1.h2")]
    a, b = (measure_patches(problem, patches, stay_quiet, "edges") for problem in (first, second))
    assert torch.allclose(a, b, atol=1e-5)


def test_summed_positions_are_the_sum_of_kept_ones() -> None:
    """One pair with positions kept adds up to the same pair with positions summed; masks act on all of them."""
    kept = pose("qwen2")
    summed = replace(kept, summed=True)
    assert torch.allclose(attribute(kept, stay_quiet).sum(dim=0), attribute(summed, stay_quiet)[0], atol=1e-4)
    writer = kept.wiring.find_writer("m1")
    everywhere = measure_patches(kept, [(slice(None), slice(None), writer)], stay_quiet, "node")
    assert patch_node(summed, writer, 0, stay_quiet) == pytest.approx(float(everywhere), abs=1e-5)


def test_answers_of_several_tokens_sum_over_their_positions() -> None:
    """The taught log-probability is the sum of the logarithms that single steps give."""
    problem = pose_rows("llama", [0], metric="log-prob")
    model, attachment = problem.model, problem.inputs.attachment
    total = 0.0
    for step, token in enumerate(ANSWERS[0]):
        _, logits = record_run(model, torch.tensor([ROWS[0] + ANSWERS[0][:step]]), attachment)
        total += float(logits[0, -1].log_softmax(-1)[token])
    assert problem.metric_clean == pytest.approx(total, abs=1e-4)
    with pytest.raises(UserError, match="compared token by token"):
        build_readout([3], [[1, 2]], [[3]])
