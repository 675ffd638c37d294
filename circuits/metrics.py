"""What is measured at the last position: one number a row, larger when the answer fares better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Metric = Callable[[Float[Tensor, "batch d_vocab"]], Float[Tensor, " batch"]]

UNITS = {"logit-diff": "logits", "log-prob": "nats", "prob": "probability", "kl": "nats"}


@dataclass(frozen=True, slots=True)
class Target:
    """Token ids of the answer and of the foil it competes with."""

    answer: int
    foil: int


def build_metric(name: str, target: Target, clean: Float[Tensor, "1 d_vocab"]) -> Metric:
    """Metric over logits at the last position.

    `logit-diff`: answer minus foil, in logits. `log-prob`: of the answer, in nats. `prob`: of the answer. `kl`: minus
    the divergence KL(clean || here), in nats, 0 where the next-token distribution is the clean run's (`clean` are its
    logits).
    """
    if name == "logit-diff":
        return lambda logits: logits[:, target.answer] - logits[:, target.foil]
    if name == "log-prob":
        return lambda logits: logits.log_softmax(dim=-1)[:, target.answer]
    if name == "prob":
        return lambda logits: logits.softmax(dim=-1)[:, target.answer]
    reference = clean.detach().log_softmax(dim=-1)

    def measure(logits: Tensor) -> Tensor:
        return -(reference.exp() * (reference - logits.log_softmax(dim=-1))).sum(dim=-1)

    return measure


def read_last(logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, "batch d_vocab"]:
    """Logits at the last position, in float32."""
    return logits[:, -1].float()
