"""Read-outs of an opened model: what its stream predicts at each depth, and its streams at the ends of many prompts."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.component_effects import Item
from circuits.problem import record_run
from probes.lens import TunedLens, read_lens, stack_streams, train_lens
from probes.progress import Tick
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


def stack_items(engine: Engine, items: Sequence[Item], tick: Tick) -> Float[np.ndarray, "depth item d_model"]:
    """The stream at every depth at the last token of each item's prompt, with its memories attached."""
    streams = []
    for done, item in enumerate(items):
        tick("streams", done, len(items))
        record, _ = record_run(engine.model, torch.tensor([item.ids]), item.attachment)
        streams.append(stack_streams(record, engine.model.layers)[:, 0, -1].float().cpu().numpy())
    return np.stack(streams, axis=1)
