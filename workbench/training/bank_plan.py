"""How a bank is trained: kind of block, clusters, steps and rates, as one value that is checked."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from probes.blocks import TARGETS, Design
from probes.errors import UserError
from workbench.training.attached_blocks import measure_network
from workbench.training.networks import Network

ANCHORS = ("frozen", "co-trained", "scratch")
# What LoRA changes, by the names that the paper's comparison gives its kinds.
LORA = {"qk": ("query", "key"), "vo": ("value", "output"), "ffn": ("gate", "up", "down")}
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class BankPlan:
    """How a bank is trained: kind, rank of each level, clusters, steps and rates.

    `anchor` says what becomes of the model: `frozen`, `co-trained`, or `scratch` (its weights drawn anew). `subtree`
    limits a training to one cluster of level 1, or to the `generic` blocks. The paper's rate is 1e-4 at 2 million
    tokens a step; small steps want more.
    """

    units: tuple[int, ...] = (64, 32)
    kind: str = "ffn"
    targets: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    branching: int = 16
    steps: int = 1000
    rows: int = 16
    length: int = 512
    rate: float = 1e-3
    decay: float = 1e-3
    anchor: str = "frozen"
    anchor_rate: float = 1e-4
    anchor_decay: float = 0.05
    subtree: int | str | None = None
    whiten: bool = True
    precision: str = "bfloat16"
    seed: int = 0
    bf16: bool = False

    def check(self, network: Network) -> None:
        """Raise UserError for the first setting that is out of its range or does not fit the model."""
        if self.anchor not in ANCHORS or self.precision not in PRECISIONS:
            raise UserError(f"the model is {' or '.join(ANCHORS)}, blocks are kept in {' or '.join(PRECISIONS)}")
        for name in ("steps", "rows"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: give 1 or more")
        if not 0 < self.rate < 1 or not 0 < self.anchor_rate < 1 or not 0 <= self.seed < 2**31:
            raise UserError("give rates between 0 and 1, and a seed from 0 to 2147483647")
        if not 8 <= self.length <= network.context:
            raise UserError(f"the length is {self.length}: give 8 to {network.context} tokens")
        if any(not 0 <= layer < network.layers for layer in self.layers):
            raise UserError(f"layers {list(self.layers)} are not all in 0..{network.layers - 1}")
        if self.subtree is not None and self.anchor != "frozen":
            raise UserError("subtrees are trained apart beside a frozen model alone: leave --subtree or --anchor out")
        if isinstance(self.subtree, int) and not 0 <= self.subtree < self.branching:
            raise UserError(f"subtree {self.subtree} is not in 0..{self.branching - 1}")

    def build_design(self, network: Network) -> Design:
        """Design of the bank. Raises UserError for numbers that make no bank."""
        layers = self.layers or tuple(range(network.layers))
        targets = tuple(target for target in TARGETS if target in self.targets)
        return Design(self.kind, measure_network(network), layers, self.units, self.branching, targets)
