"""Anchors that learn to read explicit memory: a short training on any memory layers, and two schedules of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from workbench.demo.batches import Batches, MemoryRows, Rows
from workbench.demo.build import Material, make_batches, start_learner
from workbench.demo.config import Config
from workbench.demo.network import Slots, share_memory, write_memory
from workbench.demo.training import measure_keep_loss

Report = Callable[[str, int, int], None]
Measure = Callable[[int, LlamaForCausalLM], object]


def measure_rows(anchor: LlamaForCausalLM, rows: Rows, memory: dict[int, Slots] | None) -> Tensor:
    """Mean cross-entropy of the trained positions, in nats, without the bank."""
    extra = {} if memory is None else {"memory": memory}
    hidden = anchor.model(input_ids=rows.ids, use_cache=False, **extra).last_hidden_state
    wanted = rows.trained[:, :-1]
    return nn.functional.cross_entropy(anchor.lm_head(hidden[:, :-1][wanted]), rows.ids[:, 1:][wanted])


def measure_memory_rows(
    anchor: LlamaForCausalLM, config: Config, batch: MemoryRows, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Loss of rows that read memories written here and now, and the keep loss; `gradient` flows through the write."""
    memory, received = config.memory, dict[int, Tensor]()
    written = write_memory(anchor, batch.references, batch.valid, memory.layers, memory.slots, received)
    if not gradient:
        written = {n: Slots(s.keys.detach(), s.values.detach(), s.present, s.positions) for n, s in written.items()}
    shared = share_memory(anchor, written, batch.chosen, memory.offset)
    return measure_rows(anchor, batch.rows, shared), measure_keep_loss(received, batch)


def take_step(anchor: LlamaForCausalLM, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step of AdamW at this rate, gradients clipped at norm 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(anchor.parameters(), 1.0)
    optimizer.step()


def adapt_reader(material: Material, config: Config, anchor: LlamaForCausalLM, report: Report) -> list[float]:
    """Teach a trained anchor to read at the memory layers of `config`; returns the mean loss of each 50 steps."""
    plan, batches = config.experiments, make_batches(material)
    optimizer = torch.optim.AdamW(anchor.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    losses, total = [], 0.0
    for step in range(plan.sweep_steps):
        loss, keep = measure_memory_rows(anchor, config, batches.memory_at(step), gradient=True)
        rate = plan.sweep_rate * min(1.0, (step + 1) / 30, 2 * (1 - step / plan.sweep_steps))
        take_step(anchor, optimizer, loss + config.training.keep_weight * keep, rate)
        total += loss.item()
        if (step + 1) % 50 == 0:
            losses.append(total / 50)
            total = 0.0
        report(f"memory layers {config.memory.layers}", step + 1, plan.sweep_steps)
    return losses


def train_reader(
    material: Material, seed: int, warm: bool, gradient: bool, measure: Measure, report: Report
) -> LlamaForCausalLM:
    """Train an anchor from nothing on rows that read texts and rows that read memories, half of each over all steps.

    `warm`: the first half of the steps has texts alone, the second memories alone with as many rows; otherwise every
    step has half of each. Steps, rows and rates are the same. `measure` is called eight times on the way.
    """
    config, batches = material.config, make_batches(material)
    plan = config.experiments
    torch.manual_seed(1000 + seed)
    anchor = start_learner(material).anchor
    optimizer = torch.optim.AdamW(anchor.parameters(), betas=(0.9, 0.95), weight_decay=config.training.weight_decay)
    steps = plan.stage_steps
    for step in range(steps):
        share = 0.5 if not warm else float(step >= steps // 2)
        losses = list(measure_half(anchor, batches, seed * 1_000_000 + step, share, gradient))
        rate = plan.stage_rate * min(1.0, (step + 1) / 60, 3 * (1 - step / steps))
        take_step(anchor, optimizer, torch.stack(losses).sum(), rate)
        if (step + 1) % max(1, steps // 8) == 0:
            measure(step + 1, anchor)
        report(f"{'after warm-up' if warm else 'from the start'}, seed {seed}", step + 1, steps)
    return anchor


def measure_half(anchor: LlamaForCausalLM, batches: Batches, number: int, share: float, gradient: bool) -> list[Tensor]:
    """Losses of one step of `stage_rows` rows, `share` of which read memories; each weighs as its rows do."""
    config = batches.config
    count = round(config.experiments.stage_rows * share)
    losses = []
    if count:
        loss, keep = measure_memory_rows(anchor, config, batches.memory_at(number, count), gradient)
        losses += [share * loss, config.training.keep_weight * keep]
    if count < config.experiments.stage_rows:
        rows = batches.texts_at(number, config.experiments.stage_rows - count)
        losses.append((1 - share) * measure_rows(anchor, rows, None))
    return losses
