"""Read-outs of an opened model: what its stream predicts at each depth, and streams at named positions of prompts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.component_effects import Item
from circuits.problem import record_run
from probes.errors import UserError
from probes.lens import TunedLens, read_lens, stack_streams, train_lens
from probes.progress import Tick, quiet
from workbench.cases import Case
from workbench.engine import Engine

# Positions of a training text, and of a batch, in the training of a tuned lens.
LENGTH, ROWS = 64, 64


def train_on_documents(engine: Engine, count: int, steps: int, seed: int, tick: Tick) -> TunedLens:
    """Tuned lens trained on at most `count` documents of the facts that the engine has."""
    documents = list(dict.fromkeys(fact.document for fact in engine.facts if fact.document))
    chosen = random.Random(seed).sample(documents, min(count, len(documents)))
    start = list(engine.model.tokenizer("")["input_ids"])
    texts = [torch.tensor([(start + engine.model.encode_plain(text))[:LENGTH]]) for text in chosen]
    return train_lens(engine.model, texts, steps, ROWS, seed, tick)


def read_prompt(engine: Engine, case: Case, lens: TunedLens | None) -> Float[Tensor, "depth d_vocab"]:
    """Log-probabilities, in nats, at every depth at the end of a case's clean prompt, with its memories attached."""
    ids = case.pair.clean_ids
    attachment = engine.attach(case.clean.path, case.clean.memories)
    return read_lens(engine.model, torch.tensor([ids]), attachment, len(ids) - 1, lens)


def find_position(item: Item, position: str) -> int:
    """Place in an item's prompt of `last`, `subject` (its last token) or a number (below 0 from the end); -1: none.

    Raises UserError for anything else.
    """
    if position == "subject":
        return item.subject
    try:
        number = -1 if position == "last" else int(position)
    except ValueError:
        raise UserError(
            f"unknown position {position[:40]!r}: give last, subject, or a number (-1 is the last)"
        ) from None
    place = number if number >= 0 else len(item.ids) + number
    return place if 0 <= place < len(item.ids) else -1


def stack_items(
    engine: Engine, items: Sequence[Item], positions: Sequence[str], tick: Tick = quiet
) -> Float[np.ndarray, "position depth item d_model"]:
    """The stream at every depth at these positions of each item's prompt, with its memories attached.

    Every item must have all of them (`find_position`).
    """
    streams = []
    for done, item in enumerate(items):
        tick("streams", done, len(items))
        record, _ = record_run(engine.model, torch.tensor([item.ids]), item.attachment)
        whole = stack_streams(record, engine.model.layers)[:, 0]
        places = [find_position(item, position) for position in positions]
        assert min(places) >= 0
        streams.append(np.stack([whole[:, place].float().cpu().numpy() for place in places]))
    return np.stack(streams, axis=2)


def fold_facts(items: Sequence[Item], label_of: Mapping[str, str], parts: int = 4) -> list[int]:
    """Fold of every item for a probe: its fact's, the facts of a label being dealt out over the folds."""
    dealt, folds = Counter[str](), dict[str, int]()
    for item in items:
        if item.fact not in folds:
            folds[item.fact] = dealt[label_of[item.fact]] % parts
            dealt[label_of[item.fact]] += 1
    return [folds[item.fact] for item in items]


def fold_wordings(items: Sequence[Item]) -> list[int]:
    """Fold of every item for a probe: the how-manieth wording of its fact it is."""
    seen, folds = Counter[str](), []
    for item in items:
        folds.append(seen[item.fact])
        seen[item.fact] += 1
    return folds
