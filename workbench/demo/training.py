"""Training in stages: the anchor alone; anchor, bank and explicit memory; the same with new rules; the blocks alone.

The third stage is one or more decays of the rates, each with a fresh optimiser (Loshchilov and Hutter 2017 call such
schedules warm restarts). In the last one the anchor stands still: beside an anchor that moves, blocks forget what they
know of rare facts about as fast as they learn it.

Every step's rows and rates follow from its number, so that a run that was stopped goes on to the same weights.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from workbench.demo.batches import Batches, MemoryRows, Rows
from workbench.demo.checkpoint import load_checkpoint, save_checkpoint
from workbench.demo.config import Config
from workbench.demo.network import Attached, BankWeights, Slots, build_network, share_memory, write_memory

Progress = Callable[[str, int, int], None]
Batch = TypeVar("Batch", Rows, MemoryRows)


class Learner(nn.Module):
    """The anchor and its bank under one name each, so that one checkpoint holds both."""

    def __init__(self, config: Config, vocabulary: int, ids: tuple[int, int, int]) -> None:
        """Initialise both with the configuration's seed."""
        super().__init__()
        torch.manual_seed(config.seed)
        self.anchor: LlamaForCausalLM = build_network(config, vocabulary, ids)
        self.bank = BankWeights(config)
        self.attached = Attached(self.anchor)
        self.config = config

    def measure_loss(self, rows: Rows, memory: dict[int, Slots] | None = None) -> Tensor:
        """Mean cross-entropy of the trained positions, in nats; short and long rows run apart, to pad less."""
        sums = [self.sum_loss(*select_rows(rows, memory, part)) for part in split_by_length(rows)]
        return torch.stack(sums).sum() / rows.trained.sum()

    def sum_loss(self, rows: Rows, memory: dict[int, Slots] | None) -> Tensor:
        """Cross-entropy summed over the trained positions, in nats."""
        blocks = self.bank.fetch(rows.paths, rows.mode) if bool((rows.mode > 0).any()) else None
        extra: dict[str, Any] = {} if memory is None else {"memory": memory}
        with self.attached.attach(blocks):
            hidden = self.anchor.model(input_ids=rows.ids, use_cache=False, **extra).last_hidden_state
        logits = self.anchor.lm_head(hidden[:, :-1][rows.trained[:, :-1]])
        return nn.functional.cross_entropy(logits, rows.ids[:, 1:][rows.trained[:, :-1]], reduction="sum")

    def measure_memory_loss(self, batch: MemoryRows) -> tuple[Tensor, Tensor]:
        """The same for rows that read explicit memory, written within the graph; and `measure_keep_loss`."""
        memory = self.config.memory
        received: dict[int, Tensor] = {}
        written = write_memory(self.anchor, batch.references, batch.valid, memory.layers, memory.slots, received)
        shared = share_memory(self.anchor, written, batch.chosen, memory.offset)
        return self.measure_loss(batch.rows, shared), measure_keep_loss(received, batch)


def split_by_length(rows: Rows) -> list[Tensor]:
    """Row numbers in one or two parts, cut by length where padding is least."""
    places = torch.arange(1, rows.ids.shape[1] + 1, device=rows.ids.device)
    # The last trained position tells how much of a row is needed: its target is the next token.
    lengths = (rows.trained * places).amax(dim=1) + 1
    order = lengths.argsort(descending=True, stable=True)
    sizes = lengths[order]
    cuts = torch.arange(1, len(sizes), device=sizes.device)
    areas = cuts * sizes[0] + (len(sizes) - cuts) * sizes[1:]
    if len(sizes) < 8 or int(areas.min()) > 0.85 * len(sizes) * int(sizes[0]):
        return [order]
    cut = int(areas.argmin()) + 1
    return [order[:cut], order[cut:]]


def select_rows(rows: Rows, memory: dict[int, Slots] | None, part: Tensor) -> tuple[Rows, dict[int, Slots] | None]:
    """Some rows and what they read, without the padding that they do not need."""
    trained = rows.trained[part]
    width = int((trained.any(dim=0) * torch.arange(1, trained.shape[1] + 1, device=trained.device)).max()) + 1
    chosen = Rows(rows.ids[part, :width], trained[:, :width], rows.paths[part], rows.mode[part])
    if memory is None:
        return chosen, None
    return chosen, {
        layer: Slots(slots.keys[part], slots.values[part], slots.present[part], slots.positions[part])
        for layer, slots in memory.items()
    }


def measure_keep_loss(received: dict[int, Tensor], batch: MemoryRows) -> Tensor:
    """How far a reference's answers are from being kept: shortfall, in nats, to a tenth of the attention received.

    The choice of tokens has no gradient of its own, and text whose answer is not kept cannot be read. At every memory
    layer each answer must be kept by one key-value head; the others stay free. A device of ours, not the paper's.
    """
    losses = []
    for attention in received.values():
        finite = attention.masked_fill(~batch.valid[:, None], 0.0)
        share = (finite / finite.sum(-1, keepdim=True)).amax(1)
        losses.append(torch.relu(math.log(0.1) - share[batch.answers].clamp(min=1e-6).log()).mean())
    return torch.stack(losses).mean()


