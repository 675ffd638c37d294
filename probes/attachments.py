"""Memories as they are attached to one forward pass: explicit key-values and fetched bank blocks."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.blocks import is_written
from probes.errors import UserError


@dataclass(frozen=True, slots=True)
class ExplicitBlocks:
    """Explicit memories read at the same time, keys already turned to their distance from the context.

    One row a prompt, or one for all. `layers` are the memory layers, in the order of the second axis.
    A slot marked in `absent` (references shorter than the number of slots) is never read.
    """

    ids: tuple[str, ...]
    layers: tuple[int, ...]
    keys: Float[Tensor, "rows layer block kv_head slot d_head"]
    values: Float[Tensor, "rows layer block kv_head slot d_head"]
    absent: Bool[Tensor, "rows layer block kv_head slot"]

    def __len__(self) -> int:
        """Number of memories."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class BankBlocks:
    """Blocks fetched from a parametric bank, one a level; `path` holds the cluster id of each level.

    `weights` holds the tensors of the kind (`probes/blocks.py`), one a level, each [batch, layer, ...]; batch is 1
    where all rows of a pass read the same blocks, and `layers` names the layers of the second axis. `factor` is LoRA's.
    """

    path: tuple[int, ...]
    layers: tuple[int, ...]
    weights: Mapping[str, tuple[Tensor, ...]]
    kind: str = "ffn"
    factor: float = 1.0

    def __len__(self) -> int:
        """Number of levels."""
        return len(self.path)

    def pick(self, name: str, level: int, layer: int) -> Tensor:
        """One tensor of a level's block at a layer of the model, [batch, ...]."""
        return self.weights[name][level][:, self.layers.index(layer)]

    def change(self, function: Callable[..., Tensor], *others: BankBlocks) -> BankBlocks:
        """The same blocks with `function` of each tensor, and of the same tensors of other blocks of the same shape."""
        weights = {
            name: tuple(
                function(*tensors) for tensors in zip(levels, *(other.weights[name] for other in others), strict=True)
            )
            for name, levels in self.weights.items()
        }
        return replace(self, weights=weights)

    def silence(self, levels: Container[int]) -> BankBlocks:
        """The same blocks, those of these levels adding nothing: what they write with is zero."""
        weights = {
            name: tuple(
                torch.zeros_like(part) if level in levels and is_written(name) else part
                for level, part in enumerate(parts)
            )
            for name, parts in self.weights.items()
        }
        return replace(self, weights=weights)


@dataclass(frozen=True, slots=True)
class Attachment:
    """What is attached to a forward pass beside the model's own parameters."""

    explicit: ExplicitBlocks | None = None
    bank: BankBlocks | None = None


NOTHING = Attachment()


def mix_tensors(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Point on the straight line from start (share 0) to end (share 1)."""
    return start if start is end else torch.lerp(start, end, share)


def interpolate(start: Attachment, end: Attachment, share: float) -> Attachment:
    """Attachment on the straight path of memory contents from `start` (share 0) to `end` (share 1).

    Raises UserError when the two differ in layers, number of blocks or levels: there is no path between those.
    """
    require_same_shape(start, end)
    explicit, bank = end.explicit, end.bank
    if explicit is not None and start.explicit is not None:
        explicit = replace(
            explicit,
            keys=mix_tensors(start.explicit.keys, explicit.keys, share),
            values=mix_tensors(start.explicit.values, explicit.values, share),
            absent=explicit.absent & start.explicit.absent if share < 1 else explicit.absent,
        )
    if bank is not None and start.bank is not None:
        bank = bank.change(lambda there, here: mix_tensors(here, there, share), start.bank)
    return Attachment(explicit, bank)


def remove_memories(
    attachment: Attachment,
    give_back: bool,
    blocks: Sequence[int] | None = None,
    levels: Sequence[int] | None = None,
) -> Attachment:
    """The same attachment with memories removed, one way or the other: these explicit blocks and bank levels, or all.

    `give_back` takes the slots of explicit memories out of the softmax, so that context and other memories take their
    share of the attention (renormalised); without it only their contribution is removed: slots keep their attention
    and their values are zero. Bank blocks, whose units compete with nothing, write nothing either way. Raises
    UserError where nothing is attached.
    """
    explicit, bank = attachment.explicit, attachment.bank
    if explicit is None and bank is None:
        raise UserError("no memory is attached that could be removed: attach one, or choose another ablation")
    if explicit is not None:
        gone = list(range(len(explicit)) if blocks is None else blocks)
        absent, values = explicit.absent.clone(), explicit.values.clone()
        if give_back:
            absent[:, :, gone] = True
        else:
            values[:, :, gone] = 0.0
        explicit = replace(explicit, absent=absent, values=values)
    if bank is not None:
        bank = bank.silence(range(len(bank)) if levels is None else levels)
    return Attachment(explicit, bank)


def repeat_rows(attachment: Attachment, times: int) -> Attachment:
    """The attachment of a batch of prompts for the same batch `times` over; a row that stands for all stays alone."""

    def repeat(tensor: Tensor) -> Tensor:
        return tensor if tensor.shape[0] == 1 else tensor.repeat(times, *[1] * (tensor.dim() - 1))

    explicit, bank = attachment.explicit, attachment.bank
    if explicit is not None:
        parts = (explicit.keys, explicit.values, explicit.absent)
        keys, values, absent = map(repeat, parts)
        explicit = replace(explicit, keys=keys, values=values, absent=absent)
    if bank is not None:
        bank = bank.change(repeat)
    return Attachment(explicit, bank)


def require_same_shape(first: Attachment, second: Attachment) -> None:
    """Raise UserError unless both attach the same kinds of memory with the same layers, blocks and levels."""

    def describe(attachment: Attachment) -> tuple[object, ...]:
        explicit, bank = attachment.explicit, attachment.bank
        return (
            explicit and (explicit.layers, tuple(explicit.keys.shape[2:])),
            bank and (bank.kind, bank.layers, [[tuple(p.shape[1:]) for p in parts] for parts in bank.weights.values()]),
        )

    if describe(first) != describe(second):
        raise UserError(
            "two prompts that are compared have different memories attached: give both the same number of explicit "
            "memories and bank levels"
        )


def stack_attachments(rows: Sequence[Attachment]) -> Attachment:
    """One attachment for a batch, a row for each prompt. Raises UserError unless all have the same kinds and sizes."""
    first = rows[0]
    for row in rows[1:]:
        require_same_shape(first, row)
    explicits = [row.explicit for row in rows if row.explicit is not None]
    banks = [row.bank for row in rows if row.bank is not None]

    return Attachment(
        explicit=replace(
            explicits[0],
            keys=torch.cat([explicit.keys for explicit in explicits]),
            values=torch.cat([explicit.values for explicit in explicits]),
            absent=torch.cat([explicit.absent for explicit in explicits]),
        )
        if explicits
        else None,
        bank=banks[0].change(lambda *rows: torch.cat(rows), *banks[1:]) if banks else None,
    )
