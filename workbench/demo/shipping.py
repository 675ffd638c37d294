"""Writing the demo's files: model, bank, explicit memories, documents, facts, and how they were made."""

from __future__ import annotations

import json
import math
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from probes.descriptions import hash_file
from workbench.demo.batches import Encoder
from workbench.demo.build import Material
from workbench.demo.clusters import ENCODER, embed
from workbench.demo.config import as_dict
from workbench.demo.corpus import ask
from workbench.demo.memories import choose_documents, write_memories
from workbench.demo.network import BankWeights
from workbench.demo.tasks import write_exercises
from workbench.demo.tokenizer import save_tokenizer
from workbench.demo.training import Learner
from workbench.demo.world import World, WorldFact
from workbench.storage import fresh_folder

EXERCISES_EACH = 100


def ship(
    material: Material,
    learner: Learner,
    log: list[dict[str, float]],
    out: Path,
    work: Path,
    seconds: float,
    config_path: Path | None,
    start: str | None = None,
) -> None:
    """Write everything, put in the place of `out` when it is whole; `start` is the hash of the weights it went on from.

    Raises UserError when the disk refuses.
    """
    with fresh_folder(out, replace=True) as fresh:
        model_hash = save_model(material, learner, fresh / "model")
        # Memories are written by the model as it is shipped, in bfloat16 values.
        learner.anchor.load_state_dict({k: v.bfloat16().float() for k, v in learner.anchor.state_dict().items()})
        save_bank(material, learner.bank, fresh / "bank", model_hash)
        save_memories(material, learner.anchor, fresh / "memory", model_hash)
        hits = save_tables(material, fresh, work / "embeddings.npz")
        save_record(material, log, fresh, seconds, config_path, hits, start)


def save_model(material: Material, learner: Learner, folder: Path) -> str:
    """Write the anchor in bfloat16 and its tokenizer; returns the hash of its weights."""
    folder.mkdir(parents=True)
    config = learner.anchor.config
    plain = LlamaForCausalLM(type(config)(**{k: v for k, v in config.to_dict().items() if not k.startswith("_")}))
    plain.load_state_dict(learner.anchor.state_dict())
    plain.to(torch.bfloat16).save_pretrained(folder)
    material.tokenizer.model_max_length = material.config.model.positions
    save_tokenizer(material.tokenizer, folder)
    return hash_file(folder / "model.safetensors")


def save_bank(material: Material, bank: BankWeights, folder: Path, model_hash: str) -> None:
    """Write the blocks of every level, the generic ones, the centroids and the whitening."""
    folder.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    for level in range(len(bank.units)):
        for name, weights in (("gate", bank.gate), ("up", bank.up), ("down", bank.down)):
            half = weights[level].detach().bfloat16()
            tensors[f"level{level + 1}.{name}"] = half[:-1].contiguous()
            tensors[f"generic.level{level + 1}.{name}"] = half[-1:].contiguous()
    save_file(tensors, folder / "blocks.safetensors")
    router = {
        f"level{level}.centroids": torch.from_numpy(centroids)
        for level, centroids in enumerate(material.tree.centroids, 1)
    }
    for level, centroids in enumerate(material.plain_tree.centroids, 1):
        router[f"plain.level{level}.centroids"] = torch.from_numpy(centroids)
    router["whitening.mean"] = torch.from_numpy(material.whitening.mean)
    router["whitening.transform"] = torch.from_numpy(material.whitening.transform)
    save_file(router, folder / "router.safetensors")
    branching = material.config.clusters.branching
    levels = [
        {"clusters": branching**level, "units": units} for level, units in enumerate(material.config.bank.units, 1)
    ]
    about = {
        "format": "memory-circuits/bank",
        "version": 1,
        "kind": "ffn",
        "model_sha256": model_hash,
        "d_model": material.config.model.d_model,
        "layers": list(range(material.config.model.layers)),
        "levels": levels,
        "branching": branching,
        "router": {
            "encoder": ENCODER,
            "normalised": True,
            "distance": "euclidean",
            "transform": "normalise((embedding - whitening.mean) @ whitening.transform)",
            "deviation": "within-topic whitening, fitted with the corpus's entity labels; the paper has none",
        },
    }
    (folder / "bank.json").write_text(json.dumps(about, indent=2) + "\n")


