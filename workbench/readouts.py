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
from probes.errors import UserError
from probes.lens import TunedLens, read_lens, stack_streams, train_lens
from probes.progress import Tick
from workbench.cases import Case
from workbench.engine import Engine
from workbench.runs import Run

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


def read_everywhere(run: Run, tick: Tick) -> tuple[list[list[str]], Float[np.ndarray, "depth pos"], list[str]]:
    """Best next token and its probability at every depth and position of a run's clean prompt, and its tokens.

    Raises UserError when the model or the facts are no longer those of the run, or it has several pairs.
    """
    from probes.forward import Pass
    from probes.lens import unembed
    from workbench.pipeline import open_engine, restore_cases
    from workbench.settings import restore_settings

    if len(run.pairs) > 1:
        raise UserError("a logit lens reads one prompt: trace one question")
    engine = open_engine(restore_settings(run.about["settings"]), tick)
    case = restore_cases(engine, run)[0][0]
    ids = case.pair.clean_ids
    whole = Pass(engine.model, engine.attach(case.clean.path, case.clean.memories))
    whole.run(torch.tensor([ids]))
    with torch.no_grad():
        streams = stack_streams(whole.record, engine.model.layers)[:, 0]
        likely = unembed(engine.model, streams).float().softmax(dim=-1).max(dim=-1)
    best = [[engine.model.decode(int(token)) for token in row] for row in likely.indices]
    return best, likely.values.cpu().numpy(), [engine.model.decode(token) for token in ids]


def stack_items(engine: Engine, items: Sequence[Item], tick: Tick) -> Float[np.ndarray, "depth item d_model"]:
    """The stream at every depth at the last token of each item's prompt, with its memories attached."""
    streams = []
    for done, item in enumerate(items):
        tick("streams", done, len(items))
        record, _ = record_run(engine.model, torch.tensor([item.ids]), item.attachment)
        streams.append(stack_streams(record, engine.model.layers)[:, 0, -1].float().cpu().numpy())
    return np.stack(streams, axis=1)
