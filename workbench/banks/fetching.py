"""Which blocks of a bank a text reads while it goes on: routed once by the prompt, or anew for every chunk.

Source: Pouransari et al. 2025, section 2: blocks are fetched for a document or context, not for a token; so `prompt` is
the paper's way. `chunk` routes each chunk by itself, as Memory^3 finds explicit memories anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from probes.attachments import BankBlocks
from probes.bank import Bank, fetch_blocks
from probes.facts import Fact
from probes.models import Model
from probes.prompts import find_named_fact
from workbench.banks.reading import choose_route, is_shipped

ROUTINGS = {"prompt": "once, by the whole prompt", "chunk": "anew for every chunk, by its own tokens"}


@dataclass(frozen=True, slots=True)
class Fetch:
    """One fetch: the tokens that were routed, from `start` to before `end`, the path, and how it was found."""

    start: int
    end: int
    path: tuple[int, ...]
    note: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"query": [self.start, self.end], "path": list(self.path), "note": self.note}


@dataclass(slots=True)
class Fetcher:
    """What `workbench/generation.py` asks at each chunk: routes it in a reading mode and keeps account of that."""

    model: Model
    bank: Bank
    reading: str = "fetched"
    routing: str = "prompt"
    facts: Sequence[Fact] = ()
    seed: int = 0
    fetches: list[Fetch] = field(default_factory=list)
    _held: dict[tuple[int, ...], BankBlocks] = field(default_factory=dict)

    def __call__(self, tokens: Sequence[int], start: int, end: int) -> BankBlocks | None:
        """Blocks for the chunk whose query is `tokens[start:end]`; None when no bank is read.

        Raises UserError for a mode that this bank does not allow, and for a block that it lacks.
        """
        if self.routing == "chunk" or not self.fetches:
            first, last = (start, end) if self.routing == "chunk" else (0, len(tokens))
            text = str(self.model.tokenizer.decode(list(tokens[first:last]), skip_special_tokens=True))
            # A prompt that names a shipped fact reads the fact's own path, as `ask` and `trace` do.
            known = is_shipped(self.bank) and self.routing == "prompt"
            fact = find_named_fact(text, self.facts) if known else None
            route = choose_route(self.bank, self.reading, fact, text, self.facts, self.seed)
            self.fetches.append(Fetch(first, last, route.path, route.note))
        path = self.fetches[-1].path
        if path and path not in self._held:
            self._held[path] = fetch_blocks(self.bank, self.model, path)
        return self._held[path] if path else None

    def describe(self) -> dict[str, Any]:
        """JSON object of the bank and of what was read from it."""
        return {
            "name": self.bank.folder.name,
            "sha256": self.bank.sha256,
            "reading": self.reading,
            "routing": self.routing,
            "fetches": [fetch.to_json() for fetch in self.fetches],
        }
