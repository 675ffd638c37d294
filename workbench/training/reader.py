"""`memory train`: a model learns to read explicit memories, plain language modelling first, then with memory.

    corpus -> Material -> stage 1: sequences alone -> stage 2: each chunk reads 5 references, written live -> checkpoint

Source: Yang et al. 2024, sections 3.6 and 5 (two stages, 1 reference a 64-token chunk and those of the 4 before).
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probes.errors import UserError
from probes.explicit import REFERENCE_LENGTH
from probes.progress import Tick
from workbench.storage import fresh_folder
from workbench.training.attention import ReadSlots
from workbench.training.checkpoints import (
    Workplace,
    load_checkpoint,
    open_workplace,
    pack_state,
    restore_state,
    save_checkpoint,
)
from workbench.training.corpus import Files, hash_corpus, open_corpus
from workbench.training.live import CHUNK, share_live, write_live
from workbench.training.networks import Network, list_trained, open_network, save_network
from workbench.training.reading_material import Material, build_material, load_material, save_material
from workbench.training.steps import Steps, choose_rate, order_rows, seed_step, set_rate, thin_log


@dataclass(frozen=True, slots=True)
class ReaderPlan:
    """How a reader is trained: steps of both stages, and how memories are written and read.

    `layers` are the memory layers (none: the first half), `overlap` the share of a reference above which a sequence
    holds it already, `gradient` whether the loss reaches the weights through the write. The peak rate is ours: the
    paper gives none in its text.
    """

    warmup_steps: int = 0
    steps: int = 1000
    rows: int = 8
    length: int = 512
    rate: float = 1e-4
    weight_decay: float = 0.1
    layers: tuple[int, ...] = ()
    slots: int = 8
    offset: int = REFERENCE_LENGTH
    prefix: str = "Reference:"
    overlap: float = 0.9
    gradient: bool = True
    seed: int = 0
    bf16: bool = False

    def check(self, network: Network) -> None:
        """Raise UserError for the first setting that is out of its range or does not fit the model."""
        for name in ("steps", "rows", "slots", "offset"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: give 1 or more")
        if self.warmup_steps < 0 or not 0 < self.rate < 1 or not 0 <= self.seed < 2**31:
            raise UserError("give warm-up steps from 0, a rate between 0 and 1, and a seed from 0 to 2147483647")
        if not 0 < self.overlap <= 1:
            raise UserError(f"the overlap is {self.overlap:g}: give a share above 0, at most 1")
        if self.length % CHUNK or not CHUNK <= self.length <= network.context:
            raise UserError(f"the length is {self.length}: give a multiple of {CHUNK} up to {network.context}")
        if any(not 0 <= layer < network.layers for layer in self.layers):
            raise UserError(f"memory layers {list(self.layers)} are not all in 0..{network.layers - 1}")

    def choose_layers(self, network: Network) -> tuple[int, ...]:
        """Memory layers, the first half of the model when none are named (the paper's choice)."""
        return self.layers or tuple(range(max(1, network.layers // 2)))


@dataclass(slots=True)
class Reader:
    """A model while it is trained to read."""

    network: Network
    plan: ReaderPlan
    material: Material
    layers: tuple[int, ...]
    optimizer: torch.optim.Optimizer

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return list_trained(self.network.model)

    def take(self, step: int) -> float:
        """One step of either stage; returns its loss in nats a token."""
        plan, model = self.plan, self.network.model
        seed_step(plan.seed, step)
        total = plan.warmup_steps + plan.steps
        set_rate(self.optimizer, choose_rate(step, total, plan.rate))
        rows = order_rows(step, plan.rows, len(self.material.sequences), plan.seed)
        with cast(plan.bf16, self.network.device):
            loss = self.measure(rows, memory=step >= plan.warmup_steps)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def measure(self, rows: list[int], memory: bool) -> Float[Tensor, ""]:
        """Mean cross-entropy of these sequences, in nats a token, with memory or without."""
        ids = self.material.sequences[rows].long().to(self.network.device)
        extra: dict[str, Any] = {"memory": self.write(rows)} if memory else {}
        return measure_tokens(self.network.model, ids, **extra)

    def write(self, rows: list[int]) -> dict[int, ReadSlots]:
        """What these sequences read, written by the model as it is now."""
        plan, device = self.plan, self.network.device
        chosen = self.material.chosen[rows].long()
        wanted, inverse = torch.unique(chosen.clamp(min=0), return_inverse=True)
        ids, valid = cut_references(self.material, wanted)
        written = write_live(
            self.network.model, ids.to(device), valid.to(device), self.layers, plan.slots, plan.offset, plan.gradient
        )
        return share_live(written, inverse.masked_fill(chosen < 0, -1).to(device), self.material.sequences.shape[1])


def cut_references(
    material: Material, wanted: Int[Tensor, " some"]
) -> tuple[Int[Tensor, "some pos"], Bool[Tensor, "some pos"]]:
    """Token ids of some references, as long as the longest of them, and which tokens are text."""
    lengths = material.lengths[wanted]
    ids = material.references[wanted, : int(lengths.max())].long()
    place = torch.arange(ids.shape[1])
    return ids, (place >= material.first) & (place < lengths[:, None])


def measure_tokens(model: Any, ids: Int[Tensor, "row pos"], **extra: Any) -> Float[Tensor, ""]:
    """Mean cross-entropy of predicting each token of each row from those before it, in nats."""
    logits = model(input_ids=ids, use_cache=False, **extra).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def cast(bf16: bool, device: torch.device) -> Any:
    """Automatic mixed precision in bfloat16, or none."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


def train_reader(
    model: str, documents: list[str], out: Path, plan: ReaderPlan, device: str, minutes: float, resume: bool, tick: Tick
) -> dict[str, Any]:
    """Train a checkpoint folder to read explicit memories and write it anew to `out`; returns the record of it.

    Raises UserError for a model, corpus, folder or setting that a person can put right.
    """
    files, characters = open_corpus(documents)
    tick("loading the model", 0, 0)
    network = open_network(model, device, plan.seed)
    plan.check(network)
    layers = plan.choose_layers(network)
    settings = {"command": "memory train", "model": network.sha256, "corpus": hash_corpus(files), **asdict(plan)}
    settings["layers"] = list(layers)
    with open_workplace(out, settings, resume) as place:
        material = prepare(place, files, characters, network, plan, tick)
        reader = Reader(network, plan, material, layers, make_optimizer(network, plan))
        log = run(place, reader, minutes, tick)
        record = describe(reader, settings, log)
        with fresh_folder(out) as fresh:
            save_network(network, fresh)
            (fresh / "training.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record


def prepare(
    place: Workplace, files: Files, characters: int, network: Network, plan: ReaderPlan, tick: Tick
) -> Material:
    """Material of the corpus, made once a training."""
    kept = load_material(place.folder / "material")
    if kept is not None:
        return kept
    limit = min(plan.offset, network.context)
    material = build_material(files, characters, network.tokenizer, plan.length, plan.prefix, limit, plan.overlap, tick)
    save_material(material, place.folder / "material")
    return material


def make_optimizer(network: Network, plan: ReaderPlan) -> torch.optim.Optimizer:
    """AdamW as the paper's, all weights decayed alike."""
    return torch.optim.AdamW(network.model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=plan.weight_decay)


def run(place: Workplace, reader: Reader, minutes: float, tick: Tick) -> list[float]:
    """All steps from the last checkpoint on; returns the loss of each."""
    start, tensors, log = load_checkpoint(place)
    if start:
        restore_state(tensors, reader.weights, reader.optimizer)

    def save(step: int, losses: list[float]) -> None:
        save_checkpoint(place, step, pack_state(reader.weights, reader.optimizer), losses)

    reader.network.model.train()
    steps = Steps(reader.plan.warmup_steps + reader.plan.steps, reader.take, save, minutes, log=log)
    steps.run(start, tick)
    save(steps.total, steps.log)
    reader.network.model.eval()
    return steps.log


def describe(reader: Reader, settings: dict[str, Any], log: list[float]) -> dict[str, Any]:
    """Record of a training: what it was, the losses, how much there was to read, and the gain of reading at the end.

    `loss_with_memory` and `loss_without` are those of the first sequences, one step's worth, in nats a token.
    """
    material = reader.material
    rows = list(range(min(reader.plan.rows, len(material.sequences))))
    with torch.no_grad():
        measured = [float(reader.measure(rows, memory)) for memory in (True, False)]
    return settings | {
        "sequences": len(material.sequences),
        "references": len(material.references),
        "chunks_with_a_reference": material.share_read,
        "log": thin_log(log),
        "loss_with_memory": measured[0],
        "loss_without": measured[1],
    }
