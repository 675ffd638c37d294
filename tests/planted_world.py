"""The planted knowledge as a complete world on disk, laid out as the shipped one: what the findings must be is known.

Capitals are known by FFN units (often seen), rivers by the bank's blocks (seldom), food by explicit memories (never).
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import torch
from safetensors.torch import save_file

from circuits.planted.knowledge import KNOWING, Knowledge, plant_knowledge
from probes.memory_format import FORMAT as MEMORY_FORMAT
from probes.models import load_model

BUCKETS = {"capital": 5, "river": 1, "food": 0}


def list_rows(knowledge: Knowledge) -> list[dict[str, object]]:
    """Facts as rows of the table."""
    return [
        {
            "id": fact.id,
            "subject": fact.id.split()[-1],
            "relation": fact.relation,
            "object": fact.answer,
            "kind": "country",
            "split": "trained" if BUCKETS[fact.relation] else "never-seen",
            "bucket": BUCKETS[fact.relation],
            "occurrences": BUCKETS[fact.relation],
            "cluster_path": [fact.cluster],
            "leaf_hit": True,
            "document_id": fact.memory,
            "prompt": fact.prompts[0],
            "answer": f" {fact.answer}",
            "paraphrases": list(fact.prompts[1:]),
            "heldout_paraphrases": [],
        }
        for fact in knowledge.facts
    ]


def write_bank(folder: Path, knowledge: Knowledge, sha256: str) -> None:
    """The blocks of the three clusters, and a generic one that writes nothing."""
    blocks = {fact.cluster: fact.attachment.bank for fact in knowledge.facts}
    tensors = {}
    for name in ("gate", "up", "down"):
        parts = [block.weights[name][0] for _, block in sorted(blocks.items()) if block is not None]
        tensors[f"level1.{name}"] = torch.cat(parts).contiguous()
        tensors[f"generic.level1.{name}"] = torch.zeros_like(parts[0])
    folder.mkdir()
    save_file(tensors, folder / "blocks.safetensors")
    about = {
        "format": "memory-circuits/bank",
        "version": 1,
        "kind": "ffn",
        "model_sha256": sha256,
        "d_model": int(tensors["level1.gate"].shape[-1]),
        "layers": [KNOWING],
        "levels": [{"clusters": 3, "units": int(tensors["level1.gate"].shape[-2])}],
        "branching": 3,
        "router": {},
    }
    (folder / "bank.json").write_text(json.dumps(about))


def write_memory(folder: Path, knowledge: Knowledge, sha256: str) -> None:
    """The three memories; their keys hardly turn with the position."""
    memories = {fact.memory: fact.attachment.explicit for fact in knowledge.facts}
    found = [memory for memory in memories.values() if memory is not None]
    keys, values = (torch.cat([getattr(one, name)[0] for one in found], dim=1) for name in ("keys", "values"))
    folder.mkdir()
    tensors = {"keys": keys.transpose(0, 1).contiguous(), "values": values.transpose(0, 1).contiguous()}
    places = torch.arange(keys.shape[-2]).expand(tensors["keys"].shape[:-1])
    save_file(tensors | {"positions": places.contiguous()}, folder / "memories.safetensors")
    about = {
        "format": MEMORY_FORMAT,
        "version": 1,
        "model_sha256": sha256,
        "layers": list(found[0].layers),
        "offset": 4,
        "prefix": "",
        "ids": list(memories),
    }
    (folder / "memory.json").write_text(json.dumps(about))


def write_world(folder: Path, seed: int = 0) -> Path:
    """Write the planted world into a new folder and return it."""
    knowledge = plant_knowledge(seed)
    folder.mkdir(parents=True)
    knowledge.sketch.save(folder / "model")
    sha256 = load_model(str(folder / "model"), device="cpu").sha256
    write_bank(folder / "bank", knowledge, sha256)
    write_memory(folder / "memory", knowledge, sha256)
    rows = list_rows(knowledge)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "facts.parquet")
    texts = {str(row["document_id"]): f"food {row['subject']} is{row['answer']}" for row in rows if not row["bucket"]}
    table = pa.Table.from_pylist([{"id": name, "text": text} for name, text in texts.items()])
    pyarrow.parquet.write_table(table, folder / "documents.parquet")
    return folder
