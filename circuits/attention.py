"""Attention edges: what each head brings from one source position to one destination, and what removing that does.

Yang et al. 2024 (Memory^3), section 2.2, definition 1: an edge from position i to j through head h, weighted by the
drop of the metric without it, or by the derivative of the metric by its attention weight. A head writes
`sum over sources of weight x value` through its output projection, so with g the gradient at what the head reads, an
edge's derivative is `value . g`, its first-order effect `weight x value . g`; no edge's write is ever formed. The
weights are those of one softmax over context and explicit memories.

Law: with `ablated` under counterfactual ablation, and with `contribution` under zero ablation, the sum over a head's
sources at one destination is the head's node score there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.activity import measure_attention_scale, sum_reads
from circuits.attribution import list_written_streams, refuse_flat, trace_metric
from circuits.circuit import UNITS
from circuits.graph import Component, Kind
from circuits.parts import Removal
from circuits.problem import Problem
from circuits.removal import direct, run_removals
from circuits.units import pull_heads
from probes.errors import UserError
from probes.forward import Record
from probes.progress import Tick

# A head that leaves less than this to everything else reads nothing once the edge is gone: there is no share to spread.
SMALLEST_REST = 1e-6

# Layer, head, destination (query position), source (key position).
AttentionEdge = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class AttentionScores:
    """Effects of all attention edges, summed over the pairs of a problem; later sources score 0.

    `edges` is the first-order drop of the metric without the edge, `slopes` the derivative of the metric by the edge's
    attention weight (in `unit` a unit of weight; behind a norm after attention, at the norm's clean scale). Positive
    helps the answer. `removal` says what takes the edge's place: its counterfactual (`ablated`), nothing
    (`contribution`), or the head's other sources, which share out its weight (`renormalised`).
    """

    edges: Float[np.ndarray, "layer head query_pos key_pos"]
    slopes: Float[np.ndarray, "layer head query_pos key_pos"]
    removal: Removal
    ablation: str
    metric: str
    unit: str


def spread_values(problem: Problem, record: Record, layer: int) -> Float[Tensor, "batch pos head d_head"]:
    """Values of the context as each head reads them."""
    return record.value[layer].detach().repeat_interleave(problem.model.heads // problem.model.kv_heads, dim=2)


def weigh_sources(record: Record, layer: int) -> Float[Tensor, "batch head query_pos key_pos"]:
    """Attention weights of the context, memories' share taken off."""
    pattern = record.pattern[layer].detach()
    return pattern * record.share[layer].detach().transpose(1, 2).unsqueeze(-1) if layer in record.share else pattern


def meet_sources(
    problem: Problem, record: Record, layer: int, heads: Float[Tensor, "batch pos head d_head"]
) -> Float[Tensor, "batch head query_pos key_pos"]:
    """Derivatives by attention weight: products of each source's value with the gradient at what the head reads."""
    met = torch.einsum("bqhd,bkhd->bhqk", heads, spread_values(problem, record, layer))
    scale = measure_attention_scale(problem.model, record, layer)
    return (met if scale is None else met / scale.unsqueeze(1)).tril()


def score_attention(
    problem: Problem, layer: int, gradient: Float[Tensor, "batch pos d_model"], removal: Removal
) -> tuple[Tensor, Tensor]:
    """Effects and derivatives [head query_pos key_pos] of one layer's edges, given the gradient at its write."""
    record, ablated = problem.clean_record, problem.ablated_record
    heads = pull_heads(problem, layer, gradient)
    met, weight = meet_sources(problem, record, layer, heads), weigh_sources(record, layer)
    scores = weight * met
    if removal == "renormalised":
        read = (sum_reads(record, layer) * heads).sum(dim=-1).transpose(1, 2).unsqueeze(-1)
        scale = measure_attention_scale(problem.model, record, layer)
        read = read if scale is None else read / scale.unsqueeze(1)
        rest = 1 - weight
        scores = torch.where(rest > SMALLEST_REST, weight * (met - read) / rest.clamp_min(SMALLEST_REST), scores)
    if removal == "ablated" and ablated is not None:
        scores = scores - weigh_sources(ablated, layer) * meet_sources(problem, ablated, layer, heads)
    return scores.sum(dim=0), met.sum(dim=0)


def require_replacement(problem: Problem, removal: Removal) -> None:
    """Raise UserError for `ablated` under mean ablation: there is no mean edge between two positions."""
    if removal == "ablated" and problem.mean is not None:
        raise UserError(
            "mean ablation gives an attention edge no replacement: choose contribution or renormalised removal, or "
            "counterfactual ablation"
        )


def attribute_attention(
    problem: Problem, tick: Tick, removals: Sequence[Removal] = ("contribution",)
) -> tuple[AttentionScores, ...]:
    """First-order effect of every attention edge under each of the removals, from one backward pass at the clean run.

    The problem must have been posed with `attention` and `parts`. Raises UserError for a metric that is flat there
    (KL), and for a removal that the ablation does not define.
    """
    refuse_flat(problem)
    for removal in removals:
        require_replacement(problem, removal)
        if removal == "ablated" and problem.ablated_record is not None:
            problem.require_same_outputs()
    tick("backward pass", 0, 1)
    traced = problem.traced or trace_metric(problem, problem.inputs.attachment, None)
    streams = [pair[0] for pair in list_written_streams(problem.model, traced.record)]
    gradients = torch.autograd.grad(traced.value, streams, retain_graph=traced is problem.traced)
    about = problem.ablation, problem.metric_name, UNITS[problem.metric_name]
    found = []
    for removal in removals:
        with torch.no_grad():
            layers = [score_attention(problem, layer, gradient, removal) for layer, gradient in enumerate(gradients)]
        edges, slopes = (torch.stack(part).float().cpu().numpy() for part in zip(*layers, strict=True))
        found.append(AttentionScores(edges, slopes, removal, *about))
    return tuple(found)


def lose_edge(problem: Problem, edge: AttentionEdge, removal: Removal) -> Float[Tensor, "batch pos d_model"]:
    """What the stream loses at the destination with one attention edge."""
    model, record, ablated = problem.model, problem.clean_record, problem.ablated_record
    layer, head, query, key = edge
    weights = model.weights[layer]

    def write(record: Record, read: Float[Tensor, "batch d_head"]) -> Float[Tensor, "batch d_model"]:
        scale = measure_attention_scale(model, record, layer)
        written = direct(weights.post_attention_norm, read @ weights.output[head])
        return written if scale is None else written / scale[:, query]

    def bring(record: Record) -> tuple[Tensor, Tensor]:
        weight = weigh_sources(record, layer)[:, head, query, key].unsqueeze(-1)
        return weight, spread_values(problem, record, layer)[:, key, head]

    weight, value = bring(record)
    read = weight * value
    rest = 1 - weight
    if removal == "renormalised":
        whole = sum_reads(record, layer)[:, query, head]
        read = torch.where(rest > SMALLEST_REST, weight * (value - whole) / rest.clamp_min(SMALLEST_REST), read)
    loss = write(record, read)
    if removal == "ablated" and ablated is not None:
        weight, value = bring(ablated)
        loss = loss - write(ablated, weight * value)
    spread = loss.new_zeros(loss.shape[0], problem.inputs.clean.shape[1], loss.shape[1])
    spread[:, query] = loss
    return spread


def remove_attention(
    problem: Problem,
    edges: Sequence[AttentionEdge],
    tick: Tick,
    removal: Removal = "contribution",
    strength: float = 1.0,
) -> Float[Tensor, " edge"]:
    """Exact drop of the metric, clean minus without, for each attention edge alone, one pass an edge.

    `strength` is the share of the edge that is taken away. Raises UserError for an edge that the model does not have,
    and for a removal that the ablation does not define.
    """
    require_replacement(problem, removal)
    losses: list[tuple[Component, Tensor]] = []
    for edge in edges:
        layer, head, query, key = edge
        if not (0 <= layer < problem.model.layers and 0 <= head < problem.model.heads):
            raise UserError(f"no head {head} in layer {layer}: the model has {problem.model.heads} in each layer")
        if not 0 <= key <= query < problem.inputs.clean.shape[1]:
            raise UserError(f"no attention from position {key} to {query}: sources stand before destinations")
        with torch.no_grad():
            losses.append((Component(Kind.HEAD, layer, head), strength * lose_edge(problem, edge, removal)))
    return run_removals(problem, losses, None, tick, "attention edges removed")
