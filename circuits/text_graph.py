"""The computation graph of a text, and what each of its edges weighs.

Source: Yang et al. 2024 (Memory^3), section 2.2, definition 1. On input tokens t_0..t_{n-1} with targets t_1..t_n the
nodes are the residual stream at every position before each half layer and at the end, `2L + 1` depths; an *attention
edge* runs through one head from a source position to a destination not before it (depth 2l to 2l + 1), an *MLP edge*
through one unit at one position (2l + 1 to 2l + 2). The skip connection is no edge. L is the log-likelihood of the
targets in nats, here of those that are asked for.

An edge's number a is the attention weight after the softmax (a score of 0 before it would remove nothing; the others
do not share out what is lost: our reading, the paper says "attention score") or the unit's activation. Its weight is

    ablation               L - L with a = 0, exactly; positive: the edge helps
    gradient               dL / da
    activation-gradient    a dL / da, the first-order estimate of ablation

With explicit memories attached a is the weight in the joint softmax. Their slots and bank units are no edges here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.attachments import NOTHING, Attachment
from probes.errors import UserError
from probes.forward import Record
from probes.models import Hook, Model, name_hook
from probes.parts import PartsPass
from probes.progress import Tick, quiet
from probes.restarts import RestartedPass, Start

Weight = Literal["ablation", "gradient", "activation-gradient"]
WEIGHTS: tuple[Weight, ...] = get_args(Weight)
# Edges ablated in one pass.
ROWS = 64
# A token counts as associated when it reaches this share of the largest value of its edge; the paper says "large".
LARGE = 0.5


class TextEdge(NamedTuple):
    """One edge: through head `part` from `source` to `target`, or (`mlp`) through unit `part`, both positions one."""

    layer: int
    mlp: bool
    part: int
    source: int
    target: int

    @property
    def depths(self) -> tuple[int, int]:
        """Depth of the node that it leaves and of the node that it enters."""
        start = 2 * self.layer + self.mlp
        return start, start + 1

    @property
    def name(self) -> str:
        """Name as in `circuits/graph.py`, with positions: `a1.h2 3>5`, `m0.u17 @4`."""
        if self.mlp:
            return f"m{self.layer}.u{self.part} @{self.source}"
        return f"a{self.layer}.h{self.part} {self.source}>{self.target}"


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids, and places of the tokens whose log-likelihood counts; each is predicted from those before it."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise UserError where a target has nothing before it, or is not there."""
        if not self.targets or min(self.targets) < 1 or max(self.targets) >= len(self.ids):
            raise UserError(f"targets {self.targets} are not places 1 to {len(self.ids) - 1} of the text")


@dataclass(frozen=True, slots=True)
class TextGraph:
    """Sizes of the graph: `units` are those of one layer, 0 where an MLP is no sum over units."""

    layers: int
    heads: int
    units: int
    positions: int

    @property
    def nodes(self) -> int:
        """2L + 1 depths at every position."""
        return (2 * self.layers + 1) * self.positions

    @property
    def attention_edges(self) -> int:
        """Every head from every position to each that is not before it."""
        return self.layers * self.heads * self.positions * (self.positions + 1) // 2

    @property
    def mlp_edges(self) -> int:
        """Every unit at every position."""
        return self.layers * self.positions * self.units


@dataclass(frozen=True, slots=True)
class TracedText:
    """One recorded run of a text on its autograd graph, without its last token: that one only is predicted."""

    model: Model
    text: Text
    attachment: Attachment
    record: Record
    likelihood: Float[Tensor, " target"]

    @property
    def graph(self) -> TextGraph:
        """Sizes of the text's graph."""
        units = [tensor.shape[-1] for tensor in self.record.units.values()]
        return TextGraph(self.model.layers, self.model.heads, max(units, default=0), len(self.text.ids) - 1)

    def find(self, edge: TextEdge) -> Float[Tensor, ""]:
        """The edge's number a. Raises UserError for an edge that the graph lacks."""
        graph, record = self.graph, self.record
        count = graph.units if edge.mlp else graph.heads
        causal = edge.source == edge.target if edge.mlp else edge.source <= edge.target
        inside = 0 <= edge.layer < graph.layers and 0 <= edge.part < count
        if not (inside and causal and edge.source >= 0 and edge.target < graph.positions):
            raise UserError(f"{edge.name} is no edge of this text: {graph}")
        if edge.mlp:
            return record.units[edge.layer][0, edge.source, edge.part]
        weight = record.pattern[edge.layer][0, edge.part, edge.target, edge.source]
        return weight * record.share[edge.layer][0, edge.target, edge.part] if edge.layer in record.share else weight


