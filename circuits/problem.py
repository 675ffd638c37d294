"""What is to be explained: a clean input, what ablated components count as, and the metric between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.graph import Wiring, wire
from circuits.metrics import Metric, Target, build_metric, read_last
from circuits.tracing import plan_model, stack_writes
from probes.attachments import Attachment
from probes.errors import UserError
from probes.forward import Pass, Record
from probes.models import Model

# A metric that moves less than this from clean to ablated gives no scale to any score (float32 noise of logits).
SMALLEST_CHANGE = 1e-4


@dataclass(frozen=True, slots=True)
class Problem:
    """One prompt pair on one model with its memories, ready for any method.

    `clean` [1, pos] are token ids; `attachment` the memories of the clean run and `ablated_attachment` those of the
    counterfactual. `clean_writes` and `ablated_writes` [writer, 1, pos, d_model] are what every writer writes, and
    counts as when ablated. `metric_clean` is the metric of the model, `metric_ablated` with every edge ablated.
    """

    model: Model
    wiring: Wiring
    clean: Int[Tensor, "1 pos"]
    attachment: Attachment
    ablated_attachment: Attachment
    clean_writes: Float[Tensor, "writer 1 pos d_model"]
    ablated_writes: Float[Tensor, "writer 1 pos2 d_model"]
    metric: Metric
    ablation: str
    metric_name: str
    metric_clean: float
    metric_ablated: float

    @property
    def positions(self) -> int:
        """Length of the prompt in tokens."""
        return int(self.clean.shape[1])

    @property
    def difference(self) -> Float[Tensor, "writer 1 pos d_model"]:
        """Clean minus ablated writes: what each writer would lose."""
        return self.clean_writes - self.ablated_writes


@dataclass(frozen=True, slots=True)
class Inputs:
    """Token ids of the clean prompt and of its counterfactual, with the memories of each."""

    clean: Int[Tensor, "1 pos"]
    counterfactual: Int[Tensor, "1 other_pos"]
    attachment: Attachment
    counterfactual_attachment: Attachment


def record_run(
    model: Model, tokens: Int[Tensor, "batch pos"], attachment: Attachment, attention: bool = False
) -> tuple[Record, Float[Tensor, "batch d_vocab"]]:
    """Record of a plain pass and its logits at the last position."""
    whole = Pass(model, attachment, attention=attention)
    logits = read_last(whole.run(tokens))
    return whole.record, logits


def ablate_writes(
    model: Model, inputs: Inputs, ablation: str, references: list[Int[Tensor, "1 pos"]], clean: Tensor
) -> Float[Tensor, "writer 1 pos2 d_model"]:
    """What every writer counts as when ablated.

    `counterfactual`: what it writes on the counterfactual prompt. `mean`: its mean over the reference prompts and
    their positions, the first one left out (attention sinks there). `zero`: zero.
    """
    if ablation == "zero":
        return torch.zeros_like(clean[:, :, :1])
    if ablation == "counterfactual":
        record, _ = record_run(model, inputs.counterfactual, inputs.counterfactual_attachment)
        return stack_writes(model, record)
    total, count = torch.zeros_like(clean[:, :, :1]), 0
    for tokens in references:
        record, _ = record_run(model, tokens, inputs.attachment)
        writes = stack_writes(model, record)[:, :, 1:]
        total += writes.sum(dim=2, keepdim=True)
        count += writes.shape[2]
    if not count:
        raise UserError("mean ablation needs reference prompts of two tokens or more: use counterfactual or zero")
    return total / count


def pose_problem(
    model: Model,
    inputs: Inputs,
    target: Target,
    ablation: str = "counterfactual",
    metric: str = "logit-diff",
    references: list[Int[Tensor, "1 pos"]] | None = None,
) -> Problem:
    """Run clean and ablated once and set up the metric.

    Raises UserError for prompts of unequal length, an answer equal to the foil, activations that are not finite, and
    a metric that does not move between the clean and the ablated run.
    """
    check_inputs(inputs, target, metric)
    from circuits.masking import run_masked

    wiring = wire(plan_model(model, inputs.attachment))
    record, logits = record_run(model, inputs.clean, inputs.attachment)
    clean_writes = stack_writes(model, record)
    ablated_writes = ablate_writes(model, inputs, ablation, references or [inputs.counterfactual], clean_writes)
    if not bool(torch.isfinite(clean_writes).all() and torch.isfinite(ablated_writes).all()):
        raise UserError("the model's activations are not finite on this prompt: try --dtype float32")
    measure = build_metric(metric, target, logits)
    mask = torch.zeros(1, 1, len(wiring.readers), len(wiring.writers))
    empty = run_masked(model, inputs.attachment, inputs.clean, wiring.plan, mask.to(model.device), ablated_writes)
    metric_clean, metric_ablated = float(measure(logits)), float(measure(read_last(empty)))
    if abs(metric_clean - metric_ablated) < SMALLEST_CHANGE:
        raise UserError(
            f"the metric {metric} does not move: {metric_clean:.6g} on the prompt, {metric_ablated:.6g} ablated; "
            "choose another counterfactual, foil, ablation or metric"
        )
    return Problem(
        model=model,
        wiring=wiring,
        clean=inputs.clean,
        attachment=inputs.attachment,
        ablated_attachment=inputs.counterfactual_attachment if ablation == "counterfactual" else inputs.attachment,
        clean_writes=clean_writes,
        ablated_writes=ablated_writes,
        metric=measure,
        ablation=ablation,
        metric_name=metric,
        metric_clean=metric_clean,
        metric_ablated=metric_ablated,
    )


def check_inputs(inputs: Inputs, target: Target, metric: str) -> None:
    """Raise UserError for a pair that no method can compare."""
    lengths = inputs.clean.shape[1], inputs.counterfactual.shape[1]
    if lengths[0] != lengths[1]:
        raise UserError(
            f"the prompt has {lengths[0]} tokens and the counterfactual {lengths[1]}: positions must match, so give a "
            "counterfactual of the same length (a name that splits into as many tokens)"
        )
    if metric == "logit-diff" and target.answer == target.foil:
        raise UserError("answer and foil are the same token: choose another foil, or the metric log-prob")
