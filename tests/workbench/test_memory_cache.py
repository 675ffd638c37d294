"""The cache gives what its source gives, holds no more than it may, and counts; retrievals are counted as published."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from probes.errors import UserError
from probes.explicit import ExplicitMemories
from probes.writing import write_memories
from tests.checkpoints import load_shape
from workbench.memory.cache import MemoryCache, list_retrievals

TEXTS = {name: f"The capital of {name} is {name}ton." for name in "abcdef"}


def load_warm() -> Callable[[tuple[str, ...]], ExplicitMemories]:
    """From memories that were written before."""
    return write_memories(load_shape("llama"), TEXTS, layers=(0,), slots=3).select


def load_cold() -> Callable[[tuple[str, ...]], ExplicitMemories]:
    """By writing what is asked for."""
    return lambda ids: write_memories(load_shape("llama"), {i: TEXTS[i] for i in ids}, layers=(0,), slots=3)


@pytest.mark.parametrize("start", [load_warm, load_cold])
def test_a_cache_gives_what_its_source_gives(start: Callable[..., Callable[..., ExplicitMemories]]) -> None:
    """Against a list in order of use, over random requests, some larger than the cache."""
    source, cache = load_warm(), MemoryCache(start(), capacity=3)
    draw, used, hits, misses = random.Random(0), list[str](), 0, 0
    for _ in range(40):
        ids = tuple(draw.choices(sorted(TEXTS), k=draw.randint(1, 4)))
        misses += len(set(ids) - set(used))
        # A name that comes twice in one request is loaded once.
        hits += len(ids) - len(set(ids) - set(used))
        got, wanted = cache.select(ids), source(ids)
        assert got.ids == ids and torch.equal(got.positions, wanted.positions)
        assert float((got.keys - wanted.keys).abs().max()) < 1e-5
        used = list(dict.fromkeys(reversed([*used, *ids])))[:3][::-1]
        assert len(cache) == len(used) <= 3 and (cache.hits, cache.misses) == (hits, misses)
    assert 0 < cache.misses < cache.hits + cache.misses
    with pytest.raises(UserError, match="1 memory or more"):
        MemoryCache(start(), capacity=0)


def test_retrievals_are_counted_as_published() -> None:
    assert list(list_retrievals(128, 128)) == [(0, 64), (64, 128), (128, 192)]
    assert list(list_retrievals(10, 64)) == [(0, 10)]
    assert list(list_retrievals(70, 65)) == [(0, 64), (6, 70), (70, 134)]
