"""Looking into a bank without its model: entries, and the tokens that a memory keeps."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from probes.memory_bank import MemoryBank, open_bank, read_rows
from probes.memory_format import read_entries
from workbench.library import find_shipped

SHOWN = ("id", "document", "chunk", "start", "end", "text")


def find_bank(name: str) -> Path:
    """Folder of a bank as it is named on a command line: a path, or `shipped`."""
    return find_shipped() / "memory" if name == "shipped" else Path(name).expanduser()


def open_for_inspection(name: str) -> MemoryBank:
    """Bank of a name, whichever model wrote it. Raises UserError when it is none."""
    return open_bank(find_bank(name))


def list_entries(bank: MemoryBank, limit: int) -> list[dict[str, Any]]:
    """The first entries of a bank; those of version 1 have an id alone."""
    entries: list[dict[str, Any]] = []
    if bank.head.version == 1:
        return [dict.fromkeys(SHOWN) | {"id": name} for name in bank.head.ids[:limit]]
    for part in bank.head.parts:
        if len(entries) >= limit:
            break
        gone = set(part.deleted)
        rows = read_entries(bank.folder, part, list(SHOWN)).to_pylist()
        entries += [row for number, row in enumerate(rows) if number not in gone]
    return entries[:limit]


def read_entry(bank: MemoryBank, memory_id: str) -> dict[str, Any]:
    """Entry of a memory of a bank with texts. Raises UserError when there is no such memory."""
    part, row = bank.locate(memory_id)
    entry: dict[str, Any] = read_entries(bank.folder, part, list(SHOWN)).slice(row, 1).to_pylist()[0]
    return entry


def read_memory(bank: MemoryBank, memory_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Entry of a memory, and a row a layer and key-value head with the indices of the text's tokens that it keeps.

    Raises UserError when there is no such memory. Without text (version 1, or compressed from it) indices
    count the prefix's tokens too.
    """
    part, row = bank.locate(memory_id)
    _, _, positions = read_rows(bank.folder, bank.head, part, row)
    entry: dict[str, Any] = {"id": memory_id}
    if bank.head.version > 1:
        entry = read_entries(bank.folder, part).slice(row, 1).to_pylist()[0]
    kept = [
        {
            "layer": layer,
            "kv_head": head,
            "tokens": [int(token) - bank.head.first_token for token in positions[place, head] if token >= 0],
        }
        for place, layer in enumerate(bank.layers)
        for head in range(bank.head.kv_heads)
    ]
    return entry, kept


def mark_tokens(entry: dict[str, Any], kept: Collection[int]) -> str:
    """Text of an entry with the kept tokens in brackets; their indices alone where there is no text."""
    if entry.get("text") is None:
        return ", ".join(map(str, kept))
    text, starts = entry["text"], [*entry["token_starts"], len(entry["text"])]
    pieces = [text[starts[token] : starts[token + 1]] for token in range(len(starts) - 1)]
    return "".join(f"[{piece}]" if token in kept else piece for token, piece in enumerate(pieces))
