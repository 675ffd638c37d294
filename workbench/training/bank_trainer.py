"""One training step of a bank: rows, the blocks that they fetch, the loss, and what moves.

Source: Pouransari et al. 2025, sections 2 and 4: the blocks of a row are those of its path, or with probability
1 / (k + 1) the generic ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from probes.attachments import BankBlocks
from probes.blocks import Design
from workbench.training.attached_blocks import BlockHooks
from workbench.training.bank_material import BankMaterial, Packed, choose_subtree
from workbench.training.bank_plan import BankPlan
from workbench.training.block_tables import BlockTables
from workbench.training.checkpoints import pack_state, restore_state
from workbench.training.networks import Network, list_trained
from workbench.training.processes import Processes
from workbench.training.reader import cast
from workbench.training.steps import choose_rate, order_rows, seed_step, set_rate


class Learner(nn.Module):
    """The model with the hooks of its blocks, as one module that processes can share."""

    def __init__(self, network: Network, design: Design) -> None:
        """Keep the model and prepare its hooks; `hooks.install` puts them in."""
        super().__init__()
        self.model = network.model
        self.hooks = BlockHooks(network.model, design)

    def forward(self, packed: Packed, blocks: BankBlocks) -> Float[Tensor, ""]:
        """Cross-entropy summed over the tokens of these rows but the first of each document, in nats."""
        with self.hooks.attach(blocks):
            logits = self.model(
                input_ids=packed.ids, position_ids=packed.positions, segments=packed.segments, use_cache=False
            ).logits[:, :-1]
        wanted = (packed.segments[:, 1:] == packed.segments[:, :-1]) & (packed.segments[:, 1:] >= 0)
        return nn.functional.cross_entropy(logits[wanted].float(), packed.ids[:, 1:][wanted], reduction="sum")


@dataclass(slots=True)
class BankTrainer:
    """A bank while it is trained."""

    network: Network
    plan: BankPlan
    packed: Packed
    tables: BlockTables
    learner: Any
    optimizer: torch.optim.Optimizer
    anchor_optimizer: torch.optim.Optimizer | None
    processes: Processes

    def choose_modes(self, step: int) -> Tensor:
        """Which rows of a step read the generic blocks."""
        if self.plan.subtree is not None:
            return torch.full((self.plan.rows,), self.plan.subtree == "generic")
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + step)
        return torch.rand(self.plan.rows, generator=generator) < 1 / (self.plan.branching + 1)

    def take(self, step: int) -> float:
        """One step; returns its loss in nats a token."""
        plan, device = self.plan, self.network.device
        seed_step(plan.seed, step)
        rows = torch.tensor(order_rows(step, plan.rows, len(self.packed.ids), plan.seed))
        ids = self.tables.find_rows(self.packed.paths[rows], self.choose_modes(step))
        fetched = self.tables.fetch(ids, device)
        targets = max(1, self.packed.select(rows).count_targets())
        own = self.packed.select(self.processes.share(rows)).move(device)
        with cast(plan.bf16, device):
            total = self.learner(own, fetched.attach(self.processes.share(ids)))
        # Parallel processes average the model's gradients, and sum those of the blocks here.
        torch.autograd.backward(total * (self.processes.count / targets))
        for copies in fetched.copies:
            if copies.grad is None:
                copies.grad = torch.zeros_like(copies)
            self.processes.sum(copies.grad)
            copies.grad /= self.processes.count
        self.move_anchor(step)
        self.tables.move(fetched, self.optimizer, choose_rate(step, plan.steps, plan.rate), plan.decay)
        return float(self.processes.sum(total.detach())) / targets

    def move_anchor(self, step: int) -> None:
        """Step of the model itself, where it moves."""
        if self.anchor_optimizer is None:
            return
        set_rate(self.anchor_optimizer, choose_rate(step, self.plan.steps, self.plan.anchor_rate))
        nn.utils.clip_grad_norm_(self.network.model.parameters(), 1.0)
        self.anchor_optimizer.step()
        self.anchor_optimizer.zero_grad(set_to_none=True)

    def pack(self) -> dict[str, Tensor]:
        """Everything that a checkpoint keeps."""
        tensors = pack_state(self.tables.weights, self.optimizer)
        if self.anchor_optimizer is not None:
            tensors |= pack_state(self.name_anchor(), self.anchor_optimizer)
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what a checkpoint kept."""
        restore_state(tensors, self.tables.weights, self.optimizer)
        if self.anchor_optimizer is not None:
            restore_state(tensors, self.name_anchor(), self.anchor_optimizer)

    def name_anchor(self) -> dict[str, nn.Parameter]:
        """The model's weights, under names that no table has."""
        return {f"anchor.{name}": weight for name, weight in list_trained(self.network.model).items()}


def make_trainer(
    network: Network, plan: BankPlan, design: Design, material: BankMaterial, processes: Processes
) -> BankTrainer:
    """Tables, optimizers and the model as it is to be trained."""
    moving = plan.anchor != "frozen"
    network.model.requires_grad_(moving)
    network.model.train(moving)
    learner: Any = Learner(network, design)
    if moving and processes.count > 1:
        learner = DistributedDataParallel(learner)
    tables = BlockTables(design, plan.seed)
    anchor = None
    if moving:
        anchor = torch.optim.AdamW(
            network.model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=plan.anchor_decay
        )
    packed = choose_subtree(material.packed, plan.subtree)
    return BankTrainer(network, plan, packed, tables, learner, tables.make_optimizer(), anchor, processes)


def find_hooks(trainer: BankTrainer) -> BlockHooks:
    """Hooks of the model under training, behind what lets processes share it."""
    hooks: BlockHooks = getattr(trainer.learner, "module", trainer.learner).hooks
    return hooks


def measure_modes(trainer: BankTrainer) -> dict[str, float]:
    """Loss of the first rows with no blocks, the generic, the fetched and those of another row's path."""
    rows = torch.arange(min(trainer.plan.rows, len(trainer.packed.ids)))
    packed, tables, device = trainer.packed.select(rows), trainer.tables, trainer.network.device
    moved = packed.move(device)
    learner = getattr(trainer.learner, "module", trainer.learner)
    all_paths = torch.unique(trainer.packed.paths.long(), dim=0)
    others = [all_paths[(all_paths != path).any(1)][:1] for path in packed.paths]
    wrong = torch.cat([other if len(other) else path[None] for other, path in zip(others, packed.paths, strict=True)])
    no, yes = torch.zeros(len(rows), dtype=torch.bool), torch.ones(len(rows), dtype=torch.bool)
    choices: dict[str, Callable[[], BankBlocks]] = {
        "none": lambda: fetch(packed.paths, no).silence(range(tables.design.depth)),
        "generic": lambda: fetch(packed.paths, yes),
        "fetched": lambda: fetch(packed.paths, no),
        "wrong": lambda: fetch(wrong, no),
    }

    def fetch(paths: Tensor, generic: Tensor) -> BankBlocks:
        ids = tables.find_rows(paths, generic)
        return tables.fetch(ids, device).attach(ids)

    with torch.no_grad():
        return {name: float(learner(moved, make())) / packed.count_targets() for name, make in choices.items()}
