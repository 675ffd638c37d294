"""Tiers of storage: how long fetching a text's blocks takes, and how often what is wanted is cached already.

Source: Pouransari et al. 2025, section 3 (hardware). The paper publishes times and sizes, not its configuration;
`workbench.costs.hierarchical` infers one that gives them. What follows is plain: a block waits for its tier's latency
and takes bytes / bandwidth; blocks of one tier come one after another, tiers work side by side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.errors import UserError


@dataclass(frozen=True, slots=True)
class Tier:
    """One kind of storage: bandwidth in bytes a second, latency of a request in seconds."""

    name: str
    bandwidth: float
    latency: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no storage has."""
        if not self.bandwidth > 0 or not self.latency >= 0:
            raise UserError(f"tier {self.name!r}: bandwidth must be above 0 bytes a second, latency 0 seconds or more")

    def time_request(self, size: float) -> float:
        """Seconds until one request of `size` bytes is there."""
        return self.latency + size / self.bandwidth


def time_fetch(sizes: Sequence[float], tiers: Sequence[Tier]) -> float:
    """Seconds to fetch one block a level, `sizes` in bytes, each from its level's tier; equal tiers queue."""
    waits: dict[Tier, float] = {}
    for size, tier in zip(sizes, tiers, strict=True):
        waits[tier] = waits.get(tier, 0.0) + tier.time_request(size)
    return max(waits.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How often blocks were cached, by level (share of requests), and mean seconds a text waited for its blocks."""

    hits: tuple[float, ...]
    seconds: float


def draw_paths(texts: int, branching: int, levels: int, exponent: float, seed: int) -> NDArray[np.int64]:
    """Cluster of each level for texts whose leaves follow Zipf's law over a random order of leaves, `[text, level]`."""
    generator = np.random.default_rng(seed)
    leaves = branching**levels
    weights = np.arange(1, leaves + 1, dtype=np.float64) ** -exponent
    ranks = np.searchsorted(np.cumsum(weights / weights.sum()), generator.random(texts)).clip(max=leaves - 1)
    leaf = generator.permutation(leaves)[ranks]
    return np.stack([leaf // branching ** (levels - level) for level in range(1, levels + 1)], axis=1)


def simulate_cache(
    paths: NDArray[np.int64], sizes: Sequence[float], tiers: Sequence[Tier], memory: Tier, capacity: float
) -> CacheUse:
    """Run texts through a cache of `capacity` bytes in fast memory, the least recently used block dropped first.

    A cached block comes from `memory`, another from its level's tier. Raises `UserError` when the cache cannot hold
    the blocks of one text.
    """
    if capacity < sum(sizes):
        raise UserError(f"the cache holds {capacity:.3g} bytes, one text's blocks need {sum(sizes):.3g}: enlarge it")
    kept: OrderedDict[tuple[int, int], float] = OrderedDict()
    used, hits, seconds = 0.0, np.zeros(len(sizes)), 0.0
    for path in paths.tolist():
        sources = []
        for level, cluster in enumerate(path):
            block = (level, cluster)
            found = block in kept
            sources.append(memory if found else tiers[level])
            hits[level] += found
            used += 0.0 if found else sizes[level]
            kept[block] = sizes[level]
            kept.move_to_end(block)
        while used > capacity:
            used -= kept.popitem(last=False)[1]
        seconds += time_fetch(sizes, sources)
    return CacheUse(tuple(float(hit) for hit in hits / max(1, len(paths))), seconds / max(1, len(paths)))
