"""Definition 1 on real passes: counts, and each weight against an edit of the model's own attention or activation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.text_graph import (
    Text,
    TextEdge,
    TextGraph,
    TracedText,
    ablate_edges,
    find_large,
    measure_inputs,
    read_likelihood,
    trace_text,
    weigh_edges,
)
from probes.attachments import NOTHING, Attachment
from probes.errors import UserError
from tests.checkpoints import load_shape, make_explicit

TEXT = Text((0, 20, 31, 44, 52, 7), (2, 4, 5))
SHAPES = ("gpt2", "pythia", "llama", "gemma3")
ATTENTION, UNIT = TextEdge(1, False, 2, 1, 3), TextEdge(1, True, 5, 3, 3)


def trace(shape: str, memories: bool = False) -> TracedText:
    """Traced text of a random model."""
    model = load_shape(shape)
    return trace_text(model, TEXT, Attachment(make_explicit(model, (1, 2))) if memories else NOTHING)


def measure_edited(traced: TracedText, edge: TextEdge, change: float, factor: float) -> float:
    """Log-likelihood of all targets when the edge's number is scaled and moved in the model itself."""

    def edit(values: torch.Tensor, hook: object) -> torch.Tensor:
        values = values.clone()
        place = (0, edge.source, edge.part) if edge.mlp else (0, edge.part, edge.target, edge.source)
        values[place] = values[place] * factor + change
        return values

    point = "mlp.out.hook_in" if edge.mlp else "attn.hook_pattern"
    with torch.no_grad():
        logits = traced.model.run(torch.tensor([TEXT.ids[:-1]]), [(f"blocks.{edge.layer}.{point}", edit)])
    return float(read_likelihood(logits, TEXT).sum())


def test_counts_are_those_of_the_definition() -> None:
    """n(2L+1) nodes, L H n(n+1)/2 attention edges, L n W MLP edges, and as many weights are not 0."""
    traced = trace("llama")
    graph = traced.graph
    assert graph == TextGraph(layers=3, heads=4, units=48, positions=5)
    assert (graph.nodes, graph.attention_edges, graph.mlp_edges) == (35, 180, 720)
    weights = weigh_edges(traced)
    assert np.count_nonzero(weights.attention) <= 180 and weights.mlp.size == 720
    everything = trace_text(traced.model, Text(TEXT.ids, tuple(range(1, 6))))
    # The last position's edges matter too: it predicts the last target.
    assert np.count_nonzero(weigh_edges(everything).attention) == 180


@pytest.mark.parametrize("edge", [ATTENTION, UNIT])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_edits_of_the_model(shape: str, edge: TextEdge) -> None:
    """Ablation: the number set to 0. Gradient: a finite difference of it. Their product: the number times that."""
    traced = trace(shape)
    exact = ablate_edges(traced, [edge])
    whole = float(traced.likelihood.detach().sum())
    assert exact.sum() == pytest.approx(whole - measure_edited(traced, edge, 0.0, 0.0), abs=2e-5)
    step = 1e-2
    high, low = (measure_edited(traced, edge, sign * step, 1.0) for sign in (1, -1))
    slope = weigh_edges(traced, "gradient").find(edge)
    assert (high - low) / (2 * step) == pytest.approx(slope, rel=0.02, abs=2e-3)
    assert weigh_edges(traced).find(edge) == pytest.approx(slope * float(traced.find(edge).detach()), rel=1e-4)


def test_gradients_are_slopes_of_ablation_with_memories() -> None:
    """A small share taken away, beside explicit memories: per unit of a, the gradient."""
    traced = trace("llama", memories=True)
    for edge in (ATTENTION, UNIT):
        high, low = (ablate_edges(traced, [edge], share=share).sum() for share in (2e-2, -2e-2))
        assert (high - low) / 4e-2 == pytest.approx(weigh_edges(traced).find(edge), rel=0.02, abs=2e-4)
        number = float(traced.find(edge).detach())
        assert weigh_edges(traced, "gradient").find(edge) * number == pytest.approx(
            weigh_edges(traced).find(edge), rel=1e-3
        )


def test_an_edge_has_no_effect_on_what_stands_before_it() -> None:
    """Ablating an edge into position 3 leaves the second token's likelihood alone, and depends on no later token."""
    traced = trace("llama")
    drops = ablate_edges(traced, [ATTENTION, UNIT])
    assert np.abs(drops[:, 0]).max() <= 1e-6 and np.abs(drops[:, 1]).min() > 1e-6
    norms = measure_inputs(traced, [ATTENTION, UNIT])
    assert not norms[:, 4:].any() and norms[:, :4].min() > 0


def test_large_is_half_of_the_largest() -> None:
    """And nothing where all is 0."""
    assert find_large(np.array([[1.0, 0.5, 0.4], [0.0, 0.0, 0.0]])) == [frozenset({0, 1}), frozenset()]


def test_what_is_no_edge_is_refused() -> None:
    """Later sources, absent heads, targets that nothing predicts, and ablation from one backward pass."""
    traced = trace("llama")
    for edge in (TextEdge(0, False, 0, 3, 1), TextEdge(0, False, 4, 0, 1), TextEdge(3, True, 0, 1, 1)):
        with pytest.raises(UserError, match="is no edge of this text"):
            ablate_edges(traced, [edge])
    with pytest.raises(UserError, match="are not places 1 to 5"):
        Text(TEXT.ids, (0,))
    with pytest.raises(UserError, match="a run an edge"):
        weigh_edges(traced, "ablation")
