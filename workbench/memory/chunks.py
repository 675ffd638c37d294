"""Cutting a document into references of so many tokens, at the ends of sentences or lines where there are any."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from probes.errors import UserError

# Characters looked at for one reference; 128 tokens of any language are fewer.
WINDOW = 4096
BORDERS = (re.compile(r"[.!?。！？][\"')\]»”]*\s+|\n+"), re.compile(r"\s+"))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A reference: its text, its characters in the document, its token ids and where each token starts in the text."""

    text: str
    start: int
    end: int
    ids: tuple[int, ...]
    token_starts: tuple[int, ...]


def tokenize(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a text as a reference has them, behind a space, and the characters of the text each stands for."""
    found = tokenizer(" " + text, add_special_tokens=False, return_offsets_mapping=True)
    spans = [(max(0, start - 1), max(0, end - 1)) for start, end in found["offset_mapping"]]
    return list(found["input_ids"]), spans


def find_border(text: str, limit: int) -> int:
    """Where to end a chunk, at most `limit` characters long: a sentence or line, else a word, else the limit."""
    for border in BORDERS:
        ends = [match.end() for match in border.finditer(text, limit // 2, min(len(text), limit + 1))]
        ends = [end for end in ends if end <= limit]
        if ends:
            return ends[-1]
    return limit


def cut_chunk(tokenizer: Any, window: str, budget: int, last: bool) -> tuple[str, list[int], list[tuple[int, int]]]:
    """First chunk of a window that starts with no space: its text, token ids and spans, `budget` tokens at most."""
    text, whole = window, last
    while True:
        ids, spans = tokenize(tokenizer, text.rstrip())
        if whole and len(ids) <= budget:
            return text.rstrip(), ids, spans
        limit = max(1, spans[budget][0]) if len(ids) > budget else len(text)
        # A text cut at a border may have more tokens than it had inside the window, rarely: then it is cut again.
        border = find_border(text, limit if limit < len(text) or not whole else len(text) - 1)
        if not border:
            raise UserError(f"a reference of {budget} tokens has no room for one character: choose a larger --offset")
        text, whole = text[:border], True


def cut_chunks(blocks: Iterator[str], tokenizer: Any, budget: int) -> Iterator[Chunk]:
    """Chunks of a document that arrives in blocks, in order; between them lies white space alone.

    No more than a window and a block are held. Raises UserError for a tokenizer that cannot say where tokens lie.
    """
    if not tokenizer.is_fast:
        raise UserError("this model's tokenizer does not say where its tokens lie in a text: save it as tokenizer.json")
    held, start, last = "", 0, False
    while True:
        while len(held) < WINDOW and not last:
            block = next(blocks, None)
            last = block is None
            held += block or ""
        bare = held.lstrip()
        start += len(held) - len(bare)
        held = bare
        if not held and last:
            return
        if not held:
            continue
        text, ids, spans = cut_chunk(tokenizer, held[:WINDOW], budget, last and len(held) <= WINDOW)
        yield Chunk(text, start, start + len(text), tuple(ids), tuple(begin for begin, _ in spans))
        held, start = held[len(text) :], start + len(text)
