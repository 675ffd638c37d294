"""Nodes of a saved run ablated or scaled, with the answers before and after; tokens that a node or part writes for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from circuits.circuit import UNITS
from circuits.graph import Kind, parse_component, split_node
from probes.errors import UserError
from probes.progress import Tick, quiet
from workbench.engine import Engine
from workbench.parts import is_part, read_part
from workbench.pipeline import restore_batches
from workbench.runs import Run

if TYPE_CHECKING:
    from torch import Tensor

    from circuits.problem import Problem

# Tokens shown of the most probable ones, before and after, and of those that a node writes for.
SHOWN = 6
FACTORS = (-5.0, 5.0)


@dataclass(frozen=True, slots=True)
class Shift:
    """A next token with its probability before and after; `role` is answer, foil or empty."""

    text: str
    token: int
    before: float
    after: float
    role: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Nodes scaled by a factor (0: ablated) under an ablation, and what became of the metric (in `unit`) and answers.

    `tokens` are the first tokens of the answer: the most probable ones before or after, answer and foil among them;
    empty for a run over several pairs, whose metric is their mean.
    """

    nodes: tuple[str, ...]
    factor: float
    before: float
    after: float
    unit: str
    ablation: str
    pairs: int
    tokens: tuple[Shift, ...] = ()


def intervene(engine: Engine, run: Run, nodes: Sequence[str], factor: float, tick: Tick = quiet) -> Outcome:
    """Scale nodes of a saved run together and ask again.

    Raises UserError for a factor out of range, a node without an output, and as `restore_cases`.
    """
    from circuits.interventions import run_intervened

    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise UserError(f"the factor is {factor}: choose a number from {FACTORS[0]:g} to {FACTORS[1]:g}")
    require_nodes(run, nodes)

    def measure(problem: Problem) -> tuple[float, float, tuple[Shift, ...]]:
        tick("asking before and after", 0, 2)
        before = run_intervened(problem, (), 1.0)
        tick("asking before and after", 1, 2)
        after = run_intervened(problem, nodes, factor)
        shifts = compare_tokens(engine, run, before[0, 0], after[0, 0]) if len(run.pairs) == 1 else ()
        metric = problem.metric_at_ends
        return float(metric(before).mean()), float(metric(after).mean()), shifts

    found = list(restore_batches(engine, run).each(measure, tick))
    before = sum(numbers[0] * share for numbers, share in found)
    after = sum(numbers[1] * share for numbers, share in found)
    about = UNITS[run.scores.metric], run.scores.ablation, len(run.pairs)
    return Outcome(tuple(nodes), factor, before, after, *about, found[0][0][2])


def require_nodes(run: Run, nodes: Sequence[str]) -> None:
    """Raise UserError for nodes that are not of the circuit, or for none."""
    if not nodes:
        raise UserError("choose at least one node to ablate or scale")
    known = {node.id: node.component.kind for node in run.circuit.nodes}
    for node in nodes:
        if node not in known:
            raise UserError(f"this circuit has no node {node[:80]}")
        if known[node] is Kind.LOGITS:
            raise UserError("the logits are what is measured: choose nodes that write to them")


def compare_tokens(engine: Engine, run: Run, before: Tensor, after: Tensor) -> tuple[Shift, ...]:
    """The most probable tokens of both, answer and foil first, from logits [d_vocab]."""
    import torch

    both = torch.stack([before, after]).float().softmax(dim=-1)
    pair = run.pair
    roles = {int(pair[f"{name}_ids"][0]): name for name in ("foil", "answer") if pair.get(f"{name}_ids")}
    best = [token for row in both for token in row.topk(SHOWN).indices.tolist()]
    order = list(dict.fromkeys([*sorted(roles, key=lambda token: roles[token]), *best]))
    texts = {token: engine.model.decode(token) for token in order}
    return tuple(
        Shift(texts[token], token, float(both[0, token]), float(both[1, token]), roles.get(token, ""))
        for token in order
    )


@dataclass(frozen=True, slots=True)
class WrittenTokens:
    """Tokens that a node's or part's output points to by the logit lens, and away from, each strongest first.

    Read from clean minus ablated output at its position, alone through the final norm and the unembedding: logits of
    that direction, not a probability. `norm` is the length of that output.
    """

    one: str
    towards: tuple[tuple[str, float], ...]
    away: tuple[tuple[str, float], ...]
    norm: float
    ablation: str


def read_written(engine: Engine, run: Run, one: str, tick: Tick = quiet) -> WrittenTokens:
    """Logit lens on what a node, or an FFN unit, bank unit or memory slot, adds to the stream at its position.

    Raises UserError for what writes nothing, for a run over several pairs, and as `restore_cases`.
    """
    import torch

    from probes.lens import unembed

    if len(run.pairs) > 1:
        raise UserError(f"the run is over {len(run.pairs)} pairs, each with tokens of its own: trace one pair alone")
    ((vector, _),) = restore_batches(engine, run, parts=is_part(one)).each(
        lambda found: find_write(found, run, one), tick
    )
    tick("logit lens", 0, 1)
    with torch.no_grad():
        weights = engine.model.final_norm.weight
        logits = unembed(engine.model, vector.to(weights.dtype)[None])[0].float().cpu().numpy()
    order = np.argsort(-logits, kind="stable")

    def name(tokens: np.ndarray) -> tuple[tuple[str, float], ...]:
        return tuple((engine.model.decode(int(token)), float(logits[token])) for token in tokens)

    return WrittenTokens(one, name(order[:SHOWN]), name(order[::-1][:SHOWN]), float(vector.norm()), run.scores.ablation)


def find_write(problem: Problem, run: Run, one: str) -> Tensor:
    """What a node or part adds to the stream at its position, clean minus ablated, [d_model]."""
    from circuits.removal import lose_part

    if is_part(one):
        component, position = read_part(one, run.circuit.plan.layers)
        if component.kind is Kind.HEAD:
            raise UserError("an attention edge has no direction of its own here: read its head instead")
        return lose_part(problem, component, "ablated")[0, position].float()
    name, position = split_node(one)
    component = parse_component(name, run.circuit.plan.layers)
    if component not in problem.wiring.writers:
        raise UserError(f"{one[:80]} writes nothing to the stream: choose a head, an MLP or a memory")
    return problem.difference[problem.wiring.find_writer(name), 0, position].float()
