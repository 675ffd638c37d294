"""The demo's tokenizer: byte-level BPE, beginning-of-text added by itself, every answer one token."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import UserError
from workbench.demo.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(texts: Iterable[str], world: World, size: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE on texts and on the closed lists, and check that every object is one token.

    Raises `UserError` when an object needs several tokens: the vocabulary is too small for the lists.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *_weighted_words(world)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
    check_answers(fast, {fact.object for fact in world.facts})
    return fast


def _weighted_words(world: World) -> list[str]:
    # Rare words of the lists must become whole tokens too, so each list's words are repeated.
    subjects = {fact.subject for fact in world.facts if fact.kind in ("country", "element")}
    lists = [*world.words.values(), sorted(subjects)]
    return [" " + word for words in lists for word in words for _ in range(300)]


def check_answers(tokenizer: PreTrainedTokenizerFast, objects: Iterable[str]) -> None:
    """Raise `UserError` unless every object, with a space before it, is one token."""
    split = [word for word in sorted(objects) if len(encode(tokenizer, " " + word)) != 1]
    if split:
        raise UserError(
            f"{len(split)} answers are several tokens, the first is {split[0]!r}; answers must be one token. Raise"
            f" [words] vocabulary above {len(tokenizer)}."
        )


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids without the beginning-of-text token."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save_pretrained(folder)
