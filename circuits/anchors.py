"""The run with nothing attached: what heads, FFN units and embedding bring to the answer by themselves.

It is one of the combinations that a ledger runs (`circuits/coalitions.py`), and is read off that one where a memory
that is off leaves no trace; where memories keep their attention it is a run of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.activity import measure_activity
from circuits.attribution import list_written_streams
from circuits.graph import Kind, Plan, wire
from circuits.metrics import Readout, build_metric
from circuits.tracing import plan_model, stack_writes
from probes.attachments import NOTHING
from probes.forward import Record
from probes.models import Hook, Model
from probes.parts import PartsPass


@dataclass(frozen=True, slots=True)
class Anchor:
    """The run with nothing attached: its metric, and what its heads, FFN units and embedding bring to it.

    `direct` [row part] is a part's own write into the logits at the norm's scale, to first order in the logits: for a
    difference of logits exact. `effect` is the first-order drop of the metric when the part counts as zero everywhere;
    effects of parts that feed each other overlap.
    """

    value: Float[np.ndarray, " row"]
    components: tuple[str, ...]
    direct: Float[np.ndarray, "row part"]
    effect: Float[np.ndarray, "row part"]


class LedgerPass(PartsPass):
    """A pass of parts that also keeps what the unembedding reads, `normed` [batch pos d_model]."""

    normed: Tensor | None = None

    def list_end_hooks(self) -> list[Hook]:
        """Hooks after the last layer; the unembedding's input is seen before positions are picked."""
        hooks = super().list_end_hooks()
        return [hooks[0], ("unembed.hook_in", self._see_normed), *hooks[1:]]

    def _see_normed(self, normed: Tensor, hook: object) -> None:
        self.normed = normed


def list_anchor_tensors(model: Model, whole: LedgerPass) -> list[Tensor]:
    """Tensors of a pass at which `read_anchor` takes gradients: the stream after every write, and the normed one."""
    assert whole.record.embedding is not None and whole.normed is not None
    streams = list_written_streams(model, whole.record)
    return [whole.record.embedding, *(stream for pair in streams for stream in pair), whole.normed]


def keep_bare(record: Record, rows: int) -> Record:
    """The first rows of a record, in which nothing attached has a part, without what memories read and wrote."""
    assert record.embedding is not None and record.final_stream is not None

    def take(tensors: dict[int, Tensor]) -> dict[int, Tensor]:
        return {layer: tensor[:rows] for layer, tensor in tensors.items()}

    return Record(
        embedding=record.embedding[:rows],
        final_stream=record.final_stream[:rows],
        context_read=take(record.context_read),
        mlp_output=take(record.mlp_output),
        expert_output={layer: [one[:rows] for one in parts] for layer, parts in record.expert_output.items()},
        bank_output={layer: [] for layer in record.bank_output},
        units=take(record.units),
    )


def read_anchor(model: Model, record: Record, values: Float[np.ndarray, " row"], gradients: Sequence[Tensor]) -> Anchor:
    """Anchor of a run with nothing attached, given the gradients of its metric at `list_anchor_tensors`."""
    *total, last = gradients
    norm = model.final_norm
    assert record.final_stream is not None
    with torch.no_grad():
        frozen = norm.pull_back_frozen(last) / norm.measure(record.final_stream)[1]
        writes, wiring = stack_writes(model, record), wire(plan_model(model, NOTHING))
        activity = measure_activity(model, record)
        direct, effect = list[Tensor](), list[Tensor]()
        for writer, written in zip(wiring.writers, writes, strict=True):
            stage = 0 if writer.layer < 0 else 1 + 2 * writer.layer + (writer.kind is Kind.MLP)
            weights = model.weights[max(writer.layer, 0)]
            slopes = frozen, total[stage]
            if writer.kind is Kind.MLP and writer.block < 0 and weights.down is not None:
                fired = activity.units[writer.layer]
                found = [(fired * project_down(model, writer.layer, slope)).sum(dim=1) for slope in slopes]
            else:
                found = [(written * slope).sum(dim=(1, 2)).unsqueeze(1) for slope in slopes]
            direct.append(found[0])
            effect.append(found[1])
    stacked = (torch.cat(parts, dim=1).double().cpu().numpy() for parts in (direct, effect))
    units = tuple(activity.units[layer].shape[-1] if layer in activity.units else 0 for layer in range(model.layers))
    return Anchor(values, name_anchor(wiring.plan, units), *stacked)


@lru_cache(maxsize=64)
def name_anchor(plan: Plan, units: tuple[int, ...]) -> tuple[str, ...]:
    """Names of an anchor's parts, given how many units the MLP of each layer has (0: it is one part)."""
    names = list[str]()
    for writer in wire(plan).writers:
        whole = writer.kind is not Kind.MLP or writer.block >= 0 or not units[writer.layer]
        names += [writer.name] if whole else [replace(writer, part=unit).name for unit in range(units[writer.layer])]
    return tuple(names)


def run_anchor(model: Model, tokens: Int[Tensor, "row pos"], readout: Readout, metric: str) -> Anchor:
    """The prompts run with nothing attached, and what each part of the model brings."""
    whole = LedgerPass(model, NOTHING, differentiable=True, ends=readout.positions)
    logits = whole.run(tokens)
    with torch.enable_grad():
        values = build_metric(metric, readout.keep_steps(), logits)(logits)
    gradients = torch.autograd.grad(values.sum(), list_anchor_tensors(model, whole))
    return read_anchor(model, whole.record, values.detach().double().cpu().numpy(), gradients)


def project_down(model: Model, layer: int, gradient: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos unit"]:
    """Gradient at the activations of a layer's units, given that at what its MLP adds to the stream."""
    weights = model.weights[layer]
    assert weights.down is not None
    norm = weights.post_mlp_norm
    return (gradient if norm is None else norm.pull_back_frozen(gradient)) @ weights.down.T
