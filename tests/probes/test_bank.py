"""The bank on disk: what is written is what is fetched, only a path's own bytes are read, and damage is one error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from probes import shards
from probes.bank import GENERIC, Bank, fetch_blocks, find_bank_faults, load_bank
from probes.bank_format import HEAD
from probes.blocks import Design, Widths, is_written, measure_widths, start_tensors
from probes.descriptions import hash_description
from probes.errors import UserError
from tests.checkpoints import load_shape, write_checkpoint
from tests.small_world import write_bank as write_first_version
from workbench.banks.writing import ShardTensors, start_shards, write_bank
from workbench.costs.blocks import KINDS as COSTS
from workbench.costs.blocks import Bank as Costs
from workbench.costs.shapes import Shape

LORA = {
    "LoRA (query, key)": ("query", "key"),
    "LoRA (value, output)": ("value", "output"),
    "LoRA (FFN)": ("gate", "up", "down"),
}


def make_design(kind: str = "ffn", targets: tuple[str, ...] = (), ranks: tuple[int, ...] = (3, 0, 2)) -> Design:
    return Design(kind, measure_widths(load_shape("llama")), (0, 2), ranks, branching=2, targets=targets)


def fill(design: Design, seed: int = 0) -> list[ShardTensors]:
    """Shards whose every number is random, so that no two blocks are alike."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (name, {part: torch.randn(tensor.shape, generator=generator) for part, tensor in tensors.items()})
        for name, tensors in start_shards(design, 0)
    ]


def write(folder: Path, design: Design | None = None) -> Path:
    design = design or make_design()
    write_bank(folder, design, load_shape("llama").sha256, fill(design))
    return folder


@pytest.mark.parametrize("targets", [None, *LORA.values(), ("query", "down")])
def test_what_is_fetched_is_what_was_written(targets: tuple[str, ...] | None, tmp_path: Path) -> None:
    """Blocks of a path, read from their shard, are the rows of the tensors that were given; generic ones too."""
    model = load_shape("llama")
    for kind in ("ffn", "key-value") if targets is None else ("lora",):
        design = make_design(kind, targets or ())
        written = dict(fill(design))
        bank = load_bank(write(tmp_path / kind, design), model)
        assert bank.design == design
        assert not list(find_bank_faults(bank))
        for path in ((1, 2, 5), (0, 1, GENERIC), bank.generic_path):
            blocks = fetch_blocks(bank, model, path)
            for level, cluster in enumerate(path, start=1):
                shard = "generic" if cluster == GENERIC else f"subtree-{path[0]:04d}"
                row = 0 if cluster == GENERIC else cluster % 2 ** (level - 1)
                for name in design.shape_tensors(level):
                    wanted = written[shard][f"level{level}.{name}"][row]
                    assert torch.equal(blocks.weights[name][level - 1][0], wanted)


