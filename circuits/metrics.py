"""What is measured where the answer is read: one number a prompt, larger when the answer fares better.

An answer of several tokens is read by teacher forcing: all but its last token stand in the prompt, and the metric sums
over the positions from which each of its tokens is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.errors import UserError

Metric = Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, " batch"]]


@dataclass(frozen=True, slots=True)
class Readout:
    """Where logits are read, and which tokens compete there; one row a prompt, one column a token of the answer.

    `weights` is 1 where the row has such a token and 0 where a shorter answer was filled up.
    """

    positions: Int[Tensor, "row step"]
    answers: Int[Tensor, "row step"]
    foils: Int[Tensor, "row step"]
    weights: Float[Tensor, "row step"]

    def list_positions(self) -> tuple[int, ...]:
        """Every position at which some row is read, in order."""
        return tuple(sorted({int(p) for p in self.positions[self.weights > 0].tolist()}))

    def keep_steps(self) -> Readout:
        """The same readout of logits that were computed at its positions alone, one after the other."""
        return replace(self, positions=torch.arange(self.positions.shape[1]).expand_as(self.positions))

    def spread(self, tensor: Tensor, batch: int) -> Tensor:
        """One of this readout's tensors for a batch: its only row stands for all (many masks of one prompt)."""
        return tensor.expand(batch, *tensor.shape[1:]) if tensor.shape[0] == 1 else tensor


def build_readout(
    lengths: Sequence[int], answers: Sequence[Sequence[int]], foils: Sequence[Sequence[int]], device: str = "cpu"
) -> Readout:
    """Readout of prompts of these lengths in tokens (answers not counted), whose answers follow them.

    Raises UserError for an answer and foil of unequal length, or equal ones.
    """
    for answer, foil in zip(answers, foils, strict=True):
        if len(answer) != len(foil):
            raise UserError(
                f"the answer has {len(answer)} tokens and the foil {len(foil)}: they are compared token by token, so "
                "choose a foil of the same length, or the metric log-prob"
            )
    steps = max(len(answer) for answer in answers)

    def fill(rows: Iterable[Sequence[float]], dtype: torch.dtype) -> Tensor:
        return torch.tensor([[*row, *[0] * (steps - len(row))] for row in rows], dtype=dtype, device=device)

    places = [range(length - 1, length - 1 + len(answer)) for length, answer in zip(lengths, answers, strict=True)]
    return Readout(
        fill(places, torch.long),
        fill(answers, torch.long),
        fill(foils, torch.long),
        fill([[1.0] * len(answer) for answer in answers], torch.float32),
    )


def read_logits(logits: Float[Tensor, "batch pos d_vocab"], readout: Readout) -> Float[Tensor, "batch step d_vocab"]:
    """Logits at the positions of the readout, in float32."""
    positions = readout.spread(readout.positions, logits.shape[0]).to(logits.device)
    return logits.gather(1, positions.unsqueeze(-1).expand(-1, -1, logits.shape[-1])).float()


def pick(values: Float[Tensor, "batch step d_vocab"], tokens: Int[Tensor, "row step"]) -> Float[Tensor, "batch step"]:
    """Values of one token at each step."""
    tokens = tokens.expand(values.shape[0], -1).to(values.device)
    return values.gather(2, tokens.unsqueeze(-1)).squeeze(-1)


def build_metric(name: str, readout: Readout, clean: Float[Tensor, "row step d_vocab"]) -> Metric:
    """Metric over logits, one number a row.

    `logit-diff`: answer minus foil, in logits, summed over the answer's tokens. `log-prob`: logarithm of the whole
    answer's probability, in nats. `prob`: that probability. `kl`: minus the divergence KL(clean || here) of the
    next-token distribution, in nats, summed likewise; 0 where it is the clean run's (`clean` are its logits at the
    readout's positions).
    """

    def gather(logits: Tensor) -> tuple[Tensor, Tensor]:
        read = read_logits(logits, readout)
        return read, readout.spread(readout.weights, logits.shape[0]).to(read.device)

    def measure_difference(logits: Tensor) -> Tensor:
        read, weights = gather(logits)
        return ((pick(read, readout.answers) - pick(read, readout.foils)) * weights).sum(dim=1)

    def measure_log(logits: Tensor) -> Tensor:
        read, weights = gather(logits)
        return (pick(read.log_softmax(dim=-1), readout.answers) * weights).sum(dim=1)

    reference = clean.detach().float().log_softmax(dim=-1) if name == "kl" else None

    def measure_divergence(logits: Tensor) -> Tensor:
        assert reference is not None
        read, weights = gather(logits)
        divergence = (reference.exp() * (reference - read.log_softmax(dim=-1))).sum(dim=-1)
        return -(divergence * weights).sum(dim=1)

    metrics: dict[str, Metric] = {
        "logit-diff": measure_difference,
        "log-prob": measure_log,
        "prob": lambda logits: measure_log(logits).exp(),
        "kl": measure_divergence,
    }
    return metrics[name]
