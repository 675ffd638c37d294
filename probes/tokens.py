"""Token ids of texts, remembered: one text encoded by itself costs as much as dozens that are encoded together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Texts remembered at once, and the longest that is, in characters: some tens of megabytes of questions.
REMEMBERED, LONGEST = 1 << 17, 512


@dataclass(slots=True)
class Remembered:
    """What a tokenizer gave for short texts (with special tokens or without), and for single tokens."""

    ids: dict[tuple[str, bool], tuple[int, ...]] = field(default_factory=dict)
    words: dict[int, str] = field(default_factory=dict)

    def encode(self, tokenizer: Any, text: str, special: bool) -> list[int]:
        """Token ids of a text."""
        found = self.ids.get((text, special))
        if found is None:
            found = tuple(tokenizer(text, add_special_tokens=special)["input_ids"])
            self.note([text], [found], special)
        return list(found)

    def encode_ahead(self, tokenizer: Any, texts: Sequence[str], special: bool) -> None:
        """Encode in one call those of the texts that are not known yet."""
        new = [text for text in dict.fromkeys(texts) if text and (text, special) not in self.ids]
        if new:
            self.note(new, map(tuple, tokenizer(new, add_special_tokens=special)["input_ids"]), special)

    def note(self, texts: Sequence[str], found: Any, special: bool) -> None:
        """Remember short texts; when there are too many, only these."""
        if len(self.ids) + len(texts) > REMEMBERED:
            self.ids.clear()
        self.ids.update(((text, special), ids) for text, ids in zip(texts, found, strict=True) if len(text) <= LONGEST)

    def decode(self, tokenizer: Any, token: int) -> str:
        """Text of one token, spaces kept."""
        if token not in self.words:
            self.words[token] = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return self.words[token]
