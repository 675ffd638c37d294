"""A bank's own storage measured: how fast its blocks come from the disk and from memory, and what caching would do.

Reads are timed twice, with the file's pages dropped from the cache and again right after. The system may not drop them
(another file system, pages in use); whether it did is counted and said. Latency and bandwidth are those of the straight
line through the median times of one page and of up to a megabyte. The simulator is `workbench/costs/tiers.py`.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probes.bank import Bank, read_block
from probes.errors import UserError
from probes.progress import Tick, quiet
from probes.shards import open_shard, read_range
from workbench.costs.blocks import Bank as SizedBank
from workbench.costs.hierarchical import ANCHORS, TIER_RANKS, TIERS
from workbench.costs.tiers import Tier, draw_paths, simulate_cache, time_fetch

PAGE = 4096
SHARES = (0.001, 0.01, 0.1, 1.0)
EXPONENTS = (0.6, 1.0, 1.4)
# Inferred, as the bandwidths of the paper's tiers are: what a cache in fast memory gives.
FAST = Tier("cache", 20e9, 1e-7)


@dataclass(frozen=True, slots=True)
class Storage:
    """What was measured: the tiers, seconds of a whole fetch (medians), and the share of reads that met the disk."""

    disk: Tier
    memory: Tier
    cold: float
    warm: float
    dropped: float


def list_block_bytes(bank: Bank, width: int) -> list[int]:
    """Bytes of one block of each level, `width` bytes a number."""
    return [bank.design.count_numbers(level) * width for level in range(1, len(bank.clusters) + 1)]


def count_disk_reads() -> int | None:
    """Bytes that this process had fetched from storage; None where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
        return int(dict(line.split(": ") for line in lines)["read_bytes"])
    except (OSError, KeyError, ValueError):
        return None


def drop_pages(path: Path) -> None:
    """Ask the system to forget a file's cached pages."""
    handle = os.open(path, os.O_RDONLY)
    try:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def time_reads(path: Path, offset: int, size: int) -> tuple[float, float, bool]:
    """Seconds of one read with the pages dropped and one right after, and whether the first met the disk."""
    drop_pages(path)
    handle = os.open(path, os.O_RDONLY)
    try:
        before, start = count_disk_reads(), time.perf_counter()
        read_range(path, handle, offset, size)
        cold = time.perf_counter() - start
        after, start = count_disk_reads(), time.perf_counter()
        read_range(path, handle, offset, size)
        return cold, time.perf_counter() - start, before is not None and after is not None and after > before
    finally:
        os.close(handle)


def measure_storage(bank: Bank, fetches: int = 32, seed: int = 0, tick: Tick = quiet) -> Storage:
    """Time random fetches of a bank's blocks. Raises UserError for a bank without blocks, or a damaged one."""
    subtrees = bank.list_subtrees()
    if not subtrees:
        raise UserError(f"{bank.folder} holds no subtree: there is nothing to time")
    generator = np.random.default_rng(seed)
    cold, warm, met = [], [], []
    pages: list[tuple[float, float, int]] = []
    blocks: list[tuple[float, float, int]] = []
    for number in range(fetches):
        tick("timing reads", number, fetches)
        path = [int(generator.choice(subtrees))]
        while len(path) < len(bank.clusters):
            path.append(path[-1] * bank.branching + int(generator.integers(bank.branching)))
        shard = bank.find_shard(bank.find_place(1, path[0])[0])
        drop_pages(shard)
        cold.append(time_fetch_once(bank, path))
        warm.append(time_fetch_once(bank, path))
        size = shard.stat().st_size
        small = min(PAGE, size)
        large = min(size, max(1 << 20, 8 * PAGE))
        page = time_reads(shard, int(generator.integers(max(1, size - small))), small)
        block = time_reads(shard, int(generator.integers(max(1, size - large))), large)
        pages.append((*page[:2], small))
        blocks.append((*block[:2], large))
        met += [page[2], block[2]]
    disk, memory = (fit_tier(name, pages, blocks, column) for name, column in (("disk", 0), ("memory", 1)))
    return Storage(disk, memory, statistics.median(cold), statistics.median(warm), sum(met) / len(met))


def fit_tier(
    name: str, pages: Sequence[tuple[float, float, int]], blocks: Sequence[tuple[float, float, int]], column: int
) -> Tier:
    """Tier from the median seconds (in a column) and bytes of small and large reads.

    On a busy machine the large reads may seem no slower than the small ones: then no latency can be told from the
    bandwidth, and it is taken as 0.
    """
    short, long = (statistics.median(read[column] for read in reads) for reads in (pages, blocks))
    small, large = (statistics.median(read[2] for read in reads) for reads in (pages, blocks))
    if long <= short or large <= small:
        return Tier(name, large / long)
    bandwidth = (large - small) / (long - short)
    return Tier(name, bandwidth, max(0.0, short - small / bandwidth))


def time_fetch_once(bank: Bank, path: list[int]) -> float:
    """Seconds of reading the blocks of a path, headers included."""
    start = time.perf_counter()
    with open_shard(bank.find_shard(bank.find_place(1, path[0])[0])) as shard:
        for level, cluster in enumerate(path, start=1):
            for _ in read_block(bank, shard, level, cluster):
                pass
    return time.perf_counter() - start


def measure_width(bank: Bank) -> int:
    """Bytes of one number as the bank's blocks are stored."""
    subtree = bank.list_subtrees()[0]
    with open_shard(bank.find_shard(bank.find_place(1, subtree)[0])) as shard:
        return next(iter(shard.places.values())).dtype.itemsize


def simulate_bank(bank: Bank, storage: Storage, texts: int, seed: int) -> dict[str, Any]:
    """What a cache of some shares of the bank would do on this machine, as usage grows more uneven."""
    width = measure_width(bank)
    sizes = list_block_bytes(bank, width)
    whole = sum(size * count for size, count in zip(sizes, bank.clusters, strict=True))
    rows = []
    for exponent in EXPONENTS:
        paths = draw_paths(texts, bank.branching, len(bank.clusters), exponent, seed)
        for capacity in sorted({max(share * whole, float(sum(sizes))) for share in SHARES}):
            use = simulate_cache(paths, sizes, [storage.disk] * len(sizes), storage.memory, capacity)
            rows.append({"exponent": exponent, "cache": capacity, "hits": list(use.hits), "ms": 1000 * use.seconds})
    return {
        "bytes": whole,
        "fetched": sum(sizes),
        "predicted_ms": 1000 * time_fetch(sizes, [storage.disk] * len(sizes)),
        "rows": rows,
    }


def simulate_paper(texts: int, seed: int) -> dict[str, Any]:
    """The same at the paper's full size, with the configuration and tiers that are inferred from its figures."""
    sizes = [2.0 * size for size in SizedBank(ANCHORS["410M"], TIER_RANKS).levels]
    whole = sum(size * 16**level for level, size in enumerate(sizes, start=2))
    rows = []
    for exponent in EXPONENTS:
        # The blocks are those of the tree's levels 2 to 4.
        paths = draw_paths(texts, 16, 4, exponent, seed)[:, 1:]
        for share in (0.001, 0.01, 0.1):
            use = simulate_cache(paths, sizes, TIERS, FAST, max(share * whole, sum(sizes)))
            rows.append(
                {"exponent": exponent, "cache": share * whole, "hits": list(use.hits), "ms": 1000 * use.seconds}
            )
    return {"kind": "inferred", "bytes": whole, "fetched": sum(sizes), "rows": rows}
