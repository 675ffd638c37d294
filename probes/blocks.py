"""Kinds of parametric memory block: the tensors of each, their sizes, and start values without effect.

Source: Pouransari et al. 2025, appendix I. A bank has one kind of block; a block of level l has rank `ranks[l - 1]` in
every one of the bank's layers, and these tensors, `[layer, ...]`:

- `ffn`: `gate`, `up`, `down` [rank, d_model], extra units of the FFN; size 3 r l d.
- `lora`: for each projection in `targets` `NAME.in` [rank, width in] and `NAME.out` [rank, width out]; the projection
  adds `factor * (x in^T) out`. Query and key, or value and output: 2 r l (d + h d_h); the FFN's three: 3 r l (d + d_f).
- `key-value`: `key`, `value` [head, rank, d_head], read by every head in a softmax of its own; size 2 r l h d_h.

Start values: gate, up and key truncated normal, LoRA's `in` Kaiming-uniform, everything that writes zero. The paper
names these distributions; their widths (1 / sqrt of the width in) are inferred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from typing import Literal, get_args

import torch
from torch import Tensor

from probes.errors import UserError
from probes.models import Model

BlockKind = Literal["ffn", "lora", "key-value"]
KINDS: tuple[str, ...] = get_args(BlockKind)

# The paper gives alpha = 2 for LoRA; that it is the factor itself, whatever the rank, is inferred.
LORA_FACTOR = 2.0

# A bank of the paper has 16 children a cluster and 4 levels.
MOST_BRANCHING, MOST_LEVELS = 1 << 16, 16

# Projections that LoRA may change, in the order of the tensors.
TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclass(frozen=True, slots=True)
class Widths:
    """Widths of a model's projections; `d_ffn` is 0 where the MLP is not one sum over units."""

    d_model: int
    heads: int
    kv_heads: int
    d_head: int
    d_ffn: int = 0

    def find_ends(self, target: str) -> tuple[int, int]:
        """Width in and width out of a projection."""
        queries, keys = self.heads * self.d_head, self.kv_heads * self.d_head
        return {
            "query": (self.d_model, queries),
            "key": (self.d_model, keys),
            "value": (self.d_model, keys),
            "output": (queries, self.d_model),
            "gate": (self.d_model, self.d_ffn),
            "up": (self.d_model, self.d_ffn),
            "down": (self.d_ffn, self.d_model),
        }[target]


def measure_widths(model: Model) -> Widths:
    """Widths of a loaded model."""
    down = model.weights[0].down
    return Widths(model.d_model, model.heads, model.kv_heads, model.d_head, 0 if down is None else down.shape[0])


@dataclass(frozen=True, slots=True)
class Design:
    """What a bank is made of: kind of blocks, layers, rank a level, children a cluster has, widths of the model.

    Raises UserError for numbers that make no bank.
    """

    kind: str
    widths: Widths
    layers: tuple[int, ...]
    ranks: tuple[int, ...]
    branching: int = 16
    targets: tuple[str, ...] = ()
    factor: float = LORA_FACTOR

    def __post_init__(self) -> None:
        """Refuse what is no bank."""
        if self.kind not in KINDS:
            raise UserError(f"unknown kind of block {self.kind[:40]!r}: choose one of {', '.join(KINDS)}")
        if (self.kind == "lora") != bool(self.targets):
            raise UserError("LoRA blocks need target projections, and other kinds have none")
        if list(self.targets) != [target for target in TARGETS if target in self.targets]:
            raise UserError(f"LoRA targets {list(self.targets)} are not some of {', '.join(TARGETS)}, in this order")
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise UserError(f"layers {list(self.layers)} are not different layers in ascending order")
        if not self.ranks or min(self.ranks) < 0 or not any(self.ranks):
            raise UserError(f"ranks {list(self.ranks)} are not sizes of levels: one of them must be above 0")
        if self.branching < 2:
            raise UserError(f"branching is {self.branching}: a cluster has two children or more")
        if self.branching > MOST_BRANCHING or len(self.ranks) > MOST_LEVELS:
            raise UserError(f"branching {self.branching} over {len(self.ranks)} levels: no bank has as many clusters")
        if min(asdict(self.widths).values()) < 0:
            raise UserError(f"no model has the widths {self.widths}")
        if any(0 in self.widths.find_ends(target) for target in self.targets):
            raise UserError("this model's MLP is not one sum over units, so LoRA cannot change gate, up or down")

    @property
    def depth(self) -> int:
        """Number of levels."""
        return len(self.ranks)

    @property
    def clusters(self) -> tuple[int, ...]:
        """Clusters of each level."""
        return tuple(self.branching**level for level in range(1, self.depth + 1))

    def shape_tensors(self, level: int) -> dict[str, tuple[int, ...]]:
        """Shapes [layer, ...] of the tensors of one block of a level (from 1), in the order in which they are kept."""
        rank, widths, layers = self.ranks[level - 1], self.widths, len(self.layers)
        match self.kind:
            case "ffn":
                return dict.fromkeys(("gate", "up", "down"), (layers, rank, widths.d_model))
            case "key-value":
                return dict.fromkeys(("key", "value"), (layers, widths.heads, rank, widths.d_head))
        ends = {target: widths.find_ends(target) for target in self.targets}
        return {
            f"{target}.{end}": (layers, rank, width)
            for target, pair in ends.items()
            for end, width in zip(("in", "out"), pair, strict=True)
        }

    def count_numbers(self, level: int) -> int:
        """Numbers in one block of a level (from 1)."""
        return sum(prod(shape) for shape in self.shape_tensors(level).values())

    @property
    def fetched(self) -> int:
        """Numbers that one text fetches: a block a level."""
        return sum(self.count_numbers(level) for level in range(1, self.depth + 1))

    @property
    def kept(self) -> int:
        """Numbers in all blocks of all clusters, the generic ones not counted."""
        return sum(count * self.count_numbers(level) for level, count in enumerate(self.clusters, start=1))


def is_written(name: str) -> bool:
    """Whether a block's tensor is what it writes with: zero there, and the block adds nothing."""
    return name in ("down", "value") or name.endswith(".out")


def start_tensors(design: Design, level: int, blocks: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Start values [block, layer, ...] of new blocks of a level (from 1), float32: they add nothing to the model."""
    draw: Callable[[Tensor, float, torch.Generator], Tensor] = draw_uniform if design.kind == "lora" else draw_normal
    tensors = {}
    for name, shape in design.shape_tensors(level).items():
        empty = torch.zeros(blocks, *shape)
        if not is_written(name) and empty.numel():
            draw(empty, shape[-1] ** -0.5, generator)
        tensors[name] = empty
    return tensors


def draw_normal(tensor: Tensor, width: float, generator: torch.Generator) -> Tensor:
    """Fill with a truncated normal of this standard deviation, cut at two of them."""
    return torch.nn.init.trunc_normal_(tensor, std=width, a=-2 * width, b=2 * width, generator=generator)


def draw_uniform(tensor: Tensor, width: float, generator: torch.Generator) -> Tensor:
    """Fill uniformly between minus and plus this width, Kaiming's for a linear layer."""
    return tensor.uniform_(-width, width, generator=generator)
