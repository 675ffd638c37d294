"""What the stream already says at every layer: logit lens, and tuned lens with one small affine map a layer.

Logit lens (nostalgebraist 2020): the stream before a layer, at a position, goes straight through the final norm and
the unembedding. Tuned lens (Belrose et al. 2023, arXiv 2303.08112): before that it goes through a map of its layer,
`x + A x + b`, trained so that the prediction comes near the model's own, in KL(final || lens), nats. The maps start at
0, where both lenses are one; after the last layer there is no map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.attachments import Attachment
from probes.errors import UserError
from probes.forward import Pass, Record
from probes.models import Model
from probes.progress import Tick, quiet

RATE = 1e-2


def unembed(model: Model, streams: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
    """Logits that the model would give, did its last layer leave these streams."""

    def replace(stream: Tensor, hook: Any) -> Tensor:
        return streams.unsqueeze(1)

    return model.run(torch.zeros(1, 1, dtype=torch.long), [("ln_final.hook_in", replace)])[:, 0]


def stack_streams(record: Record, layers: int) -> Float[Tensor, "depth batch pos d_model"]:
    """The stream before every layer, and last after them all."""
    assert record.final_stream is not None
    return torch.stack([*(record.attention_stream[layer] for layer in range(layers)), record.final_stream]).detach()


@dataclass(frozen=True, slots=True)
class TunedLens:
    """Maps of all layers. `losses` are the mean KL on the training texts before and after, in nats, by layer."""

    weights: Float[Tensor, "layer d_model d_model"]
    biases: Float[Tensor, "layer d_model"]
    losses: tuple[tuple[float, float], ...]

    def apply(self, layer: int, streams: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """The streams before a layer, mapped; those after the last as they are."""
        if layer == len(self.weights):
            return streams
        return streams + streams @ self.weights[layer].T + self.biases[layer]


def measure_divergence(model: Model, streams: Tensor, wanted: Float[Tensor, "row d_vocab"]) -> Float[Tensor, ""]:
    """Mean KL(wanted || lens), in nats; `wanted` are log-probabilities."""
    found = unembed(model, streams).float().log_softmax(dim=-1)
    return (wanted.exp() * (wanted - found)).sum(dim=-1).mean()


def train_lens(
    model: Model, texts: Sequence[Int[Tensor, "batch pos"]], steps: int, rows: int, seed: int, tick: Tick = quiet
) -> TunedLens:
    """Tuned lens trained on every position of these texts, `steps` updates of Adam on `rows` positions a layer.

    Raises UserError without texts. The same seed gives the same maps.
    """
    if not texts:
        raise UserError("a tuned lens needs texts to be trained on: give some")
    parts = []
    for tokens in texts:
        whole = Pass(model)
        whole.run(tokens)
        parts.append(stack_streams(whole.record, model.layers).flatten(1, 2))
    streams = torch.cat(parts, dim=1).float()
    with torch.no_grad():
        wanted = unembed(model, streams[-1]).float().log_softmax(dim=-1)
    width, dtype = model.d_model, model.final_norm.weight.dtype
    weights, biases, losses = [], [], []
    for layer in range(model.layers):
        tick("tuned lens", layer, model.layers)
        generator = torch.Generator().manual_seed(seed + layer)
        weight = torch.zeros(width, width, device=streams.device, requires_grad=True)
        bias = torch.zeros(width, device=streams.device, requires_grad=True)
        scale = streams[layer].square().mean().sqrt().clamp_min(1e-6)
        optimiser = torch.optim.Adam([weight, bias], lr=RATE / width**0.5)

        def read(some: Tensor, weight: Tensor = weight, bias: Tensor = bias, scale: Tensor = scale) -> Tensor:
            return (some + some @ weight.T + bias * scale).to(dtype)

        with torch.no_grad():
            before = float(measure_divergence(model, read(streams[layer]), wanted))
        for _ in range(steps):
            chosen = torch.randint(streams.shape[1], (min(rows, streams.shape[1]),), generator=generator)
            optimiser.zero_grad()
            with torch.enable_grad():
                loss = measure_divergence(model, read(streams[layer][chosen]), wanted[chosen])
                loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            after = float(measure_divergence(model, read(streams[layer]), wanted))
        weights.append(weight.detach())
        biases.append(bias.detach() * scale)
        losses.append((before, after))
    return TunedLens(torch.stack(weights), torch.stack(biases), tuple(losses))


def read_lens(
    model: Model,
    tokens: Int[Tensor, "1 pos"],
    attachment: Attachment,
    position: int,
    lens: TunedLens | None = None,
) -> Float[Tensor, "depth d_vocab"]:
    """Log-probabilities of the next token at a position, as the stream before each layer has them, and last the model.

    In nats. With a tuned lens through its maps.
    """
    whole = Pass(model, attachment)
    whole.run(tokens)
    streams = stack_streams(whole.record, model.layers)[:, 0, position]
    if lens is not None:
        dtype = streams.dtype
        streams = torch.stack([lens.apply(layer, row.float()) for layer, row in enumerate(streams)]).to(dtype)
    with torch.no_grad():
        return unembed(model, streams).float().log_softmax(dim=-1)
