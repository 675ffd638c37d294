"""A bank of parametric memory blocks: one block a cluster and level, fetched along a path of nested clusters.

Source: Pouransari et al. 2025, section 2 and appendix I. The blocks of a path, one a level, widen the FFN of the
model's layers (`probes/units.py`); the *generic* block of each level belongs to no cluster (the paper's control).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from probes.attachments import BankBlocks
from probes.descriptions import hash_file, read_description, require_model
from probes.errors import UserError
from probes.models import Model

FORMAT = "memory-circuits/bank"

# Cluster id that stands for the generic block of a level.
GENERIC = -1


@dataclass(frozen=True, slots=True)
class Bank:
    """A bank on disk: its layers, the number of clusters and units of each level, and how prompts are routed."""

    folder: Path
    sha256: str
    layers: tuple[int, ...]
    clusters: tuple[int, ...]
    units: tuple[int, ...]
    branching: int
    router: dict[str, Any] = field(repr=False)

    @property
    def generic_path(self) -> tuple[int, ...]:
        """Path of the generic block at every level."""
        return (GENERIC,) * len(self.clusters)

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


def load_bank(folder: Path, model: Model) -> Bank:
    """Description of the bank in a folder with bank.json and blocks.safetensors; blocks are read when fetched.

    Raises UserError when a file is missing or damaged, or when the bank belongs to another model.
    """
    about = read_description(folder / "bank.json", FORMAT)
    require_model(folder, about.get("model_sha256"), model.sha256)
    try:
        bank = Bank(
            folder=folder,
            sha256=hash_file(folder / "blocks.safetensors"),
            layers=tuple(int(layer) for layer in about["layers"]),
            clusters=tuple(int(level["clusters"]) for level in about["levels"]),
            units=tuple(int(level["units"]) for level in about["levels"]),
            branching=int(about["branching"]),
            router=dict(about.get("router", {})),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder} is not a whole bank ({type(error).__name__}: {error})") from None
    if about.get("kind") != "ffn" or about.get("d_model") != model.d_model or max(bank.layers) >= model.layers:
        raise UserError(f"{folder} does not fit the model: it needs FFN blocks of width {model.d_model}")
    return bank


def fetch_blocks(bank: Bank, model: Model, path: tuple[int, ...]) -> BankBlocks:
    """Blocks along a path, one a level, ready to attach; only their own rows are read from disk.

    Raises UserError for a path that the bank does not have, or a damaged file.
    """
    bank.check_path(path)
    file_path = bank.folder / "blocks.safetensors"
    parts: dict[str, list[Tensor]] = {"gate": [], "up": [], "down": []}
    try:
        with safe_open(file_path, framework="pt") as file:
            for level, cluster in enumerate(path, start=1):
                prefix = f"generic.level{level}" if cluster == GENERIC else f"level{level}"
                row = 0 if cluster == GENERIC else cluster
                for name, found in parts.items():
                    found.append(file.get_slice(f"{prefix}.{name}")[row].to(model.device, torch.float32)[None])
    except (OSError, SafetensorError, IndexError) as error:
        raise UserError(f"{file_path} is damaged or lacks a block ({type(error).__name__}: {error})") from None
    for level, gate in enumerate(parts["gate"]):
        wanted = (1, len(bank.layers), bank.units[level], model.d_model)
        if tuple(gate.shape) != wanted:
            raise UserError(f"{file_path}: a block of level {level + 1} has shape {tuple(gate.shape)}, not {wanted}")
    return BankBlocks(path, bank.layers, *(tuple(parts[name]) for name in ("gate", "up", "down")))
