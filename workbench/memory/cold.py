"""Documents that no memory was written of yet: found by meaning, and written when one is first read (cold start).

Source: Yang et al. 2024, section 3.1. References are cut, named and written as `memory write` would, so what is read is
the same as from a bank of these documents in the same precision. Texts and their vectors are held in memory and made
anew each time: for more than a few thousand references write a bank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from probes.errors import UserError
from probes.explicit import ExplicitMemories
from probes.memory_bank import PRECISIONS
from probes.models import Model
from probes.progress import Tick, quiet
from probes.writing import Recipe, write_memories
from workbench.memory import search
from workbench.memory.indexes import ExactIndex
from workbench.memory.retrieval import Finder
from workbench.memory.writing import ID_DIGITS, Known, list_chunks, measure_prefix


class DocumentRetriever(Finder):
    """Finds references of documents, and writes the memories of those that are read."""

    def __init__(
        self,
        model: Model,
        files: Sequence[tuple[Path, str]],
        recipe: Recipe,
        precision: str = "bfloat16",
        encoder: search.Encoder | None = None,
        tick: Tick = quiet,
    ) -> None:
        """Read and cut the documents. Raises UserError for one that cannot be read, and where none has any text."""
        super().__init__(encoder, tick)
        self.model, self.recipe, self.precision = model, recipe, precision
        recipe.check(model)
        self._texts: dict[str, tuple[str, str]] = {}
        digest, known = hashlib.sha256(), Known()
        for entry, _ in list_chunks(model, recipe, files, measure_prefix(model, recipe)):
            if not known.hold(entry["id"], entry["sha256"][:ID_DIGITS], entry["document"]):
                self._texts[entry["id"]] = entry["document"], entry["text"]
                digest.update(f"{entry['id']}\0{entry['sha256']}\0".encode())
        if not self._texts:
            raise UserError("the documents hold no text, so there is nothing to find")
        self.sha256 = digest.hexdigest()

    def __contains__(self, memory_id: object) -> bool:
        """Whether there is a reference of this id."""
        return memory_id in self._texts

    def __len__(self) -> int:
        """Number of references."""
        return len(self._texts)

    def locate(self, memory_id: str) -> int:
        """Place of a reference. Raises UserError when there is none of this id."""
        if memory_id not in self._texts:
            raise UserError(f"no reference {memory_id[:80]!r} in these documents, which have {len(self)}")
        return list(self._texts).index(memory_id)

    def make_searcher(self) -> search.Searcher:
        """An index in memory that compares every vector."""
        texts, pieces = [text for _, text in self._texts.values()], []
        for start in range(0, len(texts), search.TEXTS):
            self.tick("embedding references", start, len(texts))
            pieces.append(self.encoder.encode(texts[start : start + search.TEXTS]))
        ids = pa.chunked_array([pa.array(self._texts, pa.string())])
        return search.Searcher(ids, ExactIndex(np.concatenate(pieces)), self.encoder)

    def read_text(self, memory_id: str) -> tuple[str, str]:
        """Document and text of a reference. Raises UserError for an unknown id."""
        self.locate(memory_id)
        return self._texts[memory_id]

    def note(self, hits: Sequence[search.Hit]) -> None:
        """References are held by their ids: nothing to do."""

    def describe(self) -> dict[str, Any]:
        """JSON object of the documents; the hash is of all ids and texts."""
        return {"name": "documents", "sha256": self.sha256, "offset": self.recipe.offset, "references": len(self)}

    def write(self, ids: tuple[str, ...]) -> ExplicitMemories:
        """Memories of these references, in the precision that a bank would keep."""
        texts, own = {name: self.read_text(name)[1] for name in ids}, self.recipe
        made = write_memories(
            self.model, texts, own.layers, own.slots, own.offset, own.prefix, own.scoring, own.pooling,
            positions=own.positions,
        )  # fmt: skip
        keys, values = (part.to(PRECISIONS[self.precision]).float() for part in (made.keys, made.values))
        return replace(made, keys=keys, values=values)
