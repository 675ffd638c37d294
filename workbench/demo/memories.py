"""Explicit memories of the demo's documents: which have one, and writing them in one go."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers import LlamaForCausalLM

from workbench.demo.batches import Encoder
from workbench.demo.config import Config
from workbench.demo.network import Slots, write_memory
from workbench.demo.world import World, group_documents


def choose_documents(world: World, config: Config) -> list[str]:
    """Documents with a shipped explicit memory: all never-seen ones, and some of trained facts, over all kinds."""
    groups = group_documents(world.facts)
    unseen = [name for name, facts in groups.items() if not facts[0].occurrences]
    seen = [name for name, facts in groups.items() if facts[0].occurrences]
    draw = random.Random(f"memories/{config.seed}")
    some = draw.sample(seen, min(config.memory.seen_documents, len(seen)))
    return unseen + sorted(some, key=seen.index)


def write_memories(
    anchor: LlamaForCausalLM, encoder: Encoder, config: Config, texts: Sequence[str], slots: int | None = None
) -> dict[int, Slots]:
    """Explicit memories of texts, one a row, by layer; `slots` kept a key-value head, the configuration's if None.

    With as many slots as a reference has tokens the memories are dense: every key and value of the layer.
    """
    parts: list[dict[int, Slots]] = []
    width = config.memory.slots if slots is None else slots
    for start in range(0, len(texts), 64):
        tokens, valid = encoder.encode_references(texts[start : start + 64], config.corpus.prefix, config.memory.offset)
        with torch.no_grad():
            parts.append(write_memory(anchor, tokens, valid, config.memory.layers, width))
    return {layer: join_slots([part[layer] for part in parts]) for layer in config.memory.layers}


def join_slots(parts: Sequence[Slots]) -> Slots:
    """Rows of several writes under one another; those of fewer slots are filled up with absent ones."""
    most = max(part.present.shape[2] for part in parts)

    def join(name: str) -> torch.Tensor:
        tensors = [getattr(part, name) for part in parts]
        filled = [torch.nn.functional.pad(x, [0, 0] * (x.dim() - 3) + [0, most - x.shape[2]], value=0) for x in tensors]
        return torch.cat(filled)

    return Slots(join("keys"), join("values"), join("present"), join("positions"))
