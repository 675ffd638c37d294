"""Relevance rules instead of gradients: the backward pass hands on relevance that is conserved where rules allow it.

The forward pass is the model's own, number by number; only what the backward pass multiplies by changes:

- norm: its scale counts as a constant (LN rule), so the norm is linear;
- activation: `f(x)` counts as `x` times the constant `f(x) / x` (identity rule);
- gated product `f(gate) * up`: half to either factor (half rule), in the MLP and in bank blocks;
- attention, `frozen` (RelP): the pattern and the share left to the context count as constants, so relevance flows
  through values alone and edges into queries and keys score 0;
- attention, `half` (AttnLRP): the products pattern x value and query x key give half to either factor, the softmax
  its own gradient.

What reaches a component, times what it wrote, is its relevance. With frozen attention and a metric linear in the
logits the relevance of embedding and explicit-memory reads adds up to the metric, but for what biases take. Soft caps
(Gemma 2) keep their own gradient, and what the half rule gives to stored keys and values of a memory ends there.

Sources: Achtibat et al. 2024 (AttnLRP), section 3; Jafari et al. 2025 (RelP), table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution import score_stages
from circuits.problem import Problem
from circuits.tracing import list_reader_tensors, pull_gradients
from probes.attachments import Attachment
from probes.errors import UserError
from probes.forward import Pass
from probes.models import Hook, LayerWeights, Model, name_hook
from probes.norms import Norm
from probes.progress import Tick
from probes.units import write_units

AttentionRule = Literal["frozen", "half"]

# Inputs smaller than this hand on no relevance: f(x) / x is not a number there, and x times it is 0.
SMALLEST_INPUT = 1e-20


class FrozenNorm(Norm):
    """A norm whose scale counts as a constant in every backward pass."""

    def measure(self, x: Float[Tensor, "*any width"]) -> tuple[Float[Tensor, "*any width"], Float[Tensor, "*any 1"]]:
        """Centred input, and its scale without its gradient."""
        centred, scale = Norm.measure(self, x)
        return centred, scale.detach()

    def pull_back(
        self, gradient: Float[Tensor, "*any width"], x: Float[Tensor, "*any2 width"]
    ) -> Float[Tensor, "*any width"]:
        """Relevance coefficient at the input `x`, given that at the output."""
        _, scale = self.measure(x)
        weighted = gradient * self.weight
        if self.centred:
            weighted = weighted - weighted.mean(dim=-1, keepdim=True)
        return weighted / scale

    def pull_back_heads(
        self,
        gradient: Float[Tensor, "batch pos head d_head"],
        projection: Float[Tensor, "head width d_head"],
        x: Float[Tensor, "batch pos width"],
        output: Float[Tensor, "batch pos head d_head"],
        room: Float[Tensor, "room batch pos width"] | None = None,
    ) -> Float[Tensor, "head batch pos width"]:
        """The same for each head, given the coefficient at the output of the head's projection."""
        return self.pull_back(torch.einsum("bphd,hwd->hbpw", gradient.float(), projection.float()), x)


def freeze_norm(norm: Norm) -> FrozenNorm:
    """The norm with its scale frozen."""
    return FrozenNorm(norm.weight, norm.bias, norm.epsilon, norm.centred)


def freeze_norms(model: Model) -> Model:
    """The model as relevance rules see it: every norm frozen."""

    def freeze_layer(weights: LayerWeights) -> LayerWeights:
        parts = {field.name: getattr(weights, field.name) for field in fields(weights)}
        frozen: dict[str, Any] = {name: freeze_norm(part) for name, part in parts.items() if isinstance(part, Norm)}
        return replace(weights, **frozen)

    weights = tuple(freeze_layer(layer) for layer in model.weights)
    return replace(model, weights=weights, final_norm=freeze_norm(model.final_norm))


def halve(x: Tensor) -> Tensor:
    """x, handing back half of what reaches it."""
    return (x + x.detach()) / 2


def follow(value: Tensor, rule: Tensor) -> Tensor:
    """`value`, number by number, with the backward pass of `rule` (equal to it but for rounding)."""
    return value.detach() + (rule - rule.detach())


def divide(output: Tensor, x: Tensor) -> Tensor:
    """The constant `output / x`, 0 where x is."""
    tiny = x.abs() < SMALLEST_INPUT
    return (output / x.masked_fill(tiny, 1.0)).masked_fill(tiny, 0.0).detach()


def activate(output: Tensor, gate: Tensor, up: Tensor | None) -> Tensor:
    """`output = f(gate)`, or `f(gate) * up`, under identity rule and half rule."""
    if up is None:
        return follow(output, gate * divide(output, gate))
    return follow(output, (gate * divide(output, gate) + up * divide(output, up)) / 2)