def read_likelihood(logits: Float[Tensor, "row pos d_vocab"], text: Text) -> Float[Tensor, "row target"]:
    """Log-likelihood of each target, in nats, of logits at all positions."""
    places = torch.tensor(text.targets, device=logits.device)
    wanted = torch.tensor([text.ids[place] for place in text.targets], device=logits.device)
    found = logits[:, places - 1].float().log_softmax(dim=-1)
    return found.gather(2, wanted.expand(found.shape[0], -1).unsqueeze(-1)).squeeze(-1)


def trace_text(model: Model, text: Text, attachment: Attachment = NOTHING) -> TracedText:
    """Run a text once and keep what its edges carry."""
    whole = PartsPass(model, attachment, differentiable=True, attention=True)
    logits = whole.run(torch.tensor([text.ids[:-1]]))
    with torch.enable_grad():
        likelihood = read_likelihood(logits, text)[0]
    return TracedText(model, text, attachment, whole.record, likelihood)


@dataclass(frozen=True, slots=True)
class EdgeWeights:
    """Weight of every edge of a text, in nats (`gradient`: nats a unit of a); edges that do not exist weigh 0."""

    attention: Float[np.ndarray, "layer head query_pos key_pos"]
    mlp: Float[np.ndarray, "layer pos unit"]
    weight: Weight

    def rank(self, count: int, threshold: float = 0.0) -> list[TextEdge]:
        """The strongest edges by absolute weight that reach `threshold` times the largest, `count` at most."""
        flat = np.concatenate([self.attention.ravel(), self.mlp.ravel()])
        size = np.abs(flat)
        order = np.argsort(-size, kind="stable")[:count]
        largest = size.max(initial=0.0)
        return [self._name(int(place)) for place in order if size[place] > 0 and size[place] >= threshold * largest]

    def find(self, edge: TextEdge) -> float:
        """Weight of one edge."""
        if edge.mlp:
            return float(self.mlp[edge.layer, edge.source, edge.part])
        return float(self.attention[edge.layer, edge.part, edge.target, edge.source])

    def _name(self, place: int) -> TextEdge:
        if place < self.attention.size:
            layer, head, query, key = (int(i) for i in np.unravel_index(place, self.attention.shape))
            return TextEdge(layer, False, head, key, query)
        layer, position, unit = (int(i) for i in np.unravel_index(place - self.attention.size, self.mlp.shape))
        return TextEdge(layer, True, unit, position, position)


def weigh_edges(traced: TracedText, weight: Weight = "activation-gradient") -> EdgeWeights:
    """Weight of every edge from one backward pass. Raises UserError for ablation: that is measured edge by edge."""
    if weight == "ablation":
        raise UserError("ablation weights take a run an edge: choose edges by activation-gradient, then ablate those")
    record, graph = traced.record, traced.graph
    layers = range(graph.layers)
    tensors = [record.pattern[layer] for layer in layers] + [record.units[layer] for layer in sorted(record.units)]
    slopes = torch.autograd.grad(traced.likelihood.sum(), tensors, retain_graph=True, materialize_grads=True)
    attention = torch.zeros(graph.layers, graph.heads, graph.positions, graph.positions)
    for layer in layers:
        slope = slopes[layer][0]
        if weight == "activation-gradient":
            slope = slope * record.pattern[layer][0].detach()
        elif layer in record.share:
            slope = slope / record.share[layer][0].detach().T.unsqueeze(-1)
        attention[layer] = slope.float().tril().cpu()
    mlp = torch.zeros(graph.layers, graph.positions, graph.units)
    for layer, slope in zip(sorted(record.units), slopes[graph.layers :], strict=True):
        factor = record.units[layer][0].detach() if weight == "activation-gradient" else 1.0
        mlp[layer, :, : slope.shape[-1]] = (slope[0] * factor).float().cpu()
    return EdgeWeights(attention.numpy(), mlp.numpy(), weight)


