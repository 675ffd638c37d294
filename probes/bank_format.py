"""Format of a bank of parametric blocks on disk: a head that names shards, one a subtree of level 1.

    bank.json                    the head: kind, layers, ranks, branching, model, router, hashes of the shards
    generic.safetensors          the generic block of every level
    subtree-0007.safetensors     every block below cluster 7 of level 1, itself included
    router.safetensors           centroids and any transform, where the bank routes prompts itself

A shard holds `levelL.NAME` [cluster, layer, ...] with the names and shapes of `probes/blocks.py`; cluster c of level l
lies in subtree `c // branching ** (l - 1)`, at row `c % branching ** (l - 1)`. A bank may lack subtrees (they are
trained apart and merged); fetching from one that is not there is an error. Version 1, one `blocks.safetensors` of FFN
blocks, is read, not written.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from probes.blocks import Design, Widths
from probes.descriptions import open_seal, read_description, seal_description
from probes.errors import UserError

FORMAT = "memory-circuits/bank"
VERSION = 2
HEAD = "bank.json"
ROUTER = "router.safetensors"
FIRST_SHARD = "blocks"
GENERIC_SHARD = "generic"
SHARD = re.compile(r"generic|subtree-\d{4,9}")


@dataclass(frozen=True, slots=True)
class BankHead:
    """What a bank says of itself; `shards` maps the name of each shard to its SHA-256."""

    version: int
    design: Design
    model_sha256: str
    router: dict[str, Any] = field(default_factory=dict)
    shards: dict[str, str] = field(default_factory=dict)
    router_sha256: str = ""

    def to_bytes(self) -> bytes:
        """The head as it lies in its file."""
        design = asdict(self.design)
        levels = [
            {"clusters": count, "rank": rank}
            for count, rank in zip(self.design.clusters, self.design.ranks, strict=True)
        ]
        del design["ranks"]
        about = {
            "format": FORMAT,
            "version": VERSION,
            "model_sha256": self.model_sha256,
            **design,
            "levels": levels,
            "depth": self.design.depth,
            "router": self.router,
            "router_sha256": self.router_sha256,
            "shards": self.shards,
        }
        return seal_description(about)


def name_subtree(cluster: int) -> str:
    """Name of the shard of a level-1 cluster and everything below it."""
    return f"subtree-{cluster:04d}"


def read_bank_head(folder: Path) -> BankHead:
    """Head of a bank. Raises UserError when it is missing, damaged, or of a version that this release cannot read."""
    path = folder / HEAD
    about = read_description(path, FORMAT, (1, VERSION))
    try:
        return parse_first_version(about) if about["version"] == 1 else parse_head(about)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{path} is not a whole head of a bank ({type(error).__name__}: {error})") from None


def parse_head(about: dict[str, Any]) -> BankHead:
    """Head from its JSON object. Raises KeyError, TypeError or ValueError when it is none."""
    open_seal(about)
    for name in about["shards"]:
        if not SHARD.fullmatch(str(name)):
            raise ValueError(f"no shard is called {str(name)[:40]!r}")
    design = Design(
        kind=str(about["kind"]),
        widths=Widths(**{name: int(width) for name, width in about["widths"].items()}),
        layers=tuple(int(layer) for layer in about["layers"]),
        ranks=tuple(int(level["rank"]) for level in about["levels"]),
        branching=int(about["branching"]),
        targets=tuple(str(target) for target in about["targets"]),
        factor=float(about["factor"]),
    )
    shards = {str(name): str(sha256) for name, sha256 in about["shards"].items()}
    router = dict(about["router"])
    return BankHead(VERSION, design, str(about["model_sha256"]), router, shards, str(about["router_sha256"]))


def parse_first_version(about: dict[str, Any]) -> BankHead:
    """Head of a version 1 bank; of the model's widths it knows one alone (0 here)."""
    if about["kind"] != "ffn":
        raise ValueError("version 1 has FFN blocks alone")
    design = Design(
        kind="ffn",
        widths=Widths(int(about["d_model"]), 0, 0, 0),
        layers=tuple(int(layer) for layer in about["layers"]),
        ranks=tuple(int(level["units"]) for level in about["levels"]),
        branching=int(about["branching"]),
    )
    if list(design.clusters) != [int(level["clusters"]) for level in about["levels"]]:
        raise ValueError("its levels are not powers of the branching")
    return BankHead(1, design, str(about["model_sha256"]), dict(about.get("router", {})), {FIRST_SHARD: ""})
