"""Edge-mask training: one gate an edge, trained to keep the metric while most gates close (edge pruning).

Every edge has a hard-concrete gate (Louizos et al. 2018): a number from 0 to 1, drawn anew at each update, that is
exactly 0 or exactly 1 with some probability. The model runs with these gates as its mask
(`circuits/masking.py`); the loss is the squared distance of the metric from the model's own, as a share of its whole
change, plus a Lagrangian that pulls the expected share of closed gates to a target. The target rises from 0 over the
first half of the updates.

Source: Bhaskar et al. 2024 (edge pruning), section 3. Theirs keeps the divergence of the output small over a data set;
here the problem's own metric is kept, over its pairs.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.patching import measure_masks
from circuits.problem import Problem
from probes.progress import Tick

# Hard-concrete distribution: temperature, and how far it is stretched beyond 0 and 1 before it is cut there.
TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1

# Where the gates start (open with probability .97), and how fast gates and multipliers move, per update of Adam.
START, RATE, MULTIPLIER_RATE = 2.0, 0.4, 1.0


def find_probability(location: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Probability that a gate is not exactly 0."""
    return torch.sigmoid(location - TEMPERATURE * math.log(-LOW / HIGH))


def draw_gates(location: Float[Tensor, "*any"], generator: torch.Generator) -> Float[Tensor, "*any"]:
    """Gates drawn from their distributions, differentiable in the location."""
    noise = torch.rand(location.shape, generator=generator).clamp(1e-6, 1 - 1e-6).to(location.device)
    open_share = torch.sigmoid((torch.logit(noise) + location) / TEMPERATURE)
    return (open_share * (HIGH - LOW) + LOW).clamp(0.0, 1.0)


def train_gates(
    problem: Problem, edges: int, updates: int, seed: int, tick: Tick
) -> Float[Tensor, "pos writer reader"]:
    """Probability that each edge is kept when about `edges` of them are; 0 where there is no edge.

    Not a drop of the metric: a number from 0 to 1 without sign. The seed decides the draws; other seeds may keep other
    edges. Where the metric moves little from clean to ablated, its loss outweighs the pull and more edges stay open.
    """
    wiring, device = problem.wiring, problem.model.device
    exists = torch.from_numpy(wiring.visible.T.copy()).to(device).expand(problem.positions, -1, -1)
    target = max(0.0, 1.0 - edges / int(exists.sum()))
    generator = torch.Generator().manual_seed(seed)
    location = torch.full(exists.shape, START, device=device, requires_grad=True)
    multipliers = torch.zeros(2, device=device, requires_grad=True)
    optimizers = torch.optim.Adam([location], RATE), torch.optim.Adam([multipliers], MULTIPLIER_RATE, maximize=True)
    for update in range(updates):
        tick("gates trained", update, updates)
        wanted = target * min(1.0, 2 * (update + 1) / updates)
        (value,) = measure_masks(problem, draw_gates(location, generator)[None])
        moved = (value - problem.metric_clean) / (problem.metric_clean - problem.metric_ablated)
        excess = 1.0 - find_probability(location)[exists].mean() - wanted
        loss = moved.square() + multipliers[0] * excess + multipliers[1] * excess.square()
        location.grad, multipliers.grad = torch.autograd.grad(loss, [location, multipliers])
        for optimizer in optimizers:
            optimizer.step()
    return (find_probability(location.detach()) * exists).transpose(1, 2).contiguous()
