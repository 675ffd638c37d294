"""Integrated gradients over activations: EAP-IG with each stage of writers moved on its own.

For one stage at a time (the embedding, the heads and memory reads of a layer, its MLP and bank blocks; a whole layer
of a parallel model) the clean run is repeated with what that stage writes moved from ablated to clean along a straight
line. The score of an edge is its writer's difference times the gradient at the reader, averaged over the midpoints of
its own writer's path. By the fundamental theorem of calculus a stage's scores add up to the exact drop of the metric
when the whole stage is ablated.

Source: Hanna et al. 2024, EAP-IG over activations, as in the MIB benchmark (Mueller et al. 2025). Their code averages
the gradient at a reader over the paths of *all* stages and uses it for every writer; here each edge has the gradient
of its own writer's path alone, which is what makes the sums complete.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution import contract, find_gradients
from circuits.graph import Component, Kind
from circuits.methods import list_stages
from circuits.problem import Problem, Traced
from probes.attachments import Attachment
from probes.forward import Pass
from probes.models import Hook, Model, name_hook
from probes.progress import Tick


class ShiftedPass(Pass):
    """A differentiable pass in which something is added to the stream just behind one stage of writers.

    `behind` is a writer of that stage. The addition is made at the next norm's input, and once more where the stream
    itself goes on, past the branch that this norm feeds.
    """

    def __init__(
        self,
        model: Model,
        attachment: Attachment,
        behind: Component,
        shift: Float[Tensor, "batch pos d_model"],
        ends: Int[Tensor, "row step"] | None = None,
    ) -> None:
        super().__init__(model, attachment, differentiable=True, ends=ends)
        self.shift = shift
        after = "ln_final.hook_in" if behind.layer == model.layers - 1 else name_hook(behind.layer + 1, "hook_in")
        within_layer = behind.kind not in (Kind.EMBEDDING, Kind.MLP, Kind.BANK) and not model.parallel
        self.points = [name_hook(behind.layer, "ln2.hook_in"), after] if within_layer else [after]

    def list_hooks(self) -> list[Hook]:
        """The hooks of a pass, after those that add: what is recorded is the shifted stream."""
        return [*((point, self._add) for point in self.points), *super().list_hooks()]

    def _add(self, stream: Tensor, hook: Any) -> Tensor:
        return stream + self.shift.to(stream.dtype)


def trace_shifted(problem: Problem, stage: range, share: float) -> Traced:
    """The clean run with what a stage writes at `share` of the way from ablated (0) to clean (1), on its graph."""
    shift = problem.difference[stage.start : stage.stop].sum(dim=0) * (share - 1.0)
    inputs, behind = problem.inputs, problem.wiring.writers[stage.start]
    traced = ShiftedPass(problem.model, inputs.attachment, behind, shift, inputs.readout.positions)
    logits = traced.run(inputs.clean)
    with torch.enable_grad():
        return Traced(traced.record, problem.metric_at_ends(logits).mean(), problem.model)


def score_stage(problem: Problem, stage: range, traced: Traced) -> Float[Tensor, "group writer reader"]:
    """Products of a stage's differences with the gradients of all readers; readers that do not see it get 0."""
    wiring, difference = problem.wiring, problem.difference[stage.start : stage.stop].float()
    scores = difference.new_zeros(problem.groups, len(stage), len(wiring.readers))
    reader = 0
    for gradients in find_gradients(problem, traced):
        stop = reader + gradients.shape[0]
        if wiring.visible[stage.start, reader]:
            with torch.no_grad():
                scores[:, :, reader:stop] = contract(difference, gradients, problem)
        reader = stop
    return scores


def attribute_along_stages(problem: Problem, steps: int, tick: Tick) -> Float[Tensor, "pos writer reader"]:
    """EAP-IG over activations: each edge's gradient averaged over `steps` midpoints of its own writer's path."""
    stages = list_stages(problem.wiring)
    rows = []
    for index, stage in enumerate(stages):
        total: Tensor | None = None
        for step in range(steps):
            tick("integrated gradient", index * steps + step, len(stages) * steps)
            scores = score_stage(problem, stage, trace_shifted(problem, stage, (step + 0.5) / steps))
            total = scores if total is None else total + scores
        assert total is not None
        rows.append(total / steps)
    return torch.cat(rows, dim=1)
