"""From a text to the memories it reads: nearest in meaning, less what the text already holds, kept at hand.

Source: Yang et al. 2024, section 3.1 (5 memories a chunk of 64 tokens, fixed-size cache, warm and cold start) and
section 4.4 (overlap filter).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from probes.attachments import ExplicitBlocks
from probes.errors import UserError
from probes.explicit import ExplicitMemories, turn_memories
from probes.memory_bank import PRECISIONS, MemoryBank
from probes.memory_format import Part, read_entries
from probes.models import Model
from probes.prefix import add_prefix
from probes.progress import Tick, quiet
from probes.writing import write_memories
from workbench.answers import Found
from workbench.memory import search
from workbench.memory.cache import MemoryCache, list_retrievals
from workbench.memory.indexes import Vectors
from workbench.memory.overlap import holds_reference

if TYPE_CHECKING:
    import pyarrow as pa

# The paper's filter leaves out references of which a text holds more than this.
OVERLAP = 2 / 3
# Parts whose texts are held at once.
TABLES_HELD = 8


class Finder(ABC):
    """Finds memories by a text; the index is opened at the first search. Not for several threads at once."""

    def __init__(self, encoder: search.Encoder | None = None, tick: Tick = quiet) -> None:
        self.encoder = search.DEFAULT_ENCODER if encoder is None else encoder
        self.tick = tick
        self._searcher: search.Searcher | None = None
        self._ahead: dict[str, Vectors] = {}

    @abstractmethod
    def make_searcher(self) -> search.Searcher:
        """The index of all that can be found."""

    @abstractmethod
    def read_text(self, memory_id: str) -> tuple[str, str]:
        """Document and text of a memory. Raises UserError for an unknown id."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON object of where memories come from: `name`, `sha256` and `offset`."""

    @abstractmethod
    def note(self, hits: Sequence[search.Hit]) -> None:
        """Called with what a search found, before it is read."""

    def open(self) -> search.Searcher:
        """The index, made at the first call. Raises UserError as `find` does."""
        if self._searcher is None:
            self._searcher = self.make_searcher()
        return self._searcher

    def embed_ahead(self, queries: Sequence[str]) -> None:
        """Embed queries that are known before they are asked, each for one search: in one call, which costs less."""
        self._ahead = dict(zip(queries, self.encoder.encode(list(queries)), strict=True)) if queries else {}

    def find(self, query: str, count: int, text: str = "", overlap: float = 1.0) -> tuple[Found, ...]:
        """The `count` memories nearest to a query, best first, without those of whose words, in order, `text` holds
        more than the share `overlap`. Fewer where the bank has no more.

        Raises UserError when an extra is missing, or for a bank without texts or memories.
        """
        searcher = self.open()
        vector = self._ahead.pop(query, None)
        if vector is None:
            vector = self.encoder.encode([query])[0]
        words, wanted = text.split(), count
        while True:
            hits = searcher.search_vector(vector, wanted)
            self.note(hits)
            found = [Found(hit.id, round(hit.score, 6), *self.read_text(hit.id)) for hit in hits]
            kept = [one for one in found if not holds_reference(words, one.text.split(), overlap)]
            if len(kept) >= count or wanted >= len(searcher.ids):
                return tuple(kept[:count])
            wanted *= 4

    def name(self, ids: Sequence[str]) -> tuple[Found, ...]:
        """Memories chosen by hand. Raises UserError for an id that is not in the bank."""
        return tuple(Found(one, None, *self.read_text(one)) for one in ids)


class Retriever(Finder):
    """Finds memories of a bank."""

    def __init__(self, bank: MemoryBank, encoder: search.Encoder | None = None, tick: Tick = quiet) -> None:
        super().__init__(encoder, tick)
        self.bank = bank
        self._tables: dict[str, pa.Table] = {}

    def make_searcher(self) -> search.Searcher:
        """The bank's index, kept beside it."""
        return search.open_searcher(self.bank, self.encoder, self.tick)

    def note(self, hits: Sequence[search.Hit]) -> None:
        """Tell the bank where they lie; with deleted rows, places are not rows."""
        if not self.bank.ids.null_count:
            self.bank.note({hit.id: hit.place for hit in hits})

    def describe(self) -> dict[str, Any]:
        """JSON object of the bank."""
        return {"name": self.bank.folder.name, "sha256": self.bank.sha256, "offset": self.bank.offset}

    def read_text(self, memory_id: str) -> tuple[str, str]:
        """Document and text of a memory, both empty in a bank of version 1. Raises UserError for an unknown id."""
        part, row = self.bank.locate(memory_id)
        if self.bank.head.version == 1:
            return "", ""
        table = self._open_table(part)
        return str(table.column("document")[row]), str(table.column("text")[row])

    def _open_table(self, part: Part) -> pa.Table:
        if part.name not in self._tables:
            while len(self._tables) >= TABLES_HELD:
                del self._tables[next(iter(self._tables))]
            self._tables[part.name] = read_entries(self.bank.folder, part, ["document", "text"])
        return self._tables[part.name]


