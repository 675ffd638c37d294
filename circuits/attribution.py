"""Edge attribution patching: first-order estimates of what every edge does, from one backward pass.

1. Run the clean prompt and its ablation; the difference of what every writer writes is known (`Problem`).
2. One backward pass of the metric gives gradients at every query, key, value, MLP and memory input, which are pulled
   back through projection and norm to the residual stream (`circuits/tracing.py`); no input is split.
3. The score of an edge is (clean - ablated write) . (gradient at the reader), at one position: the first-order drop of
   the metric when that edge alone is ablated. Positive helps the answer.

EAP (Syed et al. 2023) takes the gradient at the clean run; EAP-IG (Hanna et al. 2024, inputs) averages it over points
of the straight path of inputs (embedding and memory contents) from ablated to clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Kind
from circuits.problem import REMOVALS, Problem, Traced
from circuits.tracing import list_reader_tensors, pull_gradients
from probes.adapters import adapt_model
from probes.attachments import Attachment, interpolate
from probes.errors import UserError
from probes.forward import Pass, Record
from probes.models import Model
from probes.parts import PartsPass
from probes.progress import Tick


def contract(
    difference: Float[Tensor, "writer batch pos d_model"],
    gradients: Float[Tensor, "reader batch pos d_model"],
    problem: Problem,
) -> Float[Tensor, "group writer reader"]:
    """Products of every writer's difference with every reader's gradient, summed over the batch (and positions).

    Of a problem whose pairs stand apart, summed over positions alone, and as if each pair were the only one.
    """
    if problem.apart:
        # As views of what lies there: einsum would copy both, once a stage.
        first, second = difference.flatten(2).transpose(0, 1), gradients.flatten(2).permute(1, 2, 0)
        return torch.bmm(first, second) * problem.groups
    if problem.summed:
        return (difference.flatten(1) @ gradients.flatten(1).T).unsqueeze(0)
    return torch.einsum("wbpm,rbpm->pwr", difference, gradients)


def score_stages(problem: Problem, stages: Iterable[Tensor]) -> Float[Tensor, "group writer reader"]:
    """Scores of all edges from the gradients of all readers, in float32; edges that do not exist score 0."""
    wiring, difference = problem.wiring, problem.difference.float()
    scores = difference.new_zeros(problem.groups, len(wiring.writers), len(wiring.readers))
    reader = 0
    with torch.no_grad():
        for gradients in stages:
            stop = reader + gradients.shape[0]
            writers = int(wiring.visible[:, reader].sum())
            scores[:, :writers, reader:stop] = contract(difference[:writers], gradients.float(), problem)
            reader = stop
    return scores


def trace_metric(problem: Problem, attachment: Attachment, embedding: Tensor | None, parts: bool = False) -> Traced:
    """A run with these inputs on its autograd graph, with the metric at its end; `parts` records units too."""
    ends = problem.inputs.readout.positions
    kind = PartsPass if parts else Pass
    model = adapt_model(problem.model, attachment)
    traced = kind(model, attachment, embedding=embedding, differentiable=True, ends=ends)
    logits = traced.run(problem.inputs.clean)
    with torch.enable_grad():
        return Traced(traced.record, problem.metric_at_ends(logits).mean(), model)


def find_gradients(problem: Problem, traced: Traced) -> Iterator[Tensor]:
    """Gradients of the metric at every reader's stream of a traced run, stage by stage."""
    keep = traced is problem.traced
    gradients = torch.autograd.grad(traced.value, list_reader_tensors(traced.model, traced.record), retain_graph=keep)
    return pull_gradients(traced.model, traced.record, gradients)


