"""All blocks of a bank while they are trained: one table a level, a row a block, of which a step moves the fetched.

A step takes copies of the rows that its texts fetch, and gradients exist for these alone; the optimizer is Adam for
sparse gradients, which neither moves nor remembers anything of the other rows. Source: Pouransari et al. 2025,
section 2 and appendix A.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probes.attachments import BankBlocks
from probes.bank_format import GENERIC_SHARD, name_subtree
from probes.blocks import Design
from workbench.banks.writing import ShardTensors, start_shards


@dataclass(frozen=True, slots=True)
class Fetched:
    """Copies of the rows that a step fetches, one tensor a level, which collect gradients; `rows` says which they are.

    Every process of a parallel training fetches the rows of all processes' texts, so that gradients can be summed.
    """

    design: Design
    rows: tuple[Int[Tensor, " _"], ...]
    copies: tuple[Float[Tensor, "_ _"], ...]

    def attach(self, ids: Int[Tensor, "row level"]) -> BankBlocks:
        """Blocks for a batch, one path of block rows each."""
        weights: dict[str, list[Tensor]] = {}
        for level, (known, copies) in enumerate(zip(self.rows, self.copies, strict=True), start=1):
            own = copies[torch.searchsorted(known, ids[:, level - 1].contiguous()).to(copies.device)]
            for name, part in split_block(self.design, level, own).items():
                weights.setdefault(name, []).append(part)
        levels = {name: tuple(parts) for name, parts in weights.items()}
        # Rows have paths of their own, and nothing reads the one that a value of this class is named by.
        path = (0,) * self.design.depth
        return BankBlocks(path, self.design.layers, levels, self.design.kind, self.design.factor)


def split_block(design: Design, level: int, flat: Float[Tensor, "row number"]) -> dict[str, Tensor]:
    """Tensors [row, layer, ...] of blocks that lie in a table end to end."""
    shapes = design.shape_tensors(level)
    pieces = torch.split(flat, [prod(shape) for shape in shapes.values()], dim=1)
    return {name: piece.reshape(-1, *shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


class BlockTables:
    """Tables on the processor, [clusters of the level + 1, numbers of a block], the generic block last."""

    def __init__(self, design: Design, seed: int) -> None:
        """All blocks at their start values, which add nothing to the model."""
        self.design = design
        self.tables = [
            nn.Parameter(torch.zeros(clusters + 1, design.count_numbers(level)))
            for level, clusters in enumerate(design.clusters, start=1)
        ]
        for name, tensors in start_shards(design, seed, torch.float32):
            self.fill(name, tensors)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Tables by name, those of empty levels left out."""
        return {f"level{level}": table for level, table in enumerate(self.tables, start=1) if table.shape[1]}

    def place(self, name: str, level: int) -> slice:
        """Rows of a shard in the table of a level."""
        if name == GENERIC_SHARD:
            return slice(self.design.clusters[level - 1], None)
        below, subtree = self.design.branching ** (level - 1), int(name.rpartition("-")[2])
        return slice(subtree * below, (subtree + 1) * below)

    def fill(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Put a shard's blocks in their rows."""
        with torch.no_grad():
            for level, table in enumerate(self.tables, start=1):
                parts = [tensors[f"level{level}.{part}"] for part in self.design.shape_tensors(level)]
                table[self.place(name, level)] = torch.cat([part.float().flatten(1) for part in parts], dim=1)

    def cut_shards(self, dtype: torch.dtype, names: Sequence[str]) -> Iterator[ShardTensors]:
        """Shards of these names, as a bank keeps them."""
        for name in names:
            yield (
                name,
                {
                    f"level{level}.{part}": tensor.to(dtype)
                    for level, table in enumerate(self.tables, start=1)
                    for part, tensor in split_block(self.design, level, table[self.place(name, level)]).items()
                },
            )

    def find_rows(self, paths: Int[Tensor, "row level"], generic: Bool[Tensor, " row"]) -> Int[Tensor, "row level"]:
        """Row of each level's table that each text fetches: its cluster's, or the generic block's."""
        return torch.where(generic[:, None], torch.tensor(self.design.clusters), paths)

    def fetch(self, ids: Int[Tensor, "row level"], device: torch.device) -> Fetched:
        """Copies of the rows that these texts fetch, on the device, ready to collect gradients."""
        rows = tuple(torch.unique(ids[:, level]) for level in range(len(self.tables)))
        copies = tuple(
            table.detach()[own].to(device).requires_grad_() for table, own in zip(self.tables, rows, strict=True)
        )
        return Fetched(self.design, rows, copies)

    def make_optimizer(self) -> torch.optim.SparseAdam:
        """Adam that moves and remembers fetched rows alone."""
        return torch.optim.SparseAdam(list(self.weights.values()), lr=1.0, betas=(0.9, 0.95))

    def move(self, fetched: Fetched, optimizer: torch.optim.Optimizer, rate: float, decay: float) -> None:
        """One step of the optimizer at this rate with the gradients that were collected, of norm 1 at most together.

        Weight decay is AdamW's, on fetched rows alone.
        """
        gradients = [torch.zeros_like(copies) if copies.grad is None else copies.grad for copies in fetched.copies]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        scale = (1.0 / norm.clamp(min=1.0)).item()
        for table, rows, gradient in zip(self.tables, fetched.rows, gradients, strict=True):
            with torch.no_grad():
                table[rows] *= 1 - rate * decay
            table.grad = torch.sparse_coo_tensor(
                rows[None],
                gradient.to(table.device, torch.float32) * scale,
                table.shape,
                check_invariants=False,
                is_coalesced=True,
            )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def name_shards(design: Design, subtree: int | str | None) -> list[str]:
    """Shards that a training makes: all, one subtree's, or (`generic`) the generic one."""
    if subtree is None:
        return [GENERIC_SHARD, *(name_subtree(cluster) for cluster in range(design.branching))]
    return [GENERIC_SHARD if subtree == "generic" else name_subtree(int(subtree))]
