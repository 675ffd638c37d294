"""One hierarchy: text, explicit memories, levels of a bank and the anchor as rows of one table.

The ground for placing a fact: what is there, how large it is, what writing one reference costs and reading it in one
chunk. Costs of text, explicit memory and parameters are those of Yang et al. 2024, appendix A (`workbench/costs/`);
their extension to blocks of a bank is ours: a write is one training step with a frozen anchor (forward, backward
through the activations, gradients in the block alone), a read two operations a fetched number and token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.bank import Bank
from probes.facts import Fact
from probes.memory_bank import MemoryBank
from workbench.banks.measuring import list_block_bytes, measure_width
from workbench.banks.reading import is_shipped
from workbench.costs.formats import (
    TERA,
    Usage,
    read_explicit,
    read_text,
    run_forward,
    write_explicit,
    write_parameters,
    write_text,
)
from workbench.costs.shapes import Shape


@dataclass(frozen=True, slots=True)
class Place:
    """One row: where knowledge can lie. `write` and `read` are TFlops of one reference; `source` says whose formula.

    `facts` counts the known facts that can be read there, None where facts are not known.
    """

    name: str
    holds: str
    bytes: int
    write: float
    read: float
    facts: int | None
    source: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def measure_folder(folder: Path, pattern: str) -> int:
    """Bytes of a folder's files of a pattern."""
    return sum(path.stat().st_size for path in folder.glob(pattern))


def list_places(
    shape: Shape,
    model: Path,
    bank: Bank | None,
    memories: MemoryBank | None,
    facts: Sequence[Fact],
    usage: Usage | None = None,
) -> list[Place]:
    """Rows from the slowest to read to what is always read."""
    half = max(1, shape.layers // 2)
    usage = usage or Usage(
        half if memories is None else max(memories.layers) + 1, half if memories is None else len(memories.layers)
    )

    def count(keep: Sequence[Fact]) -> int | None:
        return len(keep) if facts else None

    documents = {fact.document_id: fact.document for fact in facts if fact.document}
    places = [
        Place(
            "text",
            f"{len(documents):,} documents before the prompt",
            sum(len(text.encode()) for text in documents.values()),
            write_text().total,
            read_text(shape, usage).total,
            count([fact for fact in facts if fact.document]),
            "Memory^3, appendix A",
        )
    ]
    if memories is not None:
        places.append(
            Place(
                "explicit memory",
                f"{len(memories):,} memories in layers {', '.join(map(str, memories.layers))}",
                measure_folder(memories.folder, "*.safetensors"),
                write_explicit(shape, usage).total,
                read_explicit(shape, usage).total,
                count([fact for fact in facts if fact.document_id in memories]),
                "Memory^3, appendix A",
            )
        )
    trained = [fact for fact in facts if fact.occurrences > 0]
    if bank is not None:
        # Which facts lie in a bank of one's own is not known.
        places += list_levels(shape, bank, usage, count(trained) if is_shipped(bank) else None)
    places.append(
        Place(
            "anchor",
            f"{shape.parameters:,} parameters",
            measure_folder(model, "*.safetensors"),
            write_parameters(shape, usage).total,
            0.0,
            count(trained),
            "Memory^3, appendix A",
        )
    )
    return places


def list_levels(shape: Shape, bank: Bank, usage: Usage, facts: int | None) -> list[Place]:
    """A row a level of a bank, deepest (rarest read) first."""
    logits = 2 * usage.reference * shape.vocabulary * shape.d_model / TERA
    forward = run_forward(shape, usage.reference).total + logits
    width = measure_width(bank)
    rows = []
    for level, (clusters, size) in enumerate(zip(bank.clusters, list_block_bytes(bank, width), strict=True), start=1):
        numbers = bank.design.count_numbers(level)
        kind = bank.design.kind
        rows.append(
            Place(
                f"bank, level {level}",
                f"{clusters:,} {kind} blocks of {numbers:,} numbers",
                clusters * size,
                2 * forward + 6 * usage.reference * numbers / TERA,
                2 * usage.chunk * numbers / TERA,
                facts,
                "ours",
            )
        )
    return rows[::-1]