def list_embeddings(problem: Problem) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, "batch pos d_model"]]:
    """What the embedding writes on the clean prompts, and what it counts as when ablated."""
    index = next(i for i, writer in enumerate(problem.wiring.writers) if writer.kind is Kind.EMBEDDING)
    clean = problem.clean_record.embedding
    assert clean is not None
    clean = clean.detach()
    if problem.ablated_record is None:
        return clean, problem.ablated_writes[index].to(clean.dtype).expand_as(clean)
    assert problem.ablated_record.embedding is not None
    return clean, problem.ablated_record.embedding


def refuse_flat(problem: Problem) -> None:
    """Raise UserError for a metric whose gradient is 0 at the clean run (KL): every score there would be 0."""
    if problem.metric_name == "kl":
        raise UserError("KL is flat at the clean run, so every score would be 0: use --method eap-ig or exact")


def attribute(problem: Problem, tick: Tick) -> Float[Tensor, "pos writer reader"]:
    """EAP: scores with the gradient at the clean run. Raises UserError for a metric that is flat there (KL)."""
    refuse_flat(problem)
    tick("backward pass", 0, 1)
    traced = problem.traced or trace_metric(problem, problem.inputs.attachment, None)
    return score_stages(problem, find_gradients(problem, traced))


def attribute_along_path(problem: Problem, steps: int, tick: Tick) -> Float[Tensor, "pos writer reader"]:
    """EAP-IG on inputs: scores with the gradient averaged over `steps` midpoints of the path of inputs.

    The path leads from the ablated embedding and memory contents to the clean ones; with mean or zero ablation the
    memories keep their contents and only the embedding moves. Raises UserError where no straight path leads from the
    one to the other: memories that are removed from the softmax are there or not.
    """
    if REMOVALS.get(problem.ablation):
        raise UserError(
            f"no path of inputs leads to the ablation {problem.ablation}: use --method eap-ig-activations, or "
            "--ablation memory-contribution"
        )
    clean, ablated = list_embeddings(problem)
    total: Tensor | None = None
    for step in range(steps):
        tick("integrated gradient", step, steps)
        share = (step + 0.5) / steps
        attachment = interpolate(problem.inputs.counterfactual_attachment, problem.inputs.attachment, share)
        embedding = torch.lerp(ablated, clean, share)
        scores = score_stages(problem, find_gradients(problem, trace_metric(problem, attachment, embedding)))
        total = scores if total is None else total + scores
    assert total is not None
    return total / steps


def list_written_streams(model: Model, record: Record) -> list[list[Tensor]]:
    """For each layer the stream into which its attention and its MLP write: the next one that a reader takes in."""
    assert record.final_stream is not None
    after = [*(record.attention_stream[layer] for layer in range(1, model.layers)), record.final_stream]
    return [[stream if model.parallel else record.mlp_stream[i], stream] for i, stream in enumerate(after)]


def attribute_nodes(problem: Problem, tick: Tick) -> Float[Tensor, "pos writer"]:
    """Attribution patching of nodes (AtP): gradient at each writer's output times what the writer would lose.

    All writers of a stage share one gradient, that of the stream they write into, which holds every later reader's; so
    the score is the sum of the writer's outgoing EAP edges, at the cost of no edge. Raises UserError for KL.
    """
    refuse_flat(problem)
    tick("backward pass", 0, 1)
    traced = problem.traced or trace_metric(problem, problem.inputs.attachment, None)
    record = traced.record
    streams = list_written_streams(problem.model, record)
    flat = [record.attention_stream[0], *(stream for pair in streams for stream in pair)]
    gradients = torch.autograd.grad(traced.value, flat, retain_graph=traced is problem.traced)
    stages = [0 if w.layer < 0 else 1 + 2 * w.layer + (w.kind in (Kind.MLP, Kind.BANK)) for w in problem.wiring.writers]
    with torch.no_grad():
        scores = torch.stack(
            [(problem.difference[w].float() * gradients[stage]).sum(dim=(0, 2)) for w, stage in enumerate(stages)],
            dim=1,
        )
    return scores.sum(dim=0, keepdim=True) if problem.summed else scores