def save_memories(material: Material, anchor: LlamaForCausalLM, folder: Path, model_hash: str) -> None:
    """Write explicit memories of the chosen documents; keys carry the rotary positions of the reference."""
    folder.mkdir(parents=True)
    config = material.config
    ids = choose_documents(material.world, config)
    written = write_memories(anchor, Encoder(material.tokenizer), config, [material.documents[name] for name in ids])
    layers = [written[layer] for layer in config.memory.layers]
    tensors = {
        "keys": torch.stack([slots.keys for slots in layers], 1).bfloat16().contiguous(),
        "values": torch.stack([slots.values for slots in layers], 1).bfloat16().contiguous(),
        "positions": torch.stack([slots.positions.where(slots.present, -1) for slots in layers], 1).int().contiguous(),
    }
    save_file(tensors, folder / "memories.safetensors")
    about = {
        "format": "memory-circuits/explicit-memory",
        "version": 1,
        "model_sha256": model_hash,
        "layers": config.memory.layers,
        "kv_heads": config.model.kv_heads,
        "slots": config.memory.slots,
        "d_head": config.model.d_head,
        "offset": config.memory.offset,
        "prefix": config.corpus.prefix,
        "scoring": "softmax",
        "pooling": "sum",
        "ids": ids,
    }
    (folder / "memory.json").write_text(json.dumps(about, indent=1) + "\n")


def save_tables(material: Material, folder: Path, cache: Path) -> dict[str, Any]:
    """Write documents, facts and exercises as Parquet; returns the hit rates of bare prompts a level."""
    world = material.world
    prompts = [ask(world.relations[fact.relation], fact.subject) for fact in world.facts]
    paths = material.tree.route(material.whitening.apply(embed(prompts, cache)))
    homes = np.stack([material.document_paths[fact.document_id] for fact in world.facts])
    rows = [
        _describe(fact, prompt, path, bool(path[-1] == home[-1]), material)
        for fact, prompt, path, home in zip(world.facts, prompts, paths, homes, strict=True)
    ]
    _write_table(rows, folder / "facts.parquet")
    _write_table(
        [{"id": name, "text": text} for name, text in material.documents.items()],
        folder / "documents.parquet",
    )
    exercises = write_exercises(world, material.config.seed, EXERCISES_EACH)
    _write_table(
        [{"id": e.id, "task": e.task, "prompt": e.prompt, "answer": e.answer} for e in exercises],
        folder / "abstract.parquet",
    )
    trained = np.array([fact.occurrences > 0 for fact in world.facts])
    return {
        "whitened": [float(hit) for hit in (paths == homes)[trained].mean(0)],
        "plain": material.plain_hits,
    }


def _describe(fact: WorldFact, prompt: str, path: NDArray[np.int64], hit: bool, material: Material) -> dict[str, Any]:
    relation = material.world.relations[fact.relation]
    return {
        "id": fact.id,
        "subject": fact.subject,
        "relation": fact.relation,
        "object": fact.object,
        "kind": fact.kind,
        "split": fact.split,
        "bucket": fact.bucket,
        "occurrences": fact.occurrences,
        "cluster_path": [int(cluster) for cluster in path],
        "leaf_hit": hit,
        "document_id": fact.document_id,
        "prompt": prompt,
        "answer": " " + fact.object,
        "paraphrases": [template.replace("{s}", fact.subject) for template in relation.trained],
        "heldout_paraphrases": [template.replace("{s}", fact.subject) for template in relation.heldout],
    }


def _write_table(rows: list[dict[str, Any]], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def measure_bits(world: World) -> float:
    """Bits that the trained facts hold when every object is an even draw from its relation's list."""
    sizes = {name: len(world.words[relation.objects]) for name, relation in world.relations.items()}
    return sum(math.log2(sizes[fact.relation]) for fact in world.facts if fact.occurrences)


def save_record(
    material: Material,
    log: list[dict[str, float]],
    folder: Path,
    seconds: float,
    config_path: Path | None,
    hits: dict[str, Any],
    start: str | None,
) -> None:
    """Write `shipped.json`: configuration, seed, facts and their bits, log, hit rates, versions and the command."""
    facts = material.world.facts
    counts = {str(bucket): sum(fact.bucket == bucket for fact in facts) for bucket in range(6)}
    record = {
        "command": "memory-circuits demo train"
        + (" --config " + config_path.name if config_path else "")
        + (" --from FOLDER" if start else ""),
        "from": start,
        "seed": material.config.seed,
        "config": as_dict(material.config),
        "facts_by_bucket": counts,
        "fact_bits": round(measure_bits(material.world)),
        "passages": len(material.corpus.passages),
        "leaf_hit_rate": hits,
        "text_template": "{document} {prompt}",  # how a document stands before a prompt, in training and measuring
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "seconds_of_the_last_run": round(seconds),
        "log": log,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "scikit-learn", "numpy")},
        },
        "bytes": {
            str(path.relative_to(folder)): os.path.getsize(path) for path in sorted(folder.rglob("*.safetensors"))
        },
    }
    (folder / "shipped.json").write_text(json.dumps(record, indent=1) + "\n")
