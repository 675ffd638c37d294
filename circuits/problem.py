"""What is to be explained: clean inputs, what ablated components count as, and the metric between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.activity import Activity, average_activity, combine, measure_activity
from circuits.graph import Wiring, wire
from circuits.metrics import Metric, Readout, build_metric
from circuits.tracing import plan_model, stack_differences, stack_writes
from probes.adapters import adapt_model
from probes.attachments import Attachment, remove_memories
from probes.errors import UserError
from probes.forward import Pass, Record
from probes.models import Model
from probes.parts import PartsPass
from probes.progress import Tick, quiet
from probes.prompts import require_equal_length

# A metric that moves less than this from clean to ablated gives no scale to any score (float32 noise of logits).
SMALLEST_CHANGE = 1e-4


# Ablations that remove the memories alone, and whether their attention goes back to the context.
REMOVALS = {"memory-contribution": False, "memory-renormalised": True}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Token ids of clean prompts and of their counterfactuals, with the memories of each, and where answers are read.

    Rows of different lengths are filled up on the right (`pad_tokens`): a causal model never looks there, so what
    fills them changes no score.
    """

    clean: Int[Tensor, "batch pos"]
    counterfactual: Int[Tensor, "batch other_pos"]
    attachment: Attachment
    counterfactual_attachment: Attachment
    readout: Readout


@dataclass(frozen=True, slots=True)
class Traced:
    """A clean run on its autograd graph: the record of what was read and written, the metric (mean of pairs), and the
    model with the weights that the run's LoRA blocks give it.
    """

    record: Record
    value: Tensor
    model: Model


@dataclass(frozen=True)
class Problem:
    """One or several prompt pairs on one model with its memories, ready for any method.

    `clean_record` is the model's run; `ablated_record` that of the counterfactual, `mean` [writer, 1, 1, d_model] the
    mean writes (both None: zero ablation). `metric` is of logits at all positions, `metric_at_ends` of logits that
    were computed at the readout's positions alone; the number for a problem is the mean over its pairs:
    `metric_clean` of the model, `metric_ablated` with every edge ablated; `each_clean` and `each_ablated` are those of
    each pair. With `summed`, an edge is one at all positions together; with `apart` each pair has scores of its own
    besides (`circuits/pairs.py`). `traced` is the clean run with its autograd graph, when it was asked for;
    `mean_activity` is the parts' side of `mean`.
    """

    model: Model
    wiring: Wiring
    inputs: Inputs
    clean_record: Record
    ablated_record: Record | None
    mean: Tensor | None
    metric: Metric
    metric_at_ends: Metric
    ablation: str
    metric_name: str
    metric_clean: float
    metric_ablated: float
    summed: bool = False
    apart: bool = False
    each_clean: tuple[float, ...] = ()
    each_ablated: tuple[float, ...] = ()
    traced: Traced | None = None
    mean_activity: Activity | None = None

    @property
    def positions(self) -> int:
        """Positions that have edges of their own: the prompt's tokens, or 1 when positions are summed."""
        return 1 if self.summed else int(self.inputs.clean.shape[1])

    @property
    def groups(self) -> int:
        """First axis of estimates from gradients: the pairs where they stand `apart`, else the positions."""
        return int(self.inputs.clean.shape[0]) if self.apart else self.positions

    @cached_property
    def ablated_model(self) -> Model:
        """The model with the weights that the counterfactual's LoRA blocks give it; mostly `model` itself."""
        clean, other = self.inputs.attachment.bank, self.inputs.counterfactual_attachment
        return self.model if other.bank is clean else adapt_model(self.model, other)

    @cached_property
    def ablated_writes(self) -> Float[Tensor, "writer batch2 pos2 d_model"]:
        """What every writer counts as when ablated; batch and pos may be 1."""
        if self.ablated_record is not None:
            return stack_writes(self.ablated_model, self.ablated_record)
        if self.mean is not None:
            return self.mean
        return torch.zeros(len(self.wiring.writers), 1, 1, self.model.d_model, device=self.model.device)

    @cached_property
    def difference(self) -> Float[Tensor, "writer batch pos d_model"]:
        """Clean minus ablated writes: what each writer would lose."""
        with torch.no_grad():
            if self.ablated_record is not None and self.ablated_model is self.model:
                return stack_differences(self.model, self.clean_record, self.ablated_record)
            writes = stack_writes(self.model, self.clean_record)
            nothing = self.ablated_record is None and self.mean is None
            return writes if nothing else writes - self.ablated_writes

    @cached_property
    def clean_activity(self) -> Activity:
        """How strongly every part fires on the clean prompts."""
        return measure_activity(self.model, self.clean_record)

    @cached_property
    def ablated_activity(self) -> Activity | None:
        """What every part counts as when ablated; batch and pos may be 1. None: nothing (zero ablation)."""
        if self.ablated_record is None:
            return self.mean_activity
        self.require_same_outputs()
        return measure_activity(self.model, self.ablated_record)

    def require_same_outputs(self) -> None:
        """Raise UserError when LoRA blocks of the two sides give heads or units different directions to write in."""
        for one, two in zip(self.model.weights, self.ablated_model.weights, strict=True):
            for name in ("output", "down"):
                first, second = getattr(one, name), getattr(two, name)
                if first is not second and not torch.equal(first, second):
                    raise UserError(
                        "the two sides have different LoRA blocks on output or down projections, so units, slots and "
                        "attention edges have no common direction: give both sides the same path of the bank"
                    )

    def list_ends(self) -> tuple[int, ...]:
        """Positions (of edges) at which the logits are read."""
        return (0,) if self.summed else self.inputs.readout.list_positions()


