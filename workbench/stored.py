"""What is stored of text, explicit memories and bank blocks, read from their heads: counts and bytes, no tensors.

It opens no network library, so that pages can show it at once; `workbench/hierarchy.py` says the same of open banks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.descriptions import read_description
from probes.errors import UserError
from probes.facts import Fact
from probes.parquet_tables import read_table
from probes.tensor_headers import read_header
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

BANK, MEMORY = "memory-circuits/bank", "memory-circuits/explicit-memory"


@dataclass(frozen=True, slots=True)
class Blocks:
    """A bank: clusters of each level, numbers of a block, bytes of a number; `known`: facts have paths in it."""

    kind: str
    branching: int
    clusters: tuple[int, ...]
    numbers: tuple[int, ...]
    width: int
    known: bool = True

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of one block of each level."""
        return tuple(numbers * self.width for numbers in self.numbers)

    @property
    def whole(self) -> int:
        """Bytes of all blocks."""
        return sum(size * count for size, count in zip(self.sizes, self.clusters, strict=True))


@dataclass(frozen=True, slots=True)
class Memories:
    """A bank of explicit memories: its memory layers, slots, ids and bytes."""

    layers: tuple[int, ...]
    slots: int
    ids: frozenset[str]
    bytes: int


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
    """Bytes of a folder's files of a pattern; a link that leads nowhere has none."""
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def read_width(path: Path) -> int:
    """Bytes of a number in a safetensors file, by the type of its first tensor. Raises UserError for a damaged one."""
    try:
        return next(iter(read_header(path).values())).width
    except (OSError, ValueError, StopIteration) as error:
        raise UserError(f"{path} is no whole file of tensors ({type(error).__name__}): write it again") from None


def read_blocks(folder: Path) -> Blocks:
    """Sizes of a bank from its head alone. Raises UserError when it is missing or damaged.

    Blocks of other kinds than `ffn` have shapes that only the network side knows, which is imported then.
    """
    about = read_description(folder / "bank.json", BANK, (1, 2))
    try:
        shard = next(iter(sorted(folder.glob("subtree-*.safetensors"))), folder / "blocks.safetensors")
        if about["kind"] != "ffn":
            from probes.bank_format import read_bank_head

            design = read_bank_head(folder).design
            numbers = tuple(design.count_numbers(level) for level in range(1, len(design.clusters) + 1))
            return Blocks(design.kind, design.branching, design.clusters, numbers, read_width(shard), known=False)
        width = int(about["d_model"] if about["version"] == 1 else about["widths"]["d_model"])
        ranks = [int(level["units"] if about["version"] == 1 else level["rank"]) for level in about["levels"]]
        numbers = tuple(3 * width * rank * len(about["layers"]) for rank in ranks)
        clusters = tuple(int(level["clusters"]) for level in about["levels"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{folder} has no whole head of a bank ({type(error).__name__}): write it again") from None
    known = about["version"] == 1 or not about.get("router")
    return Blocks("ffn", int(about["branching"]), clusters, numbers, read_width(shard), known)


def read_memories(folder: Path) -> Memories:
    """Layers, slots, ids and bytes of a bank of explicit memories. Raises UserError when it is missing or damaged."""
    about = read_description(folder / "memory.json", MEMORY, (1, 2))
    try:
        layers, slots = tuple(int(layer) for layer in about["layers"]), int(about.get("slots", 0))
        ids = [str(name) for name in about["ids"]] if about["version"] == 1 else list_ids(folder, about["parts"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{folder} has no whole head of memories ({type(error).__name__}): write it again") from None
    return Memories(layers, slots, frozenset(ids), measure_folder(folder, "*.safetensors"))


def list_ids(folder: Path, parts: Sequence[dict[str, Any]]) -> list[str]:
    """Ids of a bank's memories, deleted ones left out. Raises UserError for entries that cannot be read."""
    import pyarrow as pa

    found = []
    for part in parts:
        path = folder / f"{Path(str(part['name'])).name}.parquet"
        try:
            names = read_table(path, ["id"]).column("id").to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} cannot be read ({type(error).__name__}): write the bank again") from None
        gone = {int(row) for row in part["deleted"]}
        found += [str(name) for row, name in enumerate(names) if row not in gone]
    return found


def choose_usage(shape: Shape, memories: Memories | None) -> Usage:
    """How memories are written and read: in the layers that they have, else in the first half of the model."""
    half = max(1, shape.layers // 2)
    if memories is None:
        return Usage(half, half)
    kept = memories.slots or Usage(half, half).kept
    return Usage(max(memories.layers) + 1, len(memories.layers), kept=kept)


def list_places(
    shape: Shape,
    model: Path,
    blocks: Blocks | None,
    memories: Memories | None,
    facts: Sequence[Fact],
    usage: Usage,
) -> list[Place]:
    """Rows from the slowest to read to what is always read."""

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
                f"{len(memories.ids):,} memories in layers {', '.join(map(str, memories.layers))}",
                memories.bytes,
                write_explicit(shape, usage).total,
                read_explicit(shape, usage).total,
                count([fact for fact in facts if fact.document_id in memories.ids]),
                "Memory^3, appendix A",
            )
        )
    trained = [fact for fact in facts if fact.occurrences > 0]
    if blocks is not None:
        # Which facts lie in a bank of one's own is not known.
        places += list_levels(shape, blocks, usage, count(trained) if blocks.known else None)
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


def list_levels(shape: Shape, blocks: Blocks, usage: Usage, facts: int | None) -> list[Place]:
    """A row a level of a bank, deepest (rarest read) first."""
    logits = 2 * usage.reference * shape.vocabulary * shape.d_model / TERA
    forward = run_forward(shape, usage.reference).total + logits
    rows = [
        Place(
            f"bank, level {level}",
            f"{clusters:,} {blocks.kind} blocks of {numbers:,} numbers",
            clusters * numbers * blocks.width,
            2 * forward + 6 * usage.reference * numbers / TERA,
            2 * usage.chunk * numbers / TERA,
            facts,
            "ours",
        )
        for level, (clusters, numbers) in enumerate(zip(blocks.clusters, blocks.numbers, strict=True), start=1)
    ]
    return rows[::-1]
