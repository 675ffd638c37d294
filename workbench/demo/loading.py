"""A demo folder opened for measuring: model, bank, router, explicit memories and tables."""

from __future__ import annotations

import copy
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AttentionInterface, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from probes.errors import UserError
from probes.parquet_tables import read_table
from workbench.demo.clusters import Tree
from workbench.demo.config import DEFAULT, Config, parse_config
from workbench.demo.network import ATTENTION, Attached, BankWeights, Slots, attend
from workbench.demo.whitening import Whitening

# What `demo experiments` adds to a demo's folder: a folder, an anchor trained alone, records of all trainings.
EXPERIMENTS, ALONE, ARMS = "experiments", "alone.safetensors", "arms.json"


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo folder holds, in float32."""

    config: Config
    tokenizer: PreTrainedTokenizerFast
    model: LlamaForCausalLM
    attached: Attached
    bank: BankWeights
    tree: Tree
    plain_tree: Tree
    whitening: Whitening
    memory_ids: dict[str, int]
    memory: dict[int, Slots]
    facts: list[dict[str, Any]]
    documents: dict[str, str]
    exercises: list[dict[str, Any]]
    alone: LlamaForCausalLM | None


def load_demo(folder: Path) -> Demo:
    """Open a folder that `memory-circuits demo train` wrote.

    Raises `UserError` when the folder is not one, or when it was written by another version of this project.
    """
    if not (folder / "shipped.json").is_file():
        raise UserError(f"{folder} is not a demo model (no shipped.json); make one with `memory-circuits demo train`.")
    record = json.loads((folder / "shipped.json").read_text())
    config = parse_config(record["config"], tomllib.loads(DEFAULT.read_text()))
    AttentionInterface.register(ATTENTION, attend)
    model = LlamaForCausalLM.from_pretrained(
        folder / "model", attn_implementation=ATTENTION, dtype=torch.float32, local_files_only=True
    ).eval()
    router = load_file(folder / "bank" / "router.safetensors")
    ids, memory = load_memories(folder / "memory")
    documents = read_table(folder / "documents.parquet").to_pylist()
    return Demo(
        config=config,
        tokenizer=AutoTokenizer.from_pretrained(folder / "model", local_files_only=True),
        model=model,
        attached=Attached(model),
        bank=load_blocks(folder / "bank", config),
        tree=read_tree(router, "", config),
        plain_tree=read_tree(router, "plain.", config),
        whitening=Whitening(router["whitening.mean"].numpy(), router["whitening.transform"].numpy()),
        memory_ids=ids,
        memory=memory,
        facts=read_table(folder / "facts.parquet").to_pylist(),
        documents={row["id"]: row["text"] for row in documents},
        exercises=read_table(folder / "abstract.parquet").to_pylist(),
        alone=load_alone(folder, model),
    )


def read_tree(router: dict[str, torch.Tensor], prefix: str, config: Config) -> Tree:
    """The tree whose centroids stand under names with this prefix."""
    names = [f"{prefix}level{level}.centroids" for level in range(1, config.clusters.depth + 1)]
    return Tree(tuple(router[name].numpy() for name in names), config.clusters.branching)


def load_alone(folder: Path, model: LlamaForCausalLM) -> LlamaForCausalLM | None:
    """The anchor trained alone, of the same shape; None where the experiments were not run."""
    path = folder / EXPERIMENTS / ALONE
    if not path.is_file():
        return None
    alone = LlamaForCausalLM(copy.deepcopy(model.config))
    alone.load_state_dict({name: value.float() for name, value in load_file(path).items()}, strict=False)
    alone.tie_weights()
    return alone.eval()


def load_arms(folder: Path) -> list[dict[str, Any]]:
    """Records of the experiments' arms; none where they were not run."""
    path = folder / EXPERIMENTS / ARMS
    arms: list[dict[str, Any]] = json.loads(path.read_text())["arms"] if path.is_file() else []
    return arms


def load_blocks(folder: Path, config: Config) -> BankWeights:
    """The bank's blocks, generic ones last."""
    stored = load_file(folder / "blocks.safetensors")
    bank = BankWeights(config)
    with torch.no_grad():
        for level in range(len(bank.units)):
            for name, weights in (("gate", bank.gate), ("up", bank.up), ("down", bank.down)):
                both = [stored[f"level{level + 1}.{name}"], stored[f"generic.level{level + 1}.{name}"]]
                weights[level].copy_(torch.cat(both).float())
    return bank.eval()


def load_memories(folder: Path) -> tuple[dict[str, int], dict[int, Slots]]:
    """Row of each document, and the slots of all rows by layer."""
    about = json.loads((folder / "memory.json").read_text())
    stored = load_file(folder / "memories.safetensors")
    memory = {}
    for place, layer in enumerate(about["layers"]):
        positions = stored["positions"][:, place].long()
        keys, values = stored["keys"][:, place].float(), stored["values"][:, place].float()
        memory[int(layer)] = Slots(keys, values, positions >= 0, positions.clamp(min=0))
    return {name: row for row, name in enumerate(about["ids"])}, memory