def measure_reads(bank: Bank, path: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that fetching a path asks the operating system for."""
    real, total = os.preadv, 0

    def count(handle: int, buffers: Any, offset: int) -> int:
        nonlocal total
        got = real(handle, buffers, offset)
        total += got
        return got

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "preadv", count)
        fetch_blocks(bank, load_shape("llama"), path)
    return total


@pytest.mark.parametrize(("kind", "targets"), [("ffn", ()), ("lora", LORA["LoRA (FFN)"]), ("key-value", ())])
def test_fetching_reads_only_the_path(
    kind: str, targets: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 1.05 times the blocks' bytes are read, header included, from a bank of many more blocks."""
    design = make_design(kind, targets, ranks=(128, 96, 64))
    write_bank(tmp_path / "bank", design, load_shape("llama").sha256, start_shards(design, 0))
    bank = load_bank(tmp_path / "bank", load_shape("llama"))
    needed = 2 * design.fetched
    read = measure_reads(bank, (1, 3, 6), monkeypatch)
    assert needed <= read <= 1.05 * needed
    assert sum(path.stat().st_size for path in (tmp_path / "bank").iterdir()) > 4 * needed


def test_fetching_reads_only_the_path_from_the_disk(tmp_path: Path) -> None:
    """The operating system itself counts: with the page cache dropped, no read-ahead brings in neighbours' blocks."""
    design = Design("ffn", Widths(512, 0, 0, 0), (0, 1), (256, 256), branching=4)
    design = replace(design, widths=replace(measure_widths(load_shape("llama")), d_model=512))
    write_bank(tmp_path / "bank", design, "", start_shards(design, 0))
    bank = load_bank(tmp_path / "bank")
    for path in (tmp_path / "bank").iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    before = count_disk_reads()
    fetch_blocks(bank, load_shape("llama"), (1, 6))
    read = count_disk_reads() - before
    if not read:
        pytest.skip("this file system keeps its pages, or does not count its reads")
    assert 2 * design.fetched <= read <= 1.05 * 2 * design.fetched


def count_disk_reads() -> int:
    """Bytes that this process had fetched from storage. Skips where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        pytest.skip("no /proc/self/io here")
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


@pytest.mark.parametrize("name", COSTS)
def test_a_built_bank_has_the_published_number_of_parameters(name: str, tmp_path: Path) -> None:
    """Numbers counted in the shards of a real bank equal the cost formula, fetched and kept, for every kind."""
    widths = measure_widths(load_shape("llama"))
    kind = {"FFN": "ffn", "key-value": "key-value"}.get(name, "lora")
    design = Design(kind, widths, (0, 2), (5, 3), branching=2, targets=LORA.get(name, ()))
    shape = Shape(
        layers=3,
        d_model=widths.d_model,
        heads=widths.heads,
        kv_heads=widths.kv_heads,
        d_head=widths.d_head,
        d_ffn=widths.d_ffn,
        vocabulary=400,
    )
    costs = Costs(shape, (5, 3), kind=name, branching=2, block_layers=2)
    write(tmp_path / "bank", design)
    kept = 0
    for path in (tmp_path / "bank").glob("subtree-*.safetensors"):
        with safe_open(path, framework="pt") as file:
            kept += sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
    assert kept == costs.kept == design.kept
    fetched = fetch_blocks(load_bank(tmp_path / "bank"), load_shape("llama"), (1, 2))
    assert sum(part.numel() for parts in fetched.weights.values() for part in parts) == costs.fetched == design.fetched


@pytest.mark.parametrize(("kind", "targets"), [("ffn", ()), ("lora", ("query", "output")), ("key-value", ())])
def test_start_values(kind: str, targets: tuple[str, ...]) -> None:
    """What writes is zero, what reads is not; equal seeds give equal banks, subtrees alone or together."""
    design = make_design(kind, targets)
    for name, tensor in start_tensors(design, 1, 2, torch.Generator().manual_seed(3)).items():
        assert bool(tensor.any()) != is_written(name)
    whole, alone = dict(start_shards(design, 5)), dict(start_shards(design, 5, subtrees=[1]))
    assert list(alone) == ["generic", "subtree-0001"]
    for name, tensors in alone.items():
        assert all(torch.equal(tensor, whole[name][part]) for part, tensor in tensors.items())


def change_head(folder: Path, rehash: bool = True, **changes: Any) -> None:
    about = json.loads((folder / HEAD).read_text()) | changes
    about.pop("sha256")
    (folder / HEAD).write_text(json.dumps(about | {"sha256": hash_description(about) if rehash else "0"}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "another model": (lambda folder: change_head(folder, model_sha256="f" * 64), "made for another model"),
    "future": (lambda folder: change_head(folder, version=3), "install a release"),
    "changed head": (lambda folder: change_head(folder, rehash=False, factor=9.0), "not those that were written"),
    "outside": (lambda folder: change_head(folder, shards={"../../etc": ""}), "no shard is called"),
    "shard gone": (lambda folder: (folder / "subtree-0001.safetensors").unlink(), "cannot read .*subtree-0001"),
    "shard not listed": (lambda folder: change_head(folder, shards={"generic": ""}), "lacks subtree-0001"),
    "truncated": (lambda folder: truncate(folder / "subtree-0001.safetensors"), "is truncated"),
    "header": (lambda folder: (folder / "subtree-0001.safetensors").write_bytes(b"\1\0\0\0\0\0\0\0x"), "damaged"),
    "empty": (lambda folder: (folder / "subtree-0001.safetensors").write_bytes(b""), "truncated"),
    "other file": (
        lambda folder: (folder / "generic.safetensors").replace(folder / "subtree-0001.safetensors"),
        "lacks row 1 of level2.gate",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_error(name: str, tmp_path: Path) -> None:
    """Whatever is wrong with a bank is said when it is opened or fetched from, or by looking for faults."""
    folder = write(tmp_path / "bank")
    damage, message = DAMAGE[name]
    damage(folder)
    with pytest.raises(UserError, match=message):
        fetch_blocks(load_bank(folder, load_shape("llama")), load_shape("llama"), (1, 3, 7))
    if name in ("shard gone", "truncated", "header", "empty", "other file"):
        assert list(find_bank_faults(load_bank(folder)))


def test_a_shard_that_leads_outside_is_refused(tmp_path: Path) -> None:
    """A link in place of a shard is not followed out of the bank's folder."""
    folder = write(tmp_path / "bank")
    (folder / "subtree-0001.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "subtree-0001.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UserError, match="outside the bank's folder"):
        fetch_blocks(load_bank(folder), load_shape("llama"), (1, 3, 7))


@pytest.mark.parametrize("path", [(0, 1), (0, 2, 4), (2, 4, 8), (-2, 0, 0)])
def test_paths_that_a_bank_does_not_have(path: tuple[int, ...], tmp_path: Path) -> None:
    bank = load_bank(write(tmp_path / "bank"))
    with pytest.raises(UserError, match="cluster"):
        fetch_blocks(bank, load_shape("llama"), path)


def test_a_bank_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A shard that is not as promised leaves nothing behind; a folder with something in it is not touched."""
    design = make_design()
    broken = fill(design)
    broken[-1][1]["level1.gate"][0] = torch.nan  # type: ignore[index]
    for shards_given, message in ((broken, "not finite"), ([("generic", {})], "has shape None")):
        with pytest.raises(UserError, match=message):
            write_bank(tmp_path / "bank", design, "", shards_given)  # type: ignore[arg-type]
        assert not list(tmp_path.iterdir())
    write(tmp_path / "bank")
    with pytest.raises(UserError, match="exists already"):
        write(tmp_path / "bank")


def test_designs_that_are_none() -> None:
    for changes in (
        {"kind": "rank"},
        {"kind": "lora"},
        {"layers": ()},
        {"layers": (2, 1)},
        {"ranks": (0, 0)},
        {"ranks": (2, -1)},
        {"branching": 1},
    ):
        with pytest.raises(UserError):
            replace(make_design(), **changes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="in this order"):
        make_design("lora", ("key", "query"))


def test_the_first_version_still_opens(tmp_path: Path) -> None:
    """A bank of one file, its generic blocks beside the others, reads as before."""
    model = load_shape("llama")
    write_first_version(tmp_path / "bank", model.sha256, model.d_model)
    bank = load_bank(tmp_path / "bank", model)
    assert (bank.head.version, bank.clusters, bank.design.ranks) == (1, (2, 4), (4, 2))
    assert not list(find_bank_faults(bank))
    with safe_open(tmp_path / "bank" / "blocks.safetensors", framework="pt") as file:
        for path, names in (
            ((1, 3), ("level1.up", "level2.up")),
            ((-1, -1), ("generic.level1.up", "generic.level2.up")),
        ):
            got = fetch_blocks(bank, model, path)
            for level, (name, cluster) in enumerate(zip(names, path, strict=True)):
                assert torch.equal(got.weights["up"][level][0], file.get_tensor(name)[max(cluster, 0)])


@pytest.mark.parametrize("shape", ["llama", "gpt2", "qwen2"])
def test_widths_are_those_of_the_configuration(shape: str) -> None:
    config = json.loads((write_checkpoint(shape) / "config.json").read_text())
    wanted = [
        config.get("hidden_size") or config.get("n_embd"),
        config.get("num_attention_heads") or config.get("n_head"),
        config.get("intermediate_size") or config.get("n_inner") or 4 * config["n_embd"],
    ]
    widths = measure_widths(load_shape(shape))
    assert [widths.d_model, widths.heads, widths.d_ffn] == wanted and widths.d_ffn != widths.d_model
