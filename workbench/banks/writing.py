"""Writing a bank of parametric blocks: shard by shard into a temporary folder, then put in place whole.

`write_bank` takes shards as they come, so that a bank larger than memory can be written a subtree at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from probes.bank_format import GENERIC_SHARD, HEAD, ROUTER, VERSION, BankHead, name_subtree
from probes.blocks import Design, start_tensors
from probes.descriptions import hash_file
from probes.errors import UserError
from workbench.storage import fresh_folder, write_synced

# A shard's name and its tensors `levelL.NAME` [cluster, layer, ...].
ShardTensors = tuple[str, Mapping[str, Tensor]]


def write_bank(
    folder: Path,
    design: Design,
    model_sha256: str,
    shards: Iterable[ShardTensors],
    router: Mapping[str, Any] | None = None,
    router_tensors: Mapping[str, Tensor] | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> BankHead:
    """Create a bank in a new folder, whole or not at all, and return its head; `beside` are further files of it.

    Raises UserError when the folder has something in it, a shard is not as the design promises, or the disk refuses.
    """
    with fresh_folder(folder) as fresh:
        hashes = {}
        for name, tensors in shards:
            check_shard(design, name, tensors)
            hashes[name] = save_synced(fresh / f"{name}.safetensors", tensors)
        router_sha256 = save_synced(fresh / ROUTER, router_tensors) if router_tensors else ""
        head = BankHead(VERSION, design, model_sha256, dict(router or {}), hashes, router_sha256)
        for name, data in (beside or {}).items():
            write_synced(fresh / name, data)
        write_synced(fresh / HEAD, head.to_bytes())
    return head


def save_synced(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to a new file, wait until it is on the disk, and return its SHA-256."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return hash_file(path)


def check_shard(design: Design, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError unless a shard has every level's tensors in the shapes of the design, and finite numbers."""
    for level in range(1, design.depth + 1):
        rows = 1 if name == GENERIC_SHARD else design.branching ** (level - 1)
        for part, shape in design.shape_tensors(level).items():
            tensor = tensors.get(f"level{level}.{part}")
            if tensor is None or tuple(tensor.shape) != (rows, *shape):
                found = None if tensor is None else tuple(tensor.shape)
                raise UserError(f"{name}: level{level}.{part} has shape {found}, the bank needs {(rows, *shape)}")
            if not bool(torch.isfinite(tensor).all()):
                raise UserError(f"{name}: level{level}.{part} has numbers that are not finite")


def start_shards(
    design: Design, seed: int, dtype: torch.dtype = torch.bfloat16, subtrees: Iterable[int] | None = None
) -> Iterator[ShardTensors]:
    """Shards of a new bank, the generic one first, all blocks at their start values (no effect on the model).

    Each shard has a stream of random numbers of its own, so that subtrees started apart are those started together.
    """
    chosen = range(design.branching) if subtrees is None else subtrees
    for number, name in [(0, GENERIC_SHARD), *((cluster + 1, name_subtree(cluster)) for cluster in chosen)]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        tensors = {}
        for level in range(1, design.depth + 1):
            rows = 1 if name == GENERIC_SHARD else design.branching ** (level - 1)
            for part, tensor in start_tensors(design, level, rows, generator).items():
                tensors[f"level{level}.{part}"] = tensor.to(dtype)
        yield name, tensors
