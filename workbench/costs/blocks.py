"""Sizes of banks of parametric memory blocks: numbers fetched, numbers kept, bytes, share of the passes.

Source: Pouransari et al. 2025, sections 2.1 and 3, appendix (memory types). A configuration gives the rank of a block
at each level of the tree, `(r1, ..., rp)`; a text fetches one block a level, the bank holds `branching ** level`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.costs.shapes import Shape

# Numbers of a block of rank 1 in one layer, by kind. With as many key-value heads as heads they are the paper's
# 3 d, 2 (d + h d_h), 2 (d + h d_h), 3 (d + d_f), 2 h d_h.
KINDS: dict[str, Callable[[Shape], int]] = {
    "FFN": lambda s: 3 * s.d_model,
    "LoRA (query, key)": lambda s: 2 * s.d_model + s.d_attention + s.kv_heads * s.d_head,
    "LoRA (value, output)": lambda s: 2 * s.d_model + s.d_attention + s.kv_heads * s.d_head,
    "LoRA (FFN)": lambda s: 3 * (s.d_model + s.d_ffn),
    "key-value": lambda s: 2 * s.d_attention,
}


@dataclass(frozen=True, slots=True)
class Bank:
    """A bank on a model: ranks a level, kind of blocks, children a cluster has, layers with blocks (all if None)."""

    shape: Shape
    ranks: Sequence[int]
    kind: str = "FFN"
    branching: int = 16
    block_layers: int | None = None

    @property
    def unit(self) -> int:
        """Numbers of rank 1 over all layers with blocks, the paper's c_0."""
        layers = self.shape.layers if self.block_layers is None else self.block_layers
        return layers * KINDS[self.kind](self.shape)

    @property
    def levels(self) -> tuple[int, ...]:
        """Numbers in one block of each level."""
        return tuple(self.unit * rank for rank in self.ranks)

    @property
    def fetched(self) -> int:
        """Numbers that one text fetches: a block a level."""
        return sum(self.levels)

    @property
    def clusters(self) -> tuple[int, ...]:
        """Clusters of each level."""
        return tuple(self.branching ** (level + 1) for level in range(len(self.ranks)))

    @property
    def kept(self) -> int:
        """Numbers in the whole bank."""
        return sum(size * count for size, count in zip(self.levels, self.clusters, strict=True))

    @property
    def comparisons(self) -> int:
        """Distances that greedy routing measures for one text: the children of one cluster a level."""
        return self.branching * len(self.ranks)

    def measure_bytes(self, numbers: int, width: int = 2) -> int:
        """Bytes of that many numbers, two each in bfloat16."""
        return numbers * width

    def find_parent(self, cluster: int, level: int, deepest: int) -> int:
        """Cluster of `level` that holds a cluster of level `deepest`; ids count along each level, both from 1."""
        return cluster // int(self.branching ** (deepest - level))