def write_at_need(model: Model, retriever: Retriever) -> Callable[[tuple[str, ...]], ExplicitMemories]:
    """Cold start with a bank: its memories written again from their texts, as the bank was written and as precisely.

    Raises UserError for a bank without texts.
    """
    head = retriever.bank.head
    if head.version == 1:
        raise UserError(f"{retriever.bank.folder} has no texts (version 1), so no memory can be written from one")

    def write(ids: tuple[str, ...]) -> ExplicitMemories:
        texts = {name: retriever.read_text(name)[1] for name in ids}
        recipe = (head.layers, head.slots, head.offset, head.prefix, head.scoring, head.pooling)
        made = write_memories(model, texts, *recipe, positions=head.positions)  # type: ignore[arg-type]
        keys, values = (part.to(PRECISIONS[head.precision]).float() for part in (made.keys, made.values))
        return replace(made, keys=keys, values=values)

    return write


@runtime_checkable
class Holder(Protocol):
    """What has memories by id: a bank, or documents."""

    def __contains__(self, memory_id: object) -> bool:
        """Whether there is one of this id."""
        ...

    def locate(self, memory_id: str) -> object:
        """Where it lies. Raises UserError when there is none."""
        ...


def split_ids(bank: Holder, names: str) -> tuple[str, ...]:
    """Ids between commas; a name that is an id as a whole is one. Raises UserError for one that is not in the bank."""
    ids = (names,) if names in bank else tuple(filter(None, map(str.strip, names.split(","))))
    for one in ids:
        bank.locate(one)
    return ids


@dataclass(slots=True)
class Recall:
    """One retrieval: the tokens that were its query, from `start` to before `end`, and what was found."""

    start: int
    end: int
    found: tuple[Found, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"query": [self.start, self.end], "memories": [one.to_json() for one in self.found]}


@dataclass(slots=True)
class Recaller:
    """What `workbench/generation.py` asks at each chunk: finds memories by its tokens and keeps account of them.

    With `ids` these memories are read by every chunk, and nothing is searched. `prefix` is read beside any memories.
    """

    model: Model
    retriever: Finder
    cache: MemoryCache
    count: int
    overlap: float = OVERLAP
    ids: tuple[str, ...] = ()
    prefix: ExplicitBlocks | None = None
    recalls: list[Recall] = field(default_factory=list)

    def __call__(self, tokens: Sequence[int], start: int, end: int) -> ExplicitBlocks | None:
        """Memories for the chunk whose query is `tokens[start:end]`; None when there are none."""
        if self.ids:
            found = self.retriever.name(self.ids)
        else:
            if not self.recalls and end < len(tokens):
                # The rest of the prompt is known already: its chunks are embedded together.
                self.retriever.embed_ahead([self.decode(tokens[a:b]) for a, b in list_retrievals(len(tokens), 0, end)])
            query, text = (self.decode(tokens[first:end]) for first in (start, 0))
            found = self.retriever.find(query, self.count, text, self.overlap) if query.strip() else ()
        self.recalls.append(Recall(start, end, found))
        if not found:
            return None
        blocks = turn_memories(self.cache.select(tuple(one.id for one in found)), self.model)
        return blocks if self.prefix is None else add_prefix(blocks, self.prefix)

    def describe(self) -> dict[str, Any]:
        """JSON object of the bank and of how often memories were loaded."""
        return {**self.retriever.describe(), "loaded": self.cache.misses, "from_cache": self.cache.hits}

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens without special ones."""
        return str(self.model.tokenizer.decode(list(tokens), skip_special_tokens=True))
