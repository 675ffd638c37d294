"""`bank merge`: banks whose subtrees were trained apart, joined into one without changing a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from probes.bank import load_bank
from probes.bank_format import GENERIC_SHARD, ROUTER, BankHead, name_subtree
from probes.errors import UserError
from probes.progress import Tick
from workbench.banks.writing import ShardTensors, write_bank


def merge_banks(folders: Sequence[Path], out: Path, tick: Tick) -> tuple[BankHead, list[str]]:
    """Write one bank with the shards of all; returns its head, and the shards that no bank has.

    Raises UserError unless all banks are of one model, one design and one router, and have different shards.
    """
    heads = [load_bank(folder).head for folder in folders]
    homes: dict[str, Path] = {}
    for folder, head in zip(folders, heads, strict=True):
        require_same(folders[0], heads[0], folder, head)
        for name in head.shards:
            if name in homes:
                raise UserError(f"{homes[name]} and {folder} both have {name}: leave one of them out")
            homes[name] = folder
    design = heads[0].design
    wanted = [GENERIC_SHARD, *(name_subtree(cluster) for cluster in range(design.branching))]

    def read() -> Iterator[ShardTensors]:
        for done, name in enumerate(sorted(homes)):
            tick("merging", done, len(homes))
            yield name, load_file(homes[name] / f"{name}.safetensors")

    try:
        router = load_file(folders[0] / ROUTER)
        head = write_bank(out, design, heads[0].model_sha256, read(), heads[0].router, router)
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"a bank is damaged: {error}; nothing was written") from None
    return head, [name for name in wanted if name not in homes]


def require_same(first: Path, head: BankHead, folder: Path, other: BankHead) -> None:
    """Raise UserError unless two banks can be joined."""
    if other.version == 1 or head.version == 1:
        raise UserError(f"{folder if other.version == 1 else first} is of version 1, which is whole already")
    for name, what in (("model_sha256", "another model"), ("design", "blocks of another design")):
        if getattr(head, name) != getattr(other, name):
            raise UserError(f"{folder} has {what} than {first}: banks of one training alone can be joined")
    if not head.router_sha256 or head.router_sha256 != other.router_sha256:
        raise UserError(f"{folder} has another router than {first}: train its subtrees with --router {first}")