class AblatingPass(RestartedPass):
    """A restarted pass whose rows each have one edge of its first layer at 0 (or, `share` below 1, brought nearer)."""

    def __init__(self, traced: TracedText, layer: int, edges: Sequence[TextEdge], share: float) -> None:
        stream = Start(layer).read_stream(traced.record)
        super().__init__(traced.model, traced.attachment, Start(layer), stream.repeat(len(edges), 1, 1))
        self.edges = edges
        self.kept = 1 - share

    def list_hooks(self) -> list[Hook]:
        """The pass's hooks, and those at the attention weights and activations of its first layer."""
        points: dict[str, Callable[..., Tensor]] = {}
        if any(not edge.mlp for edge in self.edges):
            points["attn.hook_pattern"] = partial(self._scale, mlp=False)
        if any(edge.mlp for edge in self.edges):
            points["mlp.out.hook_in"] = partial(self._scale, mlp=True)
        layer = self.start.layer
        return [*super().list_hooks(), *((name_hook(layer, point), function) for point, function in points.items())]

    def _scale(self, values: Tensor, hook: Any, mlp: bool) -> Tensor:
        values = values.clone()
        for row, edge in enumerate(self.edges):
            if edge.mlp == mlp:
                place = (edge.source, edge.part) if mlp else (edge.part, edge.target, edge.source)
                values[(row, *place)] *= self.kept
        return values


def ablate_edges(
    traced: TracedText, edges: Sequence[TextEdge], tick: Tick = quiet, share: float = 1.0
) -> Float[np.ndarray, "edge target"]:
    """Exact drop of each target's log-likelihood without each edge alone, in nats; their sum over targets is L's.

    `share` is how much of a is taken away. Raises UserError for an edge that the graph lacks.
    """
    for edge in edges:
        traced.find(edge)
    drops = np.zeros((len(edges), len(traced.text.targets)))
    clean, done = traced.likelihood.detach(), 0
    for layer in range(traced.model.layers):
        own = [place for place, edge in enumerate(edges) if edge.layer == layer]
        for start in range(0, len(own), ROWS):
            tick("edges ablated", done, len(edges))
            some = own[start : start + ROWS]
            taken_up = AblatingPass(traced, layer, [edges[place] for place in some], share)
            found = read_likelihood(taken_up.run(torch.tensor([traced.text.ids[:-1]])), traced.text)
            drops[some] = (clean - found).double().cpu().numpy()
            done += len(some)
    return drops


def measure_inputs(traced: TracedText, edges: Iterable[TextEdge]) -> Float[np.ndarray, "edge pos"]:
    """Norm of the gradient of each edge's a by the embedding at every position: how much each token moves it."""
    embedding = traced.record.embedding
    assert embedding is not None
    rows = []
    for edge in edges:
        (slope,) = torch.autograd.grad(traced.find(edge), embedding, retain_graph=True, allow_unused=True)
        norm = torch.zeros(embedding.shape[1]) if slope is None else slope[0].float().norm(dim=-1).cpu()
        rows.append(norm.numpy())
    return np.stack(rows) if rows else np.zeros((0, embedding.shape[1]))


def find_large(values: Float[np.ndarray, "edge place"], share: float = LARGE) -> list[frozenset[int]]:
    """Places of each row that reach `share` of the row's largest value; none where that is not above 0."""
    return [
        frozenset(np.flatnonzero(row >= share * row.max()).tolist()) if row.max(initial=0.0) > 0 else frozenset()
        for row in values
    ]
