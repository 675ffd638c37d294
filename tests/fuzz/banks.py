"""Targets that are folders of memories: explicit ones, compressed ones, parametric blocks of each kind, trees, routers.

A case changes one or two files of a whole folder: bytes, the JSON head (sealed again, so that its hash is right), the
header of a file of tensors, a file of another bank, a link out of the folder, or no file at all. Then the folder is
opened for its model and for looking at, searched for faults, and everything in it is read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file

from probes.bank import Bank, fetch_blocks, find_bank_faults, load_bank
from probes.bank_format import ROUTER
from probes.blocks import Design, measure_widths
from probes.codebooks import CODEBOOKS, list_shapes
from probes.codes import choose_code
from probes.descriptions import seal_description
from probes.errors import UserError
from probes.memory_bank import find_faults, open_bank
from probes.memory_format import Head
from probes.models import Model
from tests.checkpoints import load_shape
from tests.fuzz.cases import Attempt, Read, Target
from tests.fuzz.mutations import mutate_bytes, mutate_json, spell_json
from tests.small_world import write_bank as write_first_bank
from workbench.banks.corpus import load_tree
from workbench.banks.routing import Router, list_tensors, load_router
from workbench.banks.writing import start_shards, write_bank
from workbench.memory.inspection import list_entries, mark_tokens, read_memory
from workbench.memory.search import Encoder, open_searcher
from workbench.memory.store import BankWriter, delete_memories
from workbench.stored import read_blocks, read_memories

MEMORIES, PREFIX = 5, 2
Write = Callable[[Path, Model], None]
Use = Callable[[Path, Model], None]


def make_head(model: Model, code: str = "") -> Head:
    """Head of an empty bank for a model."""
    return Head(
        version=2, model_sha256=model.sha256, layers=(0, 1), kv_heads=model.kv_heads, slots=3, d_head=model.d_head,
        offset=32, prefix="Reference:", scoring="softmax", pooling="sum", precision="float32", first_token=PREFIX,
        next_part=0, code=code,
    )  # fmt: skip


def write_explicit(folder: Path, model: Model, code: str = "") -> None:
    """A bank of two parts with a deleted memory; random keys and values."""
    folder.mkdir()
    head, generator = make_head(model, code), torch.Generator().manual_seed(0)
    if code:
        tensors = {
            name: torch.randn(shape, generator=generator)
            for name, shape in list_shapes(head.read_code(), len(head.layers)).items()
        }
        save_file(tensors, folder / CODEBOOKS)
    writer = BankWriter(folder, head)
    for number in range(MEMORIES):
        text = f"Memory {number} of many."
        entry = {
            "id": f"d-{number}", "document": "notes.txt", "chunk": number, "start": 0, "end": len(text), "text": text,
            "sha256": f"{number}" * 64, "token_starts": [0, 7, 9],
        }  # fmt: skip
        sides = [torch.randn(head.stored_shape, generator=generator) for _ in range(2)]
        if code:
            sides = [(side * 40).abs().to(torch.uint8) for side in sides]
        positions = torch.tensor([2, 3, -1]).expand(head.shape[:-1]).int()
        writer.add((entry, *sides, positions))
        if number == 2:
            writer.commit()
    writer.commit()
    delete_memories(folder, ["d-1"])


def write_compressed(folder: Path, model: Model) -> None:
    """A bank whose keys and values are codes."""
    write_explicit(folder, model, choose_code(model.d_head, 1 << 10).name)


def write_first_memories(folder: Path, model: Model) -> None:
    """A bank of version 1."""
    folder.mkdir()
    head, generator = make_head(model), torch.Generator().manual_seed(0)
    shape = (MEMORIES, *head.shape)
    sides = {side: torch.randn(shape, generator=generator) for side in ("keys", "values")}
    positions = torch.tensor([2, 3, -1]).expand(shape[:-1]).int().contiguous()
    save_file(sides | {"positions": positions}, folder / "memories.safetensors")
    about = {
        "format": "memory-circuits/explicit-memory", "version": 1, "model_sha256": model.sha256, "layers": [0, 1],
        "offset": 32, "prefix": "Reference:", "ids": [f"d-{number}" for number in range(MEMORIES)],
    }  # fmt: skip
    (folder / "memory.json").write_text(json.dumps(about))


def write_parametric(kind: str, targets: tuple[str, ...] = ()) -> Write:
    """A routed bank of one kind of block."""

    def write(folder: Path, model: Model) -> None:
        design = Design(kind, measure_widths(model), (0, 2), (2, 1), branching=2, targets=targets)
        router = {name: torch.from_numpy(array) for name, array in list_tensors(make_router()).items()}
        about = {"encoder": "none", "width": 3}
        write_bank(folder, design, model.sha256, start_shards(design, 0, torch.float32), about, router)

    return write


def make_router() -> Router:
    """Two levels of two children each, texts of three numbers, whitened."""
    first, second = np.eye(2, 3, dtype=np.float32), np.arange(12, dtype=np.float32).reshape(4, 3)
    return Router((first, second), 2, np.zeros(3, np.float32), np.eye(3, dtype=np.float32))


def write_tree(folder: Path, model: Model) -> None:
    """A tree of clusters, as `bank cluster` writes it."""
    folder.mkdir()
    router = {name: torch.from_numpy(array) for name, array in list_tensors(make_router()).items()}
    save_file(router, folder / ROUTER)
    columns: dict[str, list[Any]] = {"document": ["a", "b"], "start": [0, 0], "end": [5, 5], "leaf": [0, 3]}
    pq.write_table(pa.table(columns), folder / "windows.parquet")
    about = {"format": "memory-circuits/clusters", "version": 1, "branching": 2, "depth": 2, "windows": 2}
    (folder / "tree.json").write_text(json.dumps(about))


def encode_texts(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors of three numbers."""
    return np.array([[1.0, len(text), len(text) % 7] for text in texts], np.float32)


