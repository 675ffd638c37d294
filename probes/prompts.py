"""Prompt pairs: a prompt and its counterfactual, of equal length in tokens, with answer and foil of one or more."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.facts import Fact

if TYPE_CHECKING:
    from probes.models import Model


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens from `start` up to but not including `stop`, with what they are."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PromptPair:
    """A prompt, its counterfactual and the two answers that compete.

    Token lists align position by position; `spans` name the stretches where the two differ (`changed`) and, when a
    text stands before the question, that text (`text`). An answer of several tokens is taught: all but its last stand
    after either prompt when the model is run (`fed_ids`), so that each is predicted from those before.
    """

    clean: str
    counterfactual: str
    answer: str
    foil: str
    answer_ids: tuple[int, ...]
    foil_ids: tuple[int, ...]
    answer_tokens: tuple[str, ...]
    foil_tokens: tuple[str, ...]
    clean_ids: tuple[int, ...]
    counterfactual_ids: tuple[int, ...]
    clean_tokens: tuple[str, ...]
    counterfactual_tokens: tuple[str, ...]
    spans: tuple[Span, ...]

    @property
    def fed_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids as they are fed, of the prompt and of its counterfactual: each with the answer but its last."""
        taught = self.answer_ids[:-1]
        return self.clean_ids + taught, self.counterfactual_ids + taught

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, one key a field."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def encode_answer(model: Model, answer: str, prompt: str, name: str = "answer") -> tuple[str, tuple[int, ...]]:
    """Text and token ids of an answer; a space is put before it where the prompt ends without one.

    Without that space only where the answer is then one token and else several. Raises UserError when it is empty.
    """
    if not answer.strip():
        raise UserError(f"the {name} is empty: give the text that should follow the prompt")
    text = answer if answer[0].isspace() or prompt.endswith((" ", "\n")) else f" {answer}"
    ids = model.encode_plain(text)
    if len(ids) != 1 and len(model.encode_plain(answer)) == 1:
        text, ids = answer, model.encode_plain(answer)
    return text, tuple(ids)


def find_subject(model: Model, prompt: str, subject: str) -> int:
    """Position of the last token of a subject where it stands last in a prompt; -1 where it does not stand there.

    Raises UserError for a tokenizer that does not say where in the text its tokens stand.
    """
    start = prompt.rfind(subject) if subject else -1
    if start < 0:
        return -1
    if not getattr(model.tokenizer, "is_fast", False):
        raise UserError(f"the tokenizer of {model.name} does not tell where tokens stand: the subject is not found")
    spans = model.tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    stop = start + len(subject)
    return max((place for place, (first, last) in enumerate(spans) if first < stop and last > start), default=-1)


def find_changes(first: Sequence[int], second: Sequence[int]) -> Iterator[Span]:
    """Stretches of positions at which two token lists of equal length differ."""
    start = None
    for position, (a, b) in enumerate(zip(first, second, strict=True)):
        if a != b and start is None:
            start = position
        if a == b and start is not None:
            yield Span("changed", start, position)
            start = None
    if start is not None:
        yield Span("changed", start, len(first))


def require_equal_length(prompt: int, counterfactual: int) -> None:
    """Raise UserError unless a prompt and its counterfactual have as many tokens."""
    if prompt != counterfactual:
        raise UserError(
            f"the prompt has {prompt} tokens and the counterfactual {counterfactual}: positions must match, so give a "
            "counterfactual of the same length (a name that splits into as many tokens)"
        )


def refuse_length(model: Model, length: int) -> None:
    """Raise UserError when a prompt with its answer (but the last token) is longer than the model reads."""
    if length > model.context:
        raise UserError(
            f"prompt and answer have {length + 1} tokens and the model reads {model.context}, the last not counted: "
            "shorten them"
        )


def pair_prompts(model: Model, clean: str, counterfactual: str, answer: str, foil: str, text: str = "") -> PromptPair:
    """Pair of two prompts. `text` is the part of the clean prompt that was put before the question, if any.

    Raises UserError when a prompt is empty, lengths differ, an answer is empty, or prompt and answer are too long.
    """
    answer, answer_ids = encode_answer(model, answer, clean)
    foil, foil_ids = encode_answer(model, foil, clean, "foil")
    ids, other = model.encode(clean), model.encode(counterfactual)
    require_equal_length(len(ids), len(other))
    refuse_length(model, len(ids) + len(answer_ids) - 1)
    spans = list(find_changes(ids, other))
    if text:
        spans.insert(0, Span("text", 0, min(len(model.encode(text)), len(ids))))

    def decode(tokens: Sequence[int]) -> tuple[str, ...]:
        return tuple(model.decode(token) for token in tokens)

    return PromptPair(
        clean=clean,
        counterfactual=counterfactual,
        answer=answer,
        foil=foil,
        answer_ids=answer_ids,
        foil_ids=foil_ids,
        answer_tokens=decode(answer_ids),
        foil_tokens=decode(foil_ids),
        clean_ids=tuple(ids),
        counterfactual_ids=tuple(other),
        clean_tokens=decode(ids),
        counterfactual_tokens=decode(other),
        spans=tuple(spans),
    )


def list_counterfactuals(model: Model, fact: Fact, facts: Sequence[Fact], seed: int) -> Iterator[Fact]:
    """Facts of the same relation to compare with, best first: prompt and answer as long in tokens, another answer.

    Those of the same split and of a near frequency bucket come first, shuffled by the seed among equals.
    """
    length, steps = len(model.encode(fact.prompt)), len(model.encode_plain(fact.answer))
    shuffled = [other for other in facts if other.relation == fact.relation and other.answer != fact.answer]
    random.Random(f"{seed}:{fact.id}").shuffle(shuffled)
    groups: dict[tuple[bool, int], list[Fact]] = {}
    for other in shuffled:
        groups.setdefault((other.split != fact.split, abs(other.bucket - fact.bucket)), []).append(other)
    for nearness in sorted(groups):
        for other in groups[nearness]:
            if len(model.encode_plain(other.answer)) == steps and len(model.encode(other.prompt)) == length:
                yield other


def find_named_fact(prompt: str, facts: Sequence[Fact]) -> Fact | None:
    """The fact whose subject is the longest that the prompt names, or None."""
    named = [fact for fact in facts if len(fact.subject) > 2 and fact.subject in prompt]
    return max(named, key=lambda fact: len(fact.subject), default=None)
