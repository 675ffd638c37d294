"""What the model answers in each condition: parameters alone, with the bank, with explicit memory, with text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CONDITIONS = ("parameters", "bank", "explicit memory", "text")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One next token: its text exactly as the tokenizer has it, its id, its probability.

    Also a whole answer of several tokens, whose id is -1 and whose probability is the product of its tokens'.
    """

    text: str
    token: int
    probability: float


@dataclass(frozen=True, slots=True)
class Found:
    """An explicit memory that a prompt reads: its document and text (empty where the bank has none).

    `similarity` is the cosine of the memory's sentence vector with the query's, None for a memory that was named.
    """

    id: str
    similarity: float | None = None
    document: str = ""
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, one key a field."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Condition:
    """Next-token answers in one condition.

    `prompt` is the text that was fed (with the document before it in the `text` condition). When the condition is
    not available (no bank, no document), `reason` says why and `top` is empty. `answer` is the prediction of the
    asked-for answer, None when no answer was named; `steps` are its tokens, each with its probability after those
    before. `source` says what was attached (cluster path, document ids), `found` which explicit memories.
    """

    name: str
    prompt: str
    top: tuple[Prediction, ...] = ()
    answer: Prediction | None = None
    source: str = ""
    reason: str = ""
    steps: tuple[Prediction, ...] = ()
    found: tuple[Found, ...] = ()

    @property
    def available(self) -> bool:
        """Whether the model could be asked in this condition."""
        return not self.reason

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, one key a field."""
        return asdict(self)
