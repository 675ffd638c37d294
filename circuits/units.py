"""Attribution to FFN units, bank units and memory slots, from the backward pass that scores the edges.

A part writes `factor x direction` (`circuits/activity.py`), so its first-order score for a reader is
`(clean - ablated factor) . (direction . gradient at the reader)`: one product of the gradient with the directions,
never a write a unit. For all readers together the gradient is that at what the half layer adds to the stream, and for
an MLP without a norm after it the backward pass has already multiplied it with the directions, on its way through the
down projection.

Scores of a writer's parts add up to the writer's own, as node and as edge; the down projection's bias is no unit's and
cancels under counterfactual and mean ablation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.activity import sum_reads
from circuits.attribution import list_written_streams, refuse_flat, score_stages, trace_metric
from circuits.circuit import UNITS
from circuits.graph import Component, Kind
from circuits.parts import PartScores, PartTable, Removal
from circuits.problem import Problem, Traced
from circuits.tracing import list_reader_tensors, pull_gradients
from probes.attachments import Attachment, BankBlocks
from probes.norms import Norm
from probes.progress import Tick


@dataclass(frozen=True, slots=True)
class Slopes:
    """Gradients of the metric at the stream into which each layer's attention and MLP write [batch pos d_model].

    For one reader the same gradient in every layer that it sees. `units` [batch pos unit] holds the gradients at the
    activations themselves where the backward pass gave them.
    """

    attention: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)
    units: dict[int, Tensor] = field(default_factory=dict)


def add_rows(problem: Problem, scores: Float[Tensor, "batch pos *part"]) -> Float[Tensor, "*pos_and_part"]:
    """Sum over the pairs (the metric is their mean already), and over positions where those are summed."""
    return scores.sum(dim=(0, 1)).unsqueeze(0) if problem.summed else scores.sum(dim=0)


def freeze(norm: Norm | None, gradient: Tensor) -> Tensor:
    """Gradient before a norm after attention or MLP, taken as linear at scale 1."""
    return gradient if norm is None else norm.pull_back_frozen(gradient)


def score_units(problem: Problem, layer: int, slopes: Slopes) -> Float[Tensor, "pos unit"]:
    """Scores of the units of one layer's MLP; only positions at which there is a gradient are multiplied."""
    weights, ablated = problem.model.weights[layer], problem.ablated_activity
    assert weights.down is not None
    factor = problem.clean_activity.units[layer]
    if ablated is not None:
        factor = factor - ablated.units[layer]
    if layer in slopes.units:
        return add_rows(problem, factor * slopes.units[layer])
    gradient = freeze(weights.post_mlp_norm, slopes.mlp[layer])
    reached = gradient.ne(0).any(dim=2).any(dim=0).nonzero().flatten()
    scores = torch.zeros_like(factor)
    scores[:, reached] = factor[:, reached] * (gradient[:, reached] @ weights.down.T)
    return add_rows(problem, scores)


def score_bank_units(problem: Problem, layer: int, level: int, slopes: Slopes) -> Float[Tensor, "pos unit"]:
    """Scores of the units of one bank block; the ablated run may have other blocks, with other directions."""
    clean, ablated = problem.inputs.attachment.bank, problem.inputs.counterfactual_attachment.bank
    assert clean is not None and ablated is not None
    gradient = freeze(problem.model.weights[layer].post_mlp_norm, slopes.mlp[layer])

    def project(blocks: BankBlocks) -> Tensor:
        return gradient @ blocks.pick("down", level, layer).to(gradient.dtype).transpose(-1, -2)

    scores = problem.clean_activity.bank[layer][level] * project(clean)
    if problem.ablated_activity is not None:
        scores = scores - problem.ablated_activity.bank[layer][level] * project(ablated)
    return add_rows(problem, scores)