def use_explicit(folder: Path, model: Model) -> None:
    """Everything that is done with a bank of explicit memories."""
    list(find_faults(folder))
    read_memories(folder)
    bank = open_bank(folder)
    bank.describe()
    for entry in list_entries(bank, 3):
        assert len(str(entry)) < 100_000
    ids = [name for name in bank.ids.to_pylist() if name is not None]
    for name in ids[:2]:
        entry, kept = read_memory(bank, name)
        if bank.head.version > 1:
            mark_tokens(entry, kept[0]["tokens"] if kept else ())
    if bank.head.version > 1 and ids:
        open_searcher(bank, Encoder("fuzz", encode_texts)).search("Memory 1", 2)
    found = open_bank(folder, model).select(tuple(ids[:2])) if ids else None
    assert found is None or found.keys.dtype == torch.float32


def use_parametric(folder: Path, model: Model) -> None:
    """Everything that is done with a bank of blocks."""
    list(find_bank_faults(load_bank(folder)))
    read_blocks(folder)
    bank: Bank = load_bank(folder, model)
    route = [bank.generic_path, tuple(0 for _ in bank.clusters), tuple(count - 1 for count in bank.clusters)]
    if bank.router:
        router = load_router(folder, bank.branching, len(bank.clusters))
        route += [tuple(map(int, path)) for path in router.route(encode_texts(["a text"]))]
    for path in route:
        for levels in fetch_blocks(bank, model, path).weights.values():
            assert all(tensor.dtype == torch.float32 for tensor in levels)


def use_tree(folder: Path, model: Model) -> None:
    """Open a tree and route a text down it."""
    router, _, windows = load_tree(folder)
    router.route(encode_texts(["a text"]))
    assert windows.num_rows >= 0


def change_head(draw: Random, path: Path) -> None:
    """Change the JSON head; most often it is sealed again, or says that it is of a version to come."""
    about = json.loads(path.read_bytes())
    if draw.randrange(8) == 0 or not isinstance(about, dict):
        path.write_bytes(spell_json(draw, about))
        return
    sealed = about.pop("sha256", None)
    changed = {**about, "version": 9} if draw.randrange(12) == 0 else mutate_json(draw, about)
    if sealed is None or not isinstance(changed, dict):
        path.write_bytes(json.dumps(changed).encode())
    else:
        path.write_bytes(seal_description(changed))


