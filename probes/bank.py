"""A bank of parametric memory blocks: one block a cluster and level, fetched along a path of nested clusters.

Source: Pouransari et al. 2025, section 2 and appendix I. The blocks of a path, one a level, are attached beside the
model's own parameters (`probes/blocks.py` lists their kinds); the *generic* block of each level belongs to no cluster
(the paper's control). The files are described in `probes/bank_format.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.attachments import BankBlocks
from probes.bank_format import FIRST_SHARD, GENERIC_SHARD, HEAD, ROUTER, BankHead, name_subtree, read_bank_head
from probes.blocks import Design, measure_widths
from probes.descriptions import hash_file, require_model
from probes.errors import UserError
from probes.models import Model, name_hook
from probes.shards import Shard, open_shard

# Cluster id that stands for the generic block of a level.
GENERIC = -1


@dataclass(frozen=True, slots=True)
class Bank:
    """An open bank: its folder and head, and a hash of what it holds; blocks are read when fetched."""

    folder: Path
    head: BankHead
    sha256: str

    @property
    def design(self) -> Design:
        """Kind, layers, ranks and branching."""
        return self.head.design

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers with blocks."""
        return self.design.layers

    @property
    def clusters(self) -> tuple[int, ...]:
        """Clusters of each level."""
        return self.design.clusters

    @property
    def branching(self) -> int:
        """Children of a cluster."""
        return self.design.branching

    @property
    def router(self) -> dict[str, Any]:
        """How prompts are routed, in words."""
        return self.head.router

    @property
    def generic_path(self) -> tuple[int, ...]:
        """Path of the generic block at every level."""
        return (GENERIC,) * len(self.clusters)

    def list_subtrees(self) -> tuple[int, ...]:
        """Clusters of level 1 whose blocks are there."""
        whole = range(self.clusters[0])
        if self.head.version == 1:
            return tuple(whole)
        return tuple(cluster for cluster in whole if name_subtree(cluster) in self.head.shards)

    def check_path(self, path: tuple[int, ...]) -> None:
        """Raise UserError unless `path` names one cluster a level, each inside the one before (or generic ones)."""
        if len(path) != len(self.clusters):
            raise UserError(f"cluster path {list(path)} has {len(path)} levels and the bank {len(self.clusters)}")
        for level, (cluster, count) in enumerate(zip(path, self.clusters, strict=True), start=1):
            if cluster != GENERIC and not 0 <= cluster < count:
                raise UserError(f"cluster {cluster} is not in level {level} of the bank (0..{count - 1})")
        for parent, child in pairwise(path):
            if GENERIC not in (parent, child) and child // self.branching != parent:
                raise UserError(f"cluster path {list(path)} is not nested: {child} does not lie in {parent}")

    def find_place(self, level: int, cluster: int) -> tuple[str, str, int]:
        """Shard, prefix of the tensors' names and row of the block of a cluster (or the generic one) of a level."""
        if self.head.version == 1:
            return FIRST_SHARD, "generic." if cluster == GENERIC else "", max(cluster, 0)
        if cluster == GENERIC:
            return GENERIC_SHARD, "", 0
        below = self.branching ** (level - 1)
        return name_subtree(cluster // below), "", cluster % below

    def find_shard(self, name: str) -> Path:
        """File of a shard. Raises UserError when the bank lacks it, or it leads outside the bank's folder."""
        path = self.folder / f"{name}.safetensors"
        if name not in self.head.shards:
            raise UserError(f"{self.folder} lacks {name}: the bank was not trained there, or not merged")
        # A loop of links leads nowhere, which `is_relative_to` cannot say.
        if path.is_symlink() and (not path.exists() or not path.resolve().is_relative_to(self.folder.resolve())):
            raise UserError(f"{path} leads outside the bank's folder: put the file itself there")
        return path


def load_bank(folder: Path, model: Model | None = None) -> Bank:
    """Bank in a folder, for use with `model` (None: to look at); blocks are read when fetched.

    Raises UserError when its head is missing, damaged or of a version to come, or when it belongs to another model.
    """
    head = read_bank_head(folder)
    if model is not None:
        require_model(folder, head.model_sha256, model.sha256)
        check_fit(folder, head, model)
    if head.version == 1:
        try:
            return Bank(folder, head, hash_file(folder / f"{FIRST_SHARD}.safetensors"))
        except OSError as error:
            raise UserError(f"{folder} is not a whole bank ({error.strerror}: {FIRST_SHARD}.safetensors)") from None
    return Bank(folder, head, hash_file(folder / HEAD))


def check_fit(folder: Path, head: BankHead, model: Model) -> None:
    """Raise UserError unless a bank's widths and layers are those of the model."""
    widths, own = head.design.widths, measure_widths(model)
    same = widths.d_model == own.d_model if head.version == 1 else widths == own
    if not same or max(head.design.layers) >= model.layers:
        raise UserError(
            f"{folder} does not fit the model: it was made for {widths} and layers {list(head.design.layers)}, the "
            f"model has {own} and {model.layers} layers"
        )
    if "gate" in head.design.targets and name_hook(0, "mlp.gate.hook_out") not in model.bridge.hook_dict:
        raise UserError(f"{folder} changes the gate of the model's MLP, and this model's MLP has none")


def fetch_blocks(bank: Bank, model: Model, path: tuple[int, ...]) -> BankBlocks:
    """Blocks along a path, one a level, ready to attach, in float32; only their own bytes are read from disk.

    Raises UserError for a path that the bank does not have, a block that is missing, or a damaged file.
    """
    return fetch_rows(bank, model, [path])


def fetch_rows(bank: Bank, model: Model, paths: Sequence[tuple[int, ...]]) -> BankBlocks:
    """Blocks of several prompts, a row each, as `fetch_blocks`; what several share is read once."""
    wanted = dict[str, dict[tuple[int, int], None]]()
    for path in dict.fromkeys(paths):
        bank.check_path(path)
        for block in enumerate(path, start=1):
            wanted.setdefault(bank.find_place(*block)[0], {})[block] = None
    held = dict[tuple[int, int], dict[str, Tensor]]()
    for name, blocks in wanted.items():
        with open_shard(bank.find_shard(name)) as shard:
            held |= {block: dict(read_block(bank, shard, *block)) for block in blocks}
    levels = {
        name: tuple(
            torch.stack([held[level, cluster][name] for cluster in column]).to(model.device, torch.float32)
            for level, column in enumerate(zip(*paths, strict=True), start=1)
        )
        for name in bank.design.shape_tensors(1)
    }
    return BankBlocks(paths[0], bank.layers, levels, bank.design.kind, bank.design.factor)


def read_block(bank: Bank, shard: Shard, level: int, cluster: int) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor [layer, ...], as it is stored, of each part of one block. Raises UserError for another shape."""
    _, prefix, row = bank.find_place(level, cluster)
    for name, wanted in bank.design.shape_tensors(level).items():
        tensor = shard.read_row(f"{prefix}level{level}.{name}", row)
        if tuple(tensor.shape) != wanted:
            raise UserError(f"{shard.path}: {name} of level {level} has shape {tuple(tensor.shape)}, not {wanted}")
        yield name, tensor


def find_bank_faults(bank: Bank) -> Iterator[str]:
    """One line for every fault of a bank: files that are missing, changed or of another shape. None: it is whole."""
    files = {bank.folder / f"{name}.safetensors": sha256 for name, sha256 in bank.head.shards.items()}
    if bank.head.router_sha256:
        files[bank.folder / ROUTER] = bank.head.router_sha256
    for path, sha256 in files.items():
        try:
            if sha256 and hash_file(path) != sha256:
                yield f"{path} is not the file that was written (its SHA-256 is another)"
                continue
            if path.name != ROUTER:
                bank.find_shard(path.stem)
                yield from find_shape_faults(bank, path)
        except UserError as error:
            yield str(error)
        except OSError as error:
            yield f"cannot read {path}: {error.strerror}"


def find_shape_faults(bank: Bank, path: Path) -> Iterator[str]:
    """One line for every tensor of a shard that is missing or has another shape than the head promises."""
    with open_shard(path) as shard:
        for level, clusters in enumerate(bank.clusters, start=1):
            for name, shape in bank.design.shape_tensors(level).items():
                counts = {f"level{level}.{name}": clusters // bank.branching}
                if path.stem == GENERIC_SHARD:
                    counts = {f"level{level}.{name}": 1}
                elif bank.head.version == 1:
                    counts = {f"level{level}.{name}": clusters, f"generic.level{level}.{name}": 1}
                for full, count in counts.items():
                    found = shard.places.get(full)
                    if found is None or found.shape != (count, *shape):
                        shapes = f"{found and found.shape} and the head promises {(count, *shape)}"
                        yield f"{path}: {full} has shape {shapes}"
