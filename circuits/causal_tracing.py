"""Causal tracing: which states, put back into a run about another subject, bring the answer back.

Meng et al. 2022 (ROME, arXiv 2202.05262) run a corrupted prompt and restore one state of the clean run. Here the
corruption is symmetric token replacement, the counterfactual prompt itself, and the metric a logit difference, as Zhang
and Nanda 2023 (arXiv 2309.16042) advise in place of noise and probability; one layer at a time, no windows. States are
the stream before a layer, or what the attention or the MLP of a layer (with its memories) adds, each at one position.
The corrupted run's memories are the counterfactual's. A number is the metric with the state put back less that of the
corrupted run, in the metric's unit; `normalise` divides by what the whole clean run brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.circuit import UNITS
from circuits.problem import Problem
from probes.errors import UserError
from probes.forward import Record, write_mlp
from probes.models import Model
from probes.progress import Tick, quiet
from probes.restarts import RestartedPass, Start

State = Literal["stream", "attention", "mlp"]
STATES: tuple[State, ...] = ("stream", "attention", "mlp")


@dataclass(frozen=True, slots=True)
class Restoration:
    """What putting back each state at each position brings, for one kind of state.

    `clean` and `corrupted` are the metric of the whole runs; a stream has one layer more, the one after the last.
    """

    state: State
    values: Float[np.ndarray, "layer pos"]
    clean: float
    corrupted: float
    metric: str
    unit: str

    def normalise(self) -> Float[np.ndarray, "layer pos"]:
        """Shares of the whole difference: 1 brings all of the clean run back."""
        return self.values / (self.clean - self.corrupted)


def read_states(model: Model, record: Record, state: State, layer: int) -> Float[Tensor, "batch pos d_model"]:
    """One kind of state of a recorded run: the stream before a layer, or what its attention or MLP adds."""
    if state == "stream":
        return Start(layer).read_stream(record)
    written = torch.stack(write_mlp(model.weights[layer], record, layer)).sum(dim=0).detach()
    if state == "mlp":
        return written
    return Start(layer + 1).read_stream(record) - Start(layer).read_stream(record) - written


def restore_states(problem: Problem, state: State = "stream", tick: Tick = quiet) -> Restoration:
    """Put back the state of every layer at every position, one row of a restarted pass each.

    Raises UserError for several pairs at once, or an ablation without a counterfactual run.
    """
    if problem.inputs.clean.shape[0] != 1 or problem.ablated_record is None:
        raise UserError("causal tracing compares one prompt with its counterfactual: ask one question, counterfactual")
    model, inputs, clean, corrupted = problem.model, problem.inputs, problem.clean_record, problem.ablated_record
    positions = inputs.clean.shape[1]
    places = torch.arange(positions)
    layers = model.layers + (state == "stream")
    values = np.zeros((layers, positions))
    with torch.no_grad():
        for layer in range(layers):
            tick(f"states put back ({state})", layer, layers)
            start = Start(layer) if state == "stream" else Start(layer + 1)
            if state == "attention" and not model.parallel:
                start = Start(layer, at_mlp=True)
            change = read_states(model, clean, state, layer) - read_states(model, corrupted, state, layer)
            rows = start.read_stream(corrupted).repeat(positions, 1, 1)
            base = rows[:1].clone()
            rows[places, places] += change[0]
            both = torch.cat([rows, base])
            taken_up = RestartedPass(model, inputs.counterfactual_attachment, start, both, inputs.readout.positions)
            measured = problem.metric_at_ends(taken_up.run(inputs.counterfactual))
            values[layer] = (measured[:-1] - measured[-1]).double().cpu().numpy()
    metric = problem.metric_name
    return Restoration(state, values, problem.metric_clean, problem.metric_ablated, metric, UNITS[metric])
