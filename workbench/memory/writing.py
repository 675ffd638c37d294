"""From documents to a bank: cut, skip what is there already, write in batches, commit part by part."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.memory_bank import MemoryBank, open_bank
from probes.memory_format import HEAD, VERSION, Head, read_entries
from probes.models import Model
from probes.progress import Tick
from probes.writing import Recipe, write_batch
from workbench.memory.chunks import Chunk, cut_chunks
from workbench.memory.documents import Document, count_characters, read_documents
from workbench.memory.store import BankWriter, lock_folder, prepare_folder, require_writable

# Digits of a content's SHA-256 that name a memory whose document gave no id.
ID_DIGITS = 16
# Seconds after which what waits is committed, full part or not: no more work than this is lost when it is stopped.
COMMIT_SECONDS = 60.0


@dataclass(slots=True)
class Written:
    """What a write did: memories written, those there already, and what an earlier, stopped write had left behind."""

    written: int = 0
    skipped: int = 0
    leftovers: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Known:
    """Ids and contents of the bank's memories; some 200 bytes a memory, the one thing that grows with the bank."""

    ids: set[str] = field(default_factory=set)
    contents: set[str] = field(default_factory=set)

    def hold(self, memory_id: str, content: str, document: str) -> bool:
        """Whether a memory is there already; it is from now on. Raises UserError for an id with another text."""
        if memory_id in self.ids:
            if content not in self.contents:
                raise UserError(f"{document}: the id {memory_id[:80]!r} stands for another text: delete that memory")
            return True
        self.ids.add(memory_id)
        self.contents.add(content)
        return False


def read_known(bank: MemoryBank) -> Known:
    """Ids and content hashes of a bank, deleted memories left out."""
    known = Known()
    for part in bank.head.parts:
        gone = set(part.deleted)
        rows = read_entries(bank.folder, part, ["id", "sha256"]).to_pydict()
        kept = [row for row in range(part.rows) if row not in gone]
        known.ids.update(rows["id"][row] for row in kept)
        known.contents.update(rows["sha256"][row][:ID_DIGITS] for row in kept)
    return known


def describe_chunk(document: Document, number: int, chunk: Chunk) -> dict[str, Any]:
    """Entry of a chunk. Its id: the document's own (with `#number` from the second chunk on), else of its content."""
    content = hashlib.sha256(chunk.text.encode()).hexdigest()
    given = f"{document.id}#{number}" if number and document.id else document.id
    return {
        "id": given or content[:ID_DIGITS],
        "document": document.name,
        "chunk": number,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "sha256": content,
        "token_starts": list(chunk.token_starts),
    }


def start_head(model: Model, recipe: Recipe, precision: str) -> Head:
    """Head of an empty bank."""
    return Head(
        version=VERSION,
        model_sha256=model.sha256,
        layers=recipe.layers,
        kv_heads=model.kv_heads,
        slots=recipe.slots,
        d_head=model.d_head,
        offset=recipe.offset,
        prefix=recipe.prefix,
        scoring=recipe.scoring,
        pooling=recipe.pooling,
        precision=precision,
        first_token=measure_prefix(model, recipe),
        next_part=0,
        positions=recipe.positions,
    )


def measure_prefix(model: Model, recipe: Recipe) -> int:
    """Tokens before a reference's text. Raises UserError where they leave no room for one."""
    first = len(model.tokenizer(recipe.prefix)["input_ids"])
    if recipe.limit_tokens(model) - first < 1:
        raise UserError(f"the prefix alone has {first} tokens: choose a shorter one, or a larger offset")
    return first


def write_documents(
    model: Model,
    files: Sequence[tuple[Path, str]],
    folder: Path,
    recipe: Recipe,
    precision: str,
    batch: int,
    tick: Tick,
) -> Written:
    """Write every chunk of the documents that the bank does not hold, and commit as parts fill up.

    A bank that is there is added to. Raises UserError, with the bank as it was, for a document that cannot be read,
    a bank of another model or written another way; when the disk refuses later, what was committed stays.
    """
    recipe.check(model)
    head = start_head(model, recipe, precision)
    total = count_characters(files)
    prepare_folder(folder)
    with lock_folder(folder):
        known = Known()
        if (folder / HEAD).is_file():
            bank = open_bank(folder, model)
            require_writable(bank)
            if bank.head.code:
                raise UserError(
                    f"{folder} is compressed: add to the bank that it was made of, and compress that once more"
                )
            require_same_way(bank.head, head)
            known, head = read_known(bank), bank.head
        writer = BankWriter(folder, head)
        done = Written(leftovers=writer.leftovers)
        write_chunks(
            model, recipe, writer, known, list_chunks(model, recipe, files, head.first_token), done, batch, tick, total
        )
        writer.commit()
    return done


def require_same_way(there: Head, wanted: Head) -> None:
    """Raise UserError unless memories would be written as those of the bank were."""
    for name in ("layers", "slots", "offset", "prefix", "scoring", "pooling", "positions", "precision"):
        if getattr(there, name) != getattr(wanted, name):
            raise UserError(
                f"the bank was written with {name} {getattr(there, name)}, not {getattr(wanted, name)}: choose the "
                "same, or another folder"
            )


def list_chunks(
    model: Model, recipe: Recipe, files: Sequence[tuple[Path, str]], first: int
) -> Iterator[tuple[dict[str, Any], Chunk]]:
    """Entries and chunks of all documents, in order."""
    budget = recipe.limit_tokens(model) - first
    for document in read_documents(files):
        for number, chunk in enumerate(cut_chunks(document.blocks, model.tokenizer, budget)):
            yield describe_chunk(document, number, chunk), chunk


def write_chunks(
    model: Model,
    recipe: Recipe,
    writer: BankWriter,
    known: Known,
    chunks: Iterator[tuple[dict[str, Any], Chunk]],
    done: Written,
    batch: int,
    tick: Tick,
    total: int,
) -> None:
    """Write chunks in batches; `total` characters are expected."""
    head = list(model.tokenizer(recipe.prefix)["input_ids"])
    characters, began = 0, time.monotonic()
    committed = began
    while taken := list(islice(chunks, batch)):
        characters += sum(len(chunk.text) for _, chunk in taken)
        fresh = [
            (entry, chunk)
            for entry, chunk in taken
            if not known.hold(entry["id"], entry["sha256"][:ID_DIGITS], entry["document"])
        ]
        if fresh:
            tensors = write_batch(model, recipe, [head + list(chunk.ids) for _, chunk in fresh], len(head))
            for (entry, _), keys, values, positions in zip(fresh, *tensors, strict=True):
                writer.add((entry, keys, values, positions))
        done.written += len(fresh)
        done.skipped += len(taken) - len(fresh)
        now = time.monotonic()
        if now - committed > COMMIT_SECONDS:
            writer.commit()
            committed = now
        tick(describe_progress(done, characters / total, now - began), min(characters, total), total)


def describe_progress(done: Written, share: float, seconds: float) -> str:
    """Memories so far, memories a second, and the time left at that rate."""
    left = seconds / share - seconds if share > 0 else 0.0
    rate = (done.written + done.skipped) / max(seconds, 1e-9)
    return f"{done.written} memories, {rate:.1f}/s, {max(0.0, left) / 60:.1f} min left"
