"""Decoding with explicit memories, and blocks of a bank, that change as the text goes on.

The tokens of a chunk read that chunk's memories and no others. A chunk's keys and values stay in the cache as they were
computed, so what follows still attends to tokens that had read other memories, though not to those memories: the same
as one pass over the whole text in which each token sees only its own chunk's. Chunks of the prompt are counted from its
start; a chunk of what is generated is counted in passes, so the next token is already the new memories' once `chunk`
tokens were generated. Source: Yang et al. 2024, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.attachments import Attachment
from probes.errors import UserError
from probes.reading import Reader
from workbench.memory.cache import CHUNK_TOKENS, list_retrievals

if TYPE_CHECKING:
    from probes.attachments import BankBlocks, ExplicitBlocks
    from probes.decoding import Twin
    from probes.models import Hook, Model

# From all tokens so far and the query's start and end to the memories that the chunk reads.
Choose = Callable[[Sequence[int], int, int], "ExplicitBlocks | None"]
# The same for the blocks of a bank.
Fetch = Callable[[Sequence[int], int, int], "BankBlocks | None"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are drawn: how many at most, tokens a chunk, and temperature (0: the most probable) with its seed."""

    tokens: int = 128
    chunk: int = CHUNK_TOKENS
    temperature: float = 0.0
    seed: int = 0

    def check(self, model: Model, prompt: int) -> None:
        """Raise UserError for a number out of range, or a text that the model cannot read."""
        if self.tokens < 1 or self.chunk < 1:
            raise UserError(f"{self.tokens} tokens in chunks of {self.chunk}: give 1 or more of each")
        if not 0 <= self.temperature <= 100:
            raise UserError(f"the temperature is {self.temperature}: choose 0 (the most probable token) to 100")
        if prompt + self.tokens - 1 > model.context:
            raise UserError(
                f"the prompt has {prompt} tokens, {self.tokens} are to follow, and the model reads {model.context}: "
                "shorten the prompt or ask for fewer"
            )


@dataclass(slots=True)
class HookedText:
    """A text in progress on the model with hook points; the same two steps as `probes/decoding.py` has on the twin."""

    model: Model
    cache: Any = None
    hooks: Sequence[Hook] = ()

    def start(self) -> None:
        """Begin a new text with nothing attached."""
        self.cache, self.hooks = self.model.start_cache(), ()

    def attach(self, attachment: Attachment) -> None:
        """What is read from now on."""
        self.hooks = Reader(self.model, attachment).list_hooks()

    def read(self, tokens: Sequence[int]) -> Float[Tensor, " d_vocab"]:
        """Logits after the last of these tokens, which the text is extended by."""

        def keep_last(stream: Tensor, hook: object) -> Tensor:
            return stream[:, -1:]

        hooks = [*self.hooks, ("unembed.hook_in", keep_last)]
        with torch.no_grad():
            return self.model.run(torch.tensor([list(tokens)]), hooks, self.cache)[0, -1].float()


def generate(
    model: Model,
    ids: Sequence[int],
    decoding: Decoding,
    choose: Choose | None = None,
    fetch: Fetch | None = None,
    twin: Twin | None = None,
) -> Iterator[int]:
    """Tokens that follow `ids`, one at a time, up to `decoding.tokens` or the end of the text (that token included).

    `choose` gives each chunk its memories and `fetch` its blocks; without both there are no chunks and no hooks: the
    base model. On a `twin` (`probes/decoding.py`) it is faster; blocks are not read there. Raises UserError as
    `Decoding.check` does.
    """
    decoding.check(model, len(ids))
    queries = list_retrievals(len(ids), decoding.tokens, decoding.chunk)
    source = torch.Generator().manual_seed(decoding.seed)
    text, chunked = list(ids), choose is not None or fetch is not None
    hooked = HookedText(model) if twin is None or fetch is not None else None
    decoder = hooked or twin
    assert decoder is not None
    decoder.start()

    def attach() -> None:
        query = next(queries)
        explicit = choose(text, *query) if choose is not None else None
        if hooked is not None:
            hooked.attach(Attachment(explicit, fetch(text, *query) if fetch is not None else None))
        elif twin is not None:
            twin.attach(explicit)

    for piece in [ids[at : at + decoding.chunk] for at in range(0, len(ids), decoding.chunk)] if chunked else [ids]:
        if chunked:
            attach()
        logits = decoder.read(piece)
    for count in range(1, decoding.tokens + 1):
        text.append(draw_token(logits, decoding.temperature, source))
        yield text[-1]
        if text[-1] in model.ends or count == decoding.tokens:
            return
        if chunked and count % decoding.chunk == 0:
            attach()
        logits = decoder.read(text[-1:])


def draw_token(logits: Float[Tensor, " d_vocab"], temperature: float, source: torch.Generator) -> int:
    """The most probable token at temperature 0, else one drawn."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits.cpu() / temperature).softmax(dim=-1), 1, generator=source))


def join_tokens(tokenizer: Any, tokens: Iterator[int]) -> Iterator[tuple[int, str]]:
    """Each token with the text that it completes: empty while a character is not whole yet.

    The texts together are the decoded tokens, up to a last character that never became whole.
    """
    seen: list[int] = []
    done = 0
    for token in tokens:
        seen.append(token)
        text = str(tokenizer.decode(seen, clean_up_tokenization_spaces=False))
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield token, ""
            continue
        yield token, text[done:]
        done = len(text)