def pad_tokens(rows: Sequence[Sequence[int]], fill: int = 0) -> Int[Tensor, "batch pos"]:
    """Rows of token ids, filled up on the right to the longest."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


def record_run(
    model: Model,
    tokens: Int[Tensor, "batch pos"],
    attachment: Attachment,
    attention: bool = False,
    differentiable: bool = False,
    ends: Int[Tensor, "row step"] | None = None,
    parts: bool = False,
) -> tuple[Record, Float[Tensor, "batch pos_or_step d_vocab"]]:
    """Record of a plain pass and its logits (at `ends` alone where given).

    `differentiable` keeps them on the autograd graph; `parts` records what writers are made of too.
    """
    kind = PartsPass if parts else Pass
    whole = kind(model, attachment, attention=attention, differentiable=differentiable, ends=ends)
    logits = whole.run(tokens)
    return whole.record, logits


def average_writes(
    model: Model, inputs: Inputs, references: Sequence[Int[Tensor, "_ _"]], tick: Tick
) -> Float[Tensor, "writer 1 1 d_model"]:
    """Mean of what every writer writes over reference prompts and their positions, under the clean prompts' memories.

    The first position is left out (attention sinks there). Raises UserError when nothing is left.
    """
    total: Tensor | None = None
    count = 0
    for done, tokens in enumerate(references):
        tick("reference prompts", done, len(references))
        rows = tokens.expand(inputs.clean.shape[0], -1) if tokens.shape[0] == 1 else tokens
        record, _ = record_run(model, rows, inputs.attachment)
        writes = stack_writes(model, record)[:, :, 1:]
        summed = writes.sum(dim=(1, 2), keepdim=True, dtype=torch.float32)
        total = summed if total is None else total + summed
        count += writes.shape[1] * writes.shape[2]
    if total is None or not count:
        raise UserError("mean ablation needs reference prompts of two tokens or more: use counterfactual or zero")
    return total / count


def average_parts(model: Model, inputs: Inputs, references: Sequence[Int[Tensor, "_ _"]]) -> Activity:
    """Mean activity of every part over the reference prompts and positions of `average_writes`."""

    def list_runs() -> Iterator[tuple[Activity, int]]:
        for tokens in references:
            rows = tokens.expand(inputs.clean.shape[0], -1) if tokens.shape[0] == 1 else tokens
            record, _ = record_run(model, rows, inputs.attachment, parts=True)
            yield measure_activity(model, record), rows.shape[0] * (rows.shape[1] - 1)

    return average_activity(list_runs())


@dataclass(frozen=True, slots=True)
class Means:
    """What everything counts as under mean ablation: `writes` of every writer, and of parts where they are recorded."""

    writes: Float[Tensor, "writer 1 1 d_model"]
    parts: Activity | None


def average(
    model: Model, inputs: Inputs, references: Sequence[Int[Tensor, "_ _"]], tick: Tick, parts: bool = False
) -> Means:
    """Means over reference prompts under the memories of the clean prompts, each prompt's as often as any other's.

    Raises UserError when the references leave nothing to average.
    """
    writes = average_writes(model, inputs, references, tick)
    return Means(writes, average_parts(model, inputs, references) if parts else None)


def mix_means(found: Sequence[tuple[Means, float]]) -> Means:
    """Weighted sum of means."""
    writes = torch.stack([means.writes * weight for means, weight in found]).sum(dim=0)
    parts = [
        combine(lambda tensor, weight=weight: tensor * weight, means.parts) for means, weight in found if means.parts
    ]
    return Means(writes, combine(lambda *tensors: torch.stack(tensors).sum(dim=0), *parts) if parts else None)


def pose_problem(
    model: Model,
    inputs: Inputs,
    ablation: str = "counterfactual",
    metric: str = "logit-diff",
    references: Sequence[Int[Tensor, "_ _"]] = (),
    summed: bool | None = None,
    tick: Tick = quiet,
    differentiable: bool = False,
    attention: bool = False,
    parts: bool = False,
    means: Means | None = None,
    alone: bool = True,
) -> Problem:
    """Run clean and ablated once and set up the metric.

    Ablated components count as on the `counterfactual` prompts, as their `mean` over `references` (the counterfactuals
    where none are given), as `zero`, or as on the clean prompts without their memories (`REMOVALS`). `summed` defaults
    to whether there are several pairs, whose positions mean different things; `differentiable` keeps the clean run on
    its autograd graph, so that EAP needs no further forward pass, and `attention` records its patterns; `parts` records
    what FFN units and slots did, for `circuits/units.py`. `means` are those of mean ablation where they are known
    already; a problem that does not stand `alone` is a batch of a data set, whose metric moves as a whole or not.

    Raises UserError for prompts of unequal length, an answer equal to the foil, activations that are not finite, and
    a metric that does not move between the clean and the ablated run.
    """
    if ablation in REMOVALS:
        inputs = forget(inputs, ablation)
    check_inputs(inputs, metric)
    tick("clean and ablated run", 0, 1)
    model = adapt_model(model, inputs.attachment)
    wiring = wire(plan_model(model, inputs.attachment))
    ends = inputs.readout.positions
    record, logits = record_run(model, inputs.clean, inputs.attachment, attention, differentiable, ends, parts)
    ablated_record = ablated_logits = mean = mean_activity = None
    paired = ablation == "counterfactual" or ablation in REMOVALS
    if paired:
        ablated_record, ablated_logits = record_run(
            model, inputs.counterfactual, inputs.counterfactual_attachment, attention and parts, ends=ends, parts=parts
        )
        refuse_overflow(ablated_record, ablated_logits)
    elif ablation == "mean":
        means = means or average(model, inputs, references or [inputs.counterfactual], tick, parts)
        mean, mean_activity = means.writes, means.parts
    refuse_overflow(record, logits)
    measure = build_metric(metric, inputs.readout.keep_steps(), logits)
    with torch.set_grad_enabled(differentiable):
        each = measure(logits)
        value = each.mean()
    problem = Problem(
        model=model,
        wiring=wiring,
        inputs=inputs if paired else keep_memories(inputs),
        clean_record=record,
        ablated_record=ablated_record,
        mean=mean,
        metric=build_metric(metric, inputs.readout, logits),
        metric_at_ends=measure,
        ablation=ablation,
        metric_name=metric,
        metric_clean=float(value.detach()),
        metric_ablated=0.0,
        summed=inputs.clean.shape[0] > 1 if summed is None else summed,
        each_clean=tuple(each.tolist()),
        traced=Traced(record, value, model) if differentiable else None,
        mean_activity=mean_activity,
    )
    logits = ablated_logits if ablated_logits is not None else run_empty(problem)
    ablated = measure(logits)
    problem = replace(problem, metric_ablated=float(ablated.mean()), each_ablated=tuple(ablated.tolist()))
    if alone:
        refuse_still(metric, problem.metric_clean, problem.metric_ablated)
    return problem


def refuse_still(metric: str, clean: float, ablated: float) -> None:
    """Raise UserError for a metric that does not move between the clean and the ablated run."""
    # Written so that a number that is not finite is refused too.
    if not abs(clean - ablated) >= SMALLEST_CHANGE:
        raise UserError(
            f"the metric {metric} does not move: {clean:.6g} on the prompt, {ablated:.6g} ablated; choose another "
            "counterfactual, foil, ablation or metric"
        )


def refuse_overflow(record: Record, logits: Float[Tensor, "batch step d_vocab"]) -> None:
    """Raise UserError when a run overflowed: what is not finite in a stream stays so up to the final one."""
    assert record.final_stream is not None
    if not bool(torch.isfinite(record.final_stream).all() and torch.isfinite(logits).all()):
        raise UserError("the model's activations are not finite on this prompt: try --dtype float32")


def run_empty(problem: Problem) -> Float[Tensor, "batch step d_vocab"]:
    """Logits at the readout with every edge ablated."""
    from circuits.masking import run_masked

    inputs, wiring = problem.inputs, problem.wiring
    mask = torch.zeros(1, 1, len(wiring.readers), len(wiring.writers), device=problem.model.device)
    writes, ends = problem.ablated_writes, inputs.readout.positions
    return run_masked(problem.model, inputs.attachment, inputs.clean, wiring.plan, mask, writes, ends)


def forget(inputs: Inputs, ablation: str) -> Inputs:
    """The same inputs with the clean prompts without their memories as the counterfactual side."""
    removed = remove_memories(inputs.attachment, give_back=REMOVALS[ablation])
    return replace(inputs, counterfactual=inputs.clean, counterfactual_attachment=removed)


def keep_memories(inputs: Inputs) -> Inputs:
    """The same inputs with the clean memories on both sides: mean and zero ablation have no other memory."""
    return Inputs(inputs.clean, inputs.counterfactual, inputs.attachment, inputs.attachment, inputs.readout)


def check_inputs(inputs: Inputs, metric: str) -> None:
    """Raise UserError for pairs that no method can compare."""
    require_equal_length(inputs.clean.shape[1], inputs.counterfactual.shape[1])
    if metric == "logit-diff" and bool((inputs.readout.answers == inputs.readout.foils).all(dim=1).any()):
        raise UserError("answer and foil are the same token: choose another foil, or the metric log-prob")
