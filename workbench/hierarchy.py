"""One hierarchy: text, explicit memories, levels of a bank and the anchor as rows of one table, of open banks.

The ground for placing a fact: what is there, how large it is, what writing one reference costs and reading it in one
chunk. Costs of text, explicit memory and parameters are those of Yang et al. 2024, appendix A (`workbench/costs/`);
their extension to blocks of a bank is ours: a write is one training step with a frozen anchor (forward, backward
through the activations, gradients in the block alone), a read two operations a fetched number and token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probes.bank import Bank
from probes.facts import Fact
from probes.memory_bank import MemoryBank
from workbench import stored
from workbench.banks.measuring import measure_width
from workbench.banks.reading import is_shipped
from workbench.costs.formats import Usage
from workbench.costs.shapes import Shape
from workbench.stored import Blocks, Memories, Place, measure_folder


def list_places(
    shape: Shape,
    model: Path,
    bank: Bank | None,
    memories: MemoryBank | None,
    facts: Sequence[Fact],
    usage: Usage | None = None,
) -> list[Place]:
    """Rows from the slowest to read to what is always read (`workbench/stored.py`)."""
    half = max(1, shape.layers // 2)
    usage = usage or Usage(
        half if memories is None else max(memories.layers) + 1, half if memories is None else len(memories.layers)
    )
    return stored.list_places(
        shape,
        model,
        None if bank is None else describe_blocks(bank),
        None if memories is None else describe_memories(memories),
        facts,
        usage,
    )


def describe_blocks(bank: Bank) -> Blocks:
    """Sizes of an open bank."""
    numbers = tuple(bank.design.count_numbers(level) for level in range(1, len(bank.clusters) + 1))
    return Blocks(bank.design.kind, bank.branching, bank.clusters, numbers, measure_width(bank), is_shipped(bank))


def describe_memories(memories: MemoryBank) -> Memories:
    """Sizes of an open bank of explicit memories."""
    ids = frozenset(memories.ids.drop_null().to_pylist())
    return Memories(memories.layers, memories.slots, ids, measure_folder(memories.folder, "*.safetensors"))