class RelevancePass(Pass):
    """A differentiable pass of a model with frozen norms whose backward pass follows the rules."""

    def __init__(
        self,
        model: Model,
        attachment: Attachment,
        rule: AttentionRule,
        ends: Int[Tensor, "row step"] | None = None,
    ) -> None:
        super().__init__(model, attachment, differentiable=True, ends=ends)
        self.rule = rule
        self._seen: dict[tuple[int, str], Tensor] = {}

    def list_hooks(self) -> list[Hook]:
        """The hooks of a pass, and those at norms, patterns and the MLP's activations."""
        hooks = super().list_hooks()
        known = self.model.bridge.hook_dict
        for layer, weights in enumerate(self.model.weights):
            points: dict[str, Callable[..., Tensor | None]] = {
                "ln1.hook_out": self._attention_norm,
                "attn.hook_pattern": self._weigh,
                "mlp.hook_pre": partial(self._see, point="gate"),
                "mlp.hook_post": self._activate,
            }
            if name_hook(layer, "mlp.hook_pre_linear") in known:
                points["mlp.hook_pre_linear"] = partial(self._see, point="up")
            norms = ("attn.q_norm", weights.query_norm), ("attn.k_norm", weights.key_norm)
            posts = ("ln1_post", weights.post_attention_norm), ("ln2_post", weights.post_mlp_norm)
            for name, norm in (*norms, *posts):
                if norm is not None:
                    points[f"{name}.hook_in"] = partial(self._see, point=name)
                    points[f"{name}.hook_out"] = partial(self._apply_norm, point=name, norm=norm)
            hooks += [(name_hook(layer, point), partial(function, layer=layer)) for point, function in points.items()]
        return [*hooks, ("ln_final.hook_out", self._final_norm)]

    def _see(self, x: Tensor, hook: Any, layer: int, point: str) -> None:
        self._seen[layer, point] = x

    def _apply_norm(self, y: Tensor, hook: Any, layer: int, point: str, norm: Norm) -> Tensor:
        return follow(y, norm.apply(self._seen[layer, point]))

    def _attention_norm(self, y: Tensor, hook: Any, layer: int) -> Tensor:
        return follow(y, self.model.weights[layer].attention_norm.apply(self.record.attention_stream[layer]))

    def _final_norm(self, y: Tensor, hook: Any) -> Tensor:
        assert self.record.final_stream is not None
        return follow(y, self.model.final_norm.apply(self.record.final_stream))

    def read_mlp(self, layer: int, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Inputs of the MLP and of each bank block, behind a frozen norm."""
        normed = self.model.weights[layer].mlp_norm.apply(self.record.mlp_stream[layer])
        return super().read_mlp(layer, follow(x, normed))

    def _query(self, query: Tensor, hook: Any, layer: int) -> Tensor:
        return halve(super()._query(query, hook, layer))

    def _key(self, key: Tensor, hook: Any, layer: int) -> Tensor:
        return halve(super()._key(key, hook, layer))

    def _value(self, value: Tensor, hook: Any, layer: int) -> Tensor:
        value = super()._value(value, hook, layer)
        return halve(value) if self.rule == "half" else value

    def _weigh(self, pattern: Tensor, hook: Any, layer: int) -> Tensor:
        return halve(pattern) if self.rule == "half" else pattern.detach()

    def _scores(self, scores: Tensor, hook: Any, layer: int) -> None:
        super()._scores(halve(scores) if self.rule == "half" else scores.detach(), hook, layer)

    def _turn(self, query: Tensor, layer: int) -> Tensor:
        # Once for the product with the stored keys, once for that of the weights with the stored values.
        query = super()._turn(query, layer)
        return halve(halve(query)) if self.rule == "half" else query.detach()

    def address(self, layer: int, query: Tensor) -> Tensor:
        """Queries of learned key-values, twice halved like those of explicit memories, or constants."""
        query = super().address(layer, query)
        return halve(halve(query)) if self.rule == "half" else query.detach()

    def _activate(self, output: Tensor, hook: Any, layer: int) -> Tensor:
        gate = self._seen.get((layer, "gate"))
        if gate is None:
            raise UserError(
                f"{self.model.name}: relevance rules need the inside of layer {layer}'s MLP, which is not a plain or "
                "gated MLP; choose --method eap-ig"
            )
        return activate(output, gate, self._seen.get((layer, "up")))

    def _read_bank(self, layer: int, level: int, x: Float[Tensor, "batch pos d_model"]) -> Tensor:
        bank = self.attachment.bank
        assert bank is not None
        weights = (bank.pick(name, level, layer).to(x.dtype) for name in ("gate", "up", "down"))
        gate_weight, up_weight, down = weights
        gate, up = x @ gate_weight.transpose(-1, -2), x @ up_weight.transpose(-1, -2)
        return write_units(activate(torch.nn.functional.silu(gate) * up, gate, up), down)


def attribute_relevance(problem: Problem, rule: AttentionRule, tick: Tick) -> Float[Tensor, "pos writer reader"]:
    """Scores with relevance coefficients of the clean run in place of gradients.

    An edge's score is what its writer would lose times the coefficient at its reader. Raises UserError for an MLP whose
    inside is not seen.
    """
    tick("relevance pass", 0, 1)
    model = freeze_norms(problem.model)
    traced = RelevancePass(model, problem.inputs.attachment, rule, problem.inputs.readout.positions)
    logits = traced.run(problem.inputs.clean)
    with torch.enable_grad():
        value = problem.metric_at_ends(logits).mean()
    tensors = list_reader_tensors(model, traced.record)
    gradients = torch.autograd.grad(value, tensors, materialize_grads=True)
    return score_stages(problem, pull_gradients(model, traced.record, gradients))