def choose_rates(step: int, batches: Batches) -> tuple[float, float]:
    """Learning rates of anchor and bank: warm-up and constant in stage one, linear to 3% in the others.

    The third stage falls to 3% once a decay. In the last one the anchor has none, and the bank's is constant for a
    third of it.
    """
    plan, first = batches.config.training, batches.anchor_steps
    if step >= batches.block_steps:
        left = 1 - (step - batches.block_steps) / (batches.steps - batches.block_steps)
        return 0.0, plan.block_rate * min(1.0, 1.5 * max(0.02, left))
    if step < first:
        return plan.rate * min(1.0, (step + 1) / max(1, plan.warmup_steps)), 0.0
    if step >= batches.bank_steps:
        start, end = next(decay for decay in batches.decays if step < decay[1])
        left = max(0.03, 1 - (step - start) / (end - start))
        return plan.last_rate * left, plan.last_bank_rate * left
    left = max(0.03, 1 - (step - first) / max(1, batches.bank_steps - first))
    return plan.second_rate * left, plan.bank_rate * min(1.0, 1.5 * left)


def train_model(
    config: Config,
    learner: Learner,
    batches: Batches,
    folder: Path,
    *,
    resume: bool,
    first: int = 0,
    report: Progress | None = None,
) -> list[dict[str, float]]:
    """Train from step `first` to the end, or from the last checkpoint; returns the log, one entry a hundred steps."""
    optimizer = torch.optim.AdamW(
        [
            {"params": list(learner.anchor.parameters()), "weight_decay": config.training.weight_decay},
            {"params": list(learner.bank.parameters()), "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(0.9, 0.95),
        eps=1e-9,
    )
    start, log = load_checkpoint(folder, config, learner, optimizer) if resume else (0, [])
    saved, sums, counts = time.monotonic(), [0.0] * 4, [0, 0]
    began = time.monotonic() - (log[-1]["seconds"] if log else 0.0)
    learner.train()
    restarts = {batches.block_steps, *(decay[0] for decay in batches.decays)}
    for step in range(max(first, start), batches.steps):
        if step in restarts:
            optimizer.state.clear()
        losses = train_step(learner, batches, optimizer, step)
        sums = [total + loss for total, loss in zip(sums, losses, strict=True)]
        counts = [counts[0] + 1, counts[1] + is_exercised(batches, step)]
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - began
            means = [sums[0] / counts[0], *(total / max(1, counts[1]) for total in sums[1:])]
            names = ("facts", "abstract", "memory", "keep")
            log.append({"step": step + 1, **dict(zip(names, means, strict=True)), "seconds": seconds})
            sums, counts = [0.0] * 4, [0, 0]
        if report:
            report("training", step + 1, batches.steps)
        if time.monotonic() - saved > 60 * config.training.checkpoint_minutes:
            save_checkpoint(folder, step + 1, config, learner, optimizer, log)
            saved = time.monotonic()
    save_checkpoint(folder, batches.steps, config, learner, optimizer, log)
    return log


def is_exercised(batches: Batches, step: int) -> bool:
    """Whether reading, abstract and memory rows come along at a step."""
    plan = batches.config.training
    if step >= batches.block_steps:
        return step % plan.block_exercise_every == 0
    return step >= batches.bank_steps or step % plan.exercise_every == 0


def train_step(
    learner: Learner, batches: Batches, optimizer: torch.optim.Optimizer, step: int
) -> tuple[float, float, float, float]:
    """One step of any stage; returns the losses on facts, abstract rows, memory rows, and the keep loss."""
    device = learner.anchor.device
    for group, rate in zip(optimizer.param_groups, choose_rates(step, batches), strict=True):
        group["lr"] = rate
    learner.anchor.requires_grad_(step < batches.block_steps)
    facts = learner.measure_loss(move(batches.passages_at(step), device))
    abstract = memory = keep = torch.zeros((), device=device)
    exercised = is_exercised(batches, step)
    if exercised:
        abstract = learner.measure_loss(move(batches.abstract_at(step), device))
    if exercised and step >= batches.anchor_steps and batches.config.memory.rows:
        memory, keep = learner.measure_memory_loss(move(batches.memory_at(step), device))
    weights = batches.config.training
    total = facts + weights.abstract_weight * abstract + weights.memory_weight * memory + weights.keep_weight * keep
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total)
    torch.nn.utils.clip_grad_norm_(learner.anchor.parameters(), 1.0)
    torch.nn.utils.clip_grad_norm_(learner.bank.parameters(), 1.0)
    optimizer.step()
    return facts.item(), abstract.item(), memory.item(), keep.item()


def move(batch: Batch, device: torch.device) -> Batch:
    """A batch on another device."""
    moved: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        part = getattr(batch, field.name)
        moved[field.name] = part.to(device) if isinstance(part, Tensor) else move(part, device)
    return dataclasses.replace(batch, **moved)
