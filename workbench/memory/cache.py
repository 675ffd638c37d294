"""A fixed number of explicit memories held ready, the least recently used let go first, and which a chunk reads next.

Source: Yang et al. 2024, section 3.1: every 64 tokens the memories are replaced by five others, found by these 64
tokens. Warm start: memories are loaded from a bank; cold start: one is written from its text when it is first found.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from probes.errors import UserError
from probes.explicit import ExplicitMemories

# Tokens that read one set of memories, and memories of a set.
CHUNK_TOKENS, MEMORIES_A_CHUNK = 64, 5


class MemoryCache:
    """Memories by id, `capacity` at most; `load` gets those that are missing (from a bank, or by writing them).

    `hits` and `misses` count the memories asked for. Not for use by several threads at once.
    """

    def __init__(self, load: Callable[[tuple[str, ...]], ExplicitMemories], capacity: int) -> None:
        """Raises UserError for a capacity below 1."""
        if capacity < 1:
            raise UserError(f"the capacity is {capacity}: hold 1 memory or more")
        self.load = load
        self.capacity = capacity
        self.hits = self.misses = 0
        self._held: OrderedDict[str, ExplicitMemories] = OrderedDict()

    def __len__(self) -> int:
        """Memories held now."""
        return len(self._held)

    def select(self, ids: tuple[str, ...]) -> ExplicitMemories:
        """The memories of these ids, in this order; missing ones are loaded in one call."""
        if not ids:
            raise UserError("no memory was named: name one or more")
        missing = tuple(dict.fromkeys(name for name in ids if name not in self._held))
        self.misses += len(missing)
        self.hits += len(ids) - len(missing)
        fresh = self.load(missing) if missing else None
        # More may be asked for at once than are held afterwards.
        found = {name: self._held[name] for name in ids if name in self._held}
        if fresh is not None:
            found |= {name: fresh.select((name,)) for name in missing}
        for name in ids:
            self._held[name] = found[name]
            self._held.move_to_end(name)
        while len(self._held) > self.capacity:
            self._held.popitem(last=False)
        return join_memories([found[name] for name in ids])


def join_memories(parts: Sequence[ExplicitMemories]) -> ExplicitMemories:
    """Memories of one bank, one after the other."""
    return replace(
        parts[0],
        ids=tuple(name for part in parts for name in part.ids),
        keys=torch.cat([part.keys for part in parts]),
        values=torch.cat([part.values for part in parts]),
        positions=torch.cat([part.positions for part in parts]),
    )


def list_retrievals(prompt: int, generated: int, chunk: int = CHUNK_TOKENS) -> Iterator[tuple[int, int]]:
    """Query of each retrieval, as (start, end) in tokens, for a prompt and so many tokens to be generated.

    Each chunk of the prompt finds its own memories, by itself (a last one that is not full, by the last `chunk`
    tokens); from then on each whole chunk that was generated finds those of the next. So 128 tokens of prompt and 128
    generated make `256 / 64 - 1 = 3` (the paper's count).
    """
    for end in [*range(chunk, prompt, chunk), prompt]:
        yield max(0, end - chunk), end
    for end in range(prompt + chunk, prompt + generated, chunk):
        yield end - chunk, end