def pull_heads(
    problem: Problem, layer: int, gradient: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch pos head d_head"]:
    """Gradients at what a layer's heads read, given the gradient at what its attention adds to the stream."""
    weights = problem.model.weights[layer]
    return torch.einsum("bpm,hdm->bphd", freeze(weights.post_attention_norm, gradient), weights.output)


def meet_values(
    attachment: Attachment, layer: int, heads: Float[Tensor, "batch pos head d_head"]
) -> Float[Tensor, "batch pos head block slot"]:
    """Products of every slot's value with the gradient at what a head reads."""
    explicit = attachment.explicit
    assert explicit is not None
    values = explicit.values[:, explicit.layers.index(layer)].to(heads.dtype)
    values = values.expand(heads.shape[0], *values.shape[1:]).repeat_interleave(
        heads.shape[2] // values.shape[2], dim=2
    )
    return torch.einsum("bphd,bnhsd->bphns", heads, values)


def score_slots(problem: Problem, layer: int, slopes: Slopes, removal: Removal) -> Float[Tensor, "pos head block slot"]:
    """Scores of the slots of all blocks, as each head of a memory layer reads them, under one way of removal.

    Renormalised removal of a slot of weight w and value v takes `w / (1 - w) * (v - z)` from a head that reads z in
    all, exactly; only what follows the head is taken to first order.
    """
    inputs, record, clean = problem.inputs, problem.clean_record, problem.clean_activity.slots[layer]
    heads = pull_heads(problem, layer, slopes.attention[layer])
    met = meet_values(inputs.attachment, layer, heads)
    if removal == "renormalised":
        read = (sum_reads(record, layer) * heads).sum(dim=-1)
        weight = record.slot_weights[layer].detach()
        return add_rows(problem, clean / (1 - weight) * (met - read[..., None, None]))
    scores = clean * met
    if removal == "ablated" and problem.ablated_activity is not None:
        scores = scores - problem.ablated_activity.slots[layer] * meet_values(
            inputs.counterfactual_attachment, layer, heads
        )
    return add_rows(problem, scores)


def score_parts(problem: Problem, slopes: Slopes, reader: str, removal: Removal) -> Iterator[PartScores]:
    """Scores of all parts that the slopes reach, writer by writer."""
    activity = problem.clean_activity

    def rest(whole: Component, scores: Tensor) -> PartScores:
        return PartScores(whole, reader, scores.detach().float().cpu().numpy())

    for layer in range(problem.model.layers):
        if layer in activity.slots and layer in slopes.attention:
            scores = score_slots(problem, layer, slopes, removal)
            for head in range(scores.shape[1]):
                for block in range(scores.shape[2]):
                    yield rest(Component(Kind.EXPLICIT, layer, head, block), scores[:, head, block])
        if layer in activity.units and (layer in slopes.mlp or layer in slopes.units):
            yield rest(Component(Kind.MLP, layer), score_units(problem, layer, slopes))
        if layer in activity.bank and layer in slopes.mlp:
            for level in range(len(activity.bank[layer])):
                whole = Component(Kind.BANK, layer, block=level)
                yield rest(whole, score_bank_units(problem, layer, level, slopes))


def trace_parts(problem: Problem) -> Traced:
    """The clean run on its autograd graph with its parts recorded; the problem's own where it was kept."""
    return problem.traced or trace_metric(problem, problem.inputs.attachment, None, parts=True)


def find_slopes(problem: Problem, traced: Traced) -> tuple[list[Tensor], Slopes]:
    """Gradients at the readers' tensors (for `pull_gradients`) and slopes for all readers together, in one pass.

    Gradients that would not be used are not asked for: attention's only in memory layers, an MLP's only where a bank
    block or a norm stands beside or after it.
    """
    model, record = problem.model, traced.record
    attention = [layer for layer in range(model.layers) if layer in record.slot_weights]
    plain = [layer for layer in record.units if model.weights[layer].post_mlp_norm is None]
    mlp = [layer for layer in range(model.layers) if layer in record.bank_units or layer not in plain]
    readers, streams = list_reader_tensors(model, record), list_written_streams(model, record)
    tensors = [
        *readers,
        *(streams[layer][0] for layer in attention),
        *(streams[layer][1] for layer in mlp),
        *(record.units[layer] for layer in plain),
    ]
    keep = traced is problem.traced
    found = iter(torch.autograd.grad(traced.value, tensors, retain_graph=keep))
    gradients = [next(found) for _ in readers]
    return gradients, Slopes(
        attention={layer: next(found) for layer in attention},
        mlp={layer: next(found) for layer in mlp},
        units={layer: next(found) for layer in plain},
    )


def keep_gradients(stages: Iterator[Tensor], kept: dict[int, Tensor]) -> Iterator[Tensor]:
    """The same stages; the gradients at the readers whose indices are keys of `kept` are noted there."""
    first = 0
    for stage in stages:
        for reader in kept:
            if first <= reader < first + stage.shape[0]:
                # Pulled back in float32; parts are multiplied in the model's own dtype.
                kept[reader] = stage[reader - first].to(kept[reader].dtype, copy=True)
        yield stage
        first += stage.shape[0]


def spread(problem: Problem, reader: int, gradient: Float[Tensor, "batch pos d_model"]) -> Slopes:
    """Slopes for one reader: its gradient, in every layer whose writers it sees."""
    visible = problem.wiring.visible[:, reader]
    seen = [writer for writer, sees in zip(problem.wiring.writers, visible, strict=True) if sees]
    return Slopes(
        attention={writer.layer: gradient for writer in seen if writer.kind is Kind.EXPLICIT},
        mlp={writer.layer: gradient for writer in seen if writer.kind is Kind.MLP},
    )


def attribute_parts(
    problem: Problem, tick: Tick, readers: Sequence[str] = ("logits",), removal: Removal = "ablated"
) -> tuple[Float[Tensor, "pos writer reader"], PartTable]:
    """EAP of every edge, and of every FFN unit, bank unit and memory slot as a node and into `readers`, together.

    One backward pass at the clean run. The problem must have been posed with `parts`. Raises UserError for a reader
    that the model does not have, and for a metric that is flat there (KL).
    """
    kept = {problem.wiring.find_reader(name): problem.model.final_norm.weight.new_empty(0) for name in readers}
    refuse_flat(problem)
    tick("backward pass", 0, 1)
    traced = trace_parts(problem)
    gradients, slopes = find_slopes(problem, traced)
    edges = score_stages(problem, keep_gradients(pull_gradients(problem.model, traced.record, gradients), kept))
    with torch.no_grad():
        scores = list(score_parts(problem, slopes, "", removal))
        for (reader, gradient), name in zip(kept.items(), readers, strict=True):
            scores += score_parts(problem, spread(problem, reader, gradient), name, removal)
    about = problem.ablation, problem.metric_name, UNITS[problem.metric_name]
    return edges, PartTable(tuple(scores), removal, "eap", *about)
