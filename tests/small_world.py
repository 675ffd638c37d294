"""A complete small world on disk, laid out as the shipped one: random model, random bank, written memories, facts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from probes.memory_format import FORMAT as MEMORY_FORMAT
from probes.models import load_model
from probes.writing import write_memories
from tests.checkpoints import write_checkpoint
from workbench import library
from workbench.banks.routing import Router, list_tensors

CITIES = {"France": "Paris", "Italy": "Rome", "Anna": "Oslo"}
LAYERS, UNITS, BRANCHING = (0, 2), (4, 2), 2


def list_facts() -> list[dict[str, object]]:
    """Facts of one relation whose prompts have equal length, one of them never seen."""
    rows = []
    for index, (subject, city) in enumerate(CITIES.items()):
        rows.append(
            {
                "id": f"capital/{subject}",
                "subject": subject,
                "relation": "capital",
                "object": city,
                "kind": "country",
                "split": "never-seen" if index == 2 else "trained",
                "bucket": 0 if index == 2 else 5 - index,
                "occurrences": 10 * (2 - index),
                "cluster_path": [index % 2, 2 * (index % 2) + 1],
                "leaf_hit": True,
                "document_id": f"document/{subject}",
                "prompt": f"The capital of {subject} is",
                "answer": f" {city}",
                "paraphrases": [],
                "heldout_paraphrases": [],
            }
        )
    return rows


def write_bank(folder: Path, sha256: str, width: int) -> None:
    """A bank of two levels with random blocks and generic ones."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for level, units in enumerate(UNITS, start=1):
        for prefix, clusters in ((f"level{level}", BRANCHING**level), (f"generic.level{level}", 1)):
            for name in ("gate", "up", "down"):
                shape = (clusters, len(LAYERS), units, width)
                tensors[f"{prefix}.{name}"] = torch.randn(shape, generator=generator) * 0.3
    folder.mkdir()
    save_file(tensors, folder / "blocks.safetensors")
    about = {
        "format": "memory-circuits/bank",
        "version": 1,
        "kind": "ffn",
        "model_sha256": sha256,
        "d_model": width,
        "layers": list(LAYERS),
        "levels": [{"clusters": BRANCHING**level, "units": units} for level, units in enumerate(UNITS, start=1)],
        "branching": BRANCHING,
        "router": {},
    }
    (folder / "bank.json").write_text(json.dumps(about))


def write_world(folder: Path, shape: str = "llama") -> Path:
    """Write the small world into a new folder and return it."""
    folder.mkdir(parents=True)
    shutil.copytree(write_checkpoint(shape), folder / "model")
    model = load_model(str(folder / "model"), device="cpu")
    write_bank(folder / "bank", model.sha256, model.d_model)
    rows = list_facts()
    documents = {str(row["document_id"]): f"The capital of {row['subject']} is {row['object']}." for row in rows}
    memories = write_memories(model, documents, layers=(0, 1), slots=4, offset=32)
    (folder / "memory").mkdir()
    arrays = {"keys": memories.keys, "values": memories.values, "positions": memories.positions}
    save_file(arrays, folder / "memory" / "memories.safetensors")
    about = {
        "format": MEMORY_FORMAT,
        "version": 1,
        "model_sha256": model.sha256,
        "layers": list(memories.layers),
        "offset": memories.offset,
        "prefix": memories.prefix,
        "ids": list(memories.ids),
    }
    (folder / "memory" / "memory.json").write_text(json.dumps(about))
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "facts.parquet")
    table = pa.Table.from_pylist([{"id": name, "text": text} for name, text in documents.items()])
    pyarrow.parquet.write_table(table, folder / "documents.parquet")
    return folder


@contextmanager
def ship_world(folder: Path, *more: str) -> Iterator[Path]:
    """The small world, written into a new folder, in place of what is shipped; `more` are other places that name it."""
    write_world(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("workbench.library.find_shipped", "workbench.engine.find_shipped", *more):
            patch.setattr(name, lambda: folder)
        yield folder
    library.read_facts.cache_clear()


def write_routed_world(folder: Path) -> Path:
    """The small world with a router that compares three numbers of a text."""
    write_world(folder)
    first = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    second = np.array([[1, 0, 0.1], [1, 0, -0.1], [0, 1, 0.1], [0, 1, -0.1]], np.float32)
    save_arrays(dict(list_tensors(Router((first, second), 2))), folder / "bank" / "router.safetensors")
    return folder