def change_tensors(draw: Random, path: Path) -> None:
    """Change a file of tensors: its header, or one tensor's type, shape, numbers or name."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if draw.randrange(2):
        header = json.dumps(mutate_json(draw, json.loads(data[8 : 8 + length]))).encode()
        size = draw.choice((len(header), len(header), length, draw.randrange(1 << 40)))
        path.write_bytes(size.to_bytes(8, "little") + header + data[8 + length :])
        return
    tensors = load_file(path)
    name = draw.choice(sorted(tensors))
    tensor = tensors.pop(name)
    changes: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: tensor.double(),
        lambda: tensor.to(torch.float16),
        lambda: tensor.to(torch.int64),
        lambda: tensor[..., :1],
        lambda: tensor[:0],
        lambda: tensor.flatten(),
        lambda: tensor[None],
        lambda: torch.full_like(tensor.float(), float("nan")),
        lambda: torch.full_like(tensor.float(), 3e38),
        lambda: torch.zeros(()),
    )
    if draw.randrange(6):
        tensors[name] = draw.choice(changes)()
    path.write_bytes(save({key: value.contiguous() for key, value in tensors.items()}))


def change_file(draw: Random, folder: Path, other: Path, head: str) -> None:
    """One change to one file of a folder; `other` is a whole folder of the same kind, of another model."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    path = folder / (head if draw.randrange(3) == 0 else draw.choice(names))
    if not path.is_file() or path.is_symlink():
        return
    match draw.randrange(9):
        case 0:
            path.unlink()
        case 1:
            shutil.copyfile(other / path.name, path)
        case 2:
            shutil.copyfile(folder / draw.choice(names), path.with_name(f"{path.name}.new"))
            path.with_name(f"{path.name}.new").replace(path)
        case 3:
            path.unlink()
            path.symlink_to(draw.choice(("/dev/zero", "/etc/passwd", "..", path.name, "nowhere")))
        case 4 | 5:
            path.write_bytes(mutate_bytes(draw, path.read_bytes()))
        case _ if path.suffix == ".json":
            change_head(draw, path)
        case _ if path.suffix == ".safetensors":
            change_tensors(draw, path)
        case _:
            path.write_bytes(mutate_bytes(draw, path.read_bytes()))


def prepare_folder(write: Write, use: Use, head: str) -> Callable[[Path], Attempt]:
    """Folders of one kind."""

    def prepare(workspace: Path) -> Attempt:
        model, whole, other = load_shape("llama"), workspace / "whole", workspace / "other"
        write(whole, model)
        write(other, load_shape("qwen2"))
        use(whole, model)

        def attempt(draw: Random) -> Read:
            folder = workspace / "case"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder)
            for _ in range(draw.randrange(1, 3)):
                try:
                    change_file(draw, folder, other, head)
                except (OSError, UserError, ValueError, KeyError, RuntimeError, SafetensorError):
                    # What the first change left could not be changed once more.
                    continue
            return lambda: use(folder, model)

        return attempt

    return prepare


def write_first_blocks(folder: Path, model: Model) -> None:
    """A bank of blocks of version 1."""
    write_first_bank(folder, model.sha256, model.d_model)


TARGETS = (
    Target("explicit-memory bank", prepare_folder(write_explicit, use_explicit, "memory.json")),
    Target("compressed memory bank", prepare_folder(write_compressed, use_explicit, "memory.json")),
    Target("memory bank, version 1", prepare_folder(write_first_memories, use_explicit, "memory.json")),
    Target("FFN bank", prepare_folder(write_parametric("ffn"), use_parametric, "bank.json")),
    Target("LoRA bank", prepare_folder(write_parametric("lora", ("query", "key")), use_parametric, "bank.json")),
    Target("key-value bank", prepare_folder(write_parametric("key-value"), use_parametric, "bank.json")),
    Target("FFN bank, version 1", prepare_folder(write_first_blocks, use_parametric, "bank.json")),
    Target("tree of clusters", prepare_folder(write_tree, use_tree, "tree.json")),
)
