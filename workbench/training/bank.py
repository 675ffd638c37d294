"""`bank train`: blocks of nested clusters trained on one's own documents, beside a frozen or a moving model.

    corpus -> windows -> router -> rows of one deepest cluster -> steps that move the fetched blocks -> bank

Source: Pouransari et al. 2025, sections 2 and 4, appendix A: the blocks of a row are those of its path, or with
probability 1 / (k + 1) the generic ones; with a frozen model each subtree of level 1 can be trained apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from probes.attachments import BankBlocks
from probes.bank_format import ROUTER
from probes.blocks import TARGETS, Design
from probes.descriptions import hash_file
from probes.errors import UserError
from probes.progress import Tick, quiet
from workbench.banks.routing import list_tensors
from workbench.banks.writing import write_bank
from workbench.storage import fresh_folder, require_free, write_file
from workbench.training.attached_blocks import BlockHooks, measure_network
from workbench.training.bank_material import (
    BankMaterial,
    Packed,
    build_bank_material,
    choose_subtree,
    load_bank_material,
    save_bank_material,
)
from workbench.training.block_tables import BlockTables, name_shards
from workbench.training.checkpoints import (
    Workplace,
    load_checkpoint,
    open_workplace,
    pack_state,
    restore_state,
    save_checkpoint,
)
from workbench.training.corpus import Files, hash_corpus, open_corpus
from workbench.training.networks import Network, list_trained, open_network, save_network
from workbench.training.processes import Processes, join_processes
from workbench.training.reader import cast
from workbench.training.routing import Routing, read_routing
from workbench.training.steps import Steps, choose_rate, order_rows, seed_step, set_rate, thin_log

ANCHORS = ("frozen", "co-trained", "scratch")
# What LoRA changes, by the names that the paper's comparison gives its kinds.
LORA = {"qk": ("query", "key"), "vo": ("value", "output"), "ffn": ("gate", "up", "down")}
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class BankPlan:
    """How a bank is trained: kind, rank of each level, clusters, steps and rates.

    `anchor` says what becomes of the model: `frozen`, `co-trained`, or `scratch` (its weights drawn anew). `subtree`
    limits a training to one cluster of level 1, or to the `generic` blocks. The paper's rate is 1e-4 at 2 million
    tokens a step; small steps want more.
    """

    units: tuple[int, ...] = (64, 32)
    kind: str = "ffn"
    targets: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    branching: int = 16
    steps: int = 1000
    rows: int = 16
    length: int = 512
    rate: float = 1e-3
    decay: float = 1e-3
    anchor: str = "frozen"
    anchor_rate: float = 1e-4
    anchor_decay: float = 0.05
    subtree: int | str | None = None
    whiten: bool = True
    precision: str = "bfloat16"
    seed: int = 0
    bf16: bool = False

    def check(self, network: Network) -> None:
        """Raise UserError for the first setting that is out of its range or does not fit the model."""
        for name in ("steps", "rows"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: give 1 or more")
        if not 0 < self.rate < 1 or not 0 < self.anchor_rate < 1 or not 0 <= self.seed < 2**31:
            raise UserError("give rates between 0 and 1, and a seed from 0 to 2147483647")
        if not 8 <= self.length <= network.context:
            raise UserError(f"the length is {self.length}: give 8 to {network.context} tokens")
        if any(not 0 <= layer < network.layers for layer in self.layers):
            raise UserError(f"layers {list(self.layers)} are not all in 0..{network.layers - 1}")
        if self.subtree is not None and self.anchor != "frozen":
            raise UserError("subtrees are trained apart beside a frozen model alone: leave --subtree or --anchor out")
        if isinstance(self.subtree, int) and not 0 <= self.subtree < self.branching:
            raise UserError(f"subtree {self.subtree} is not in 0..{self.branching - 1}")

    def build_design(self, network: Network) -> Design:
        """Design of the bank. Raises UserError for numbers that make no bank."""
        layers = self.layers or tuple(range(network.layers))
        targets = tuple(target for target in TARGETS if target in self.targets)
        return Design(self.kind, measure_network(network), layers, self.units, self.branching, targets)


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


def train_bank(
    model: str,
    documents: list[str],
    out: Path,
    plan: BankPlan,
    device: str,
    minutes: float,
    resume: bool,
    tick: Tick,
    out_model: Path | None = None,
    router: Path | None = None,
) -> dict[str, Any]:
    """Train a bank for a checkpoint folder and write it to `out`; returns the record of it.

    A model that moves is written to `out_model`; `router` is a tree or bank whose clusters are used again. Raises
    UserError for a model, corpus, folder or setting that a person can put right.
    """
    if (plan.anchor != "frozen") != (out_model is not None):
        raise UserError("--out-model is where a model that is trained along goes: give it with --anchor, or neither")
    if out_model is not None:
        require_free(out_model)
    files, characters = open_corpus(documents)
    with join_processes(device) as processes, ExitStack() as stack:
        tick = tick if processes.first else quiet
        tick("loading the model", 0, 0)
        network = open_network(model, processes.device, plan.seed, scratch=plan.anchor == "scratch")
        plan.check(network)
        design = plan.build_design(network)
        given = read_routing(router) if router is not None else None
        if plan.rows < processes.count:
            raise UserError(
                f"{processes.count} processes share {plan.rows} rows: give --rows {processes.count} or more"
            )
        settings = {"command": "bank train", "model": network.sha256, "corpus": hash_corpus(files), **asdict(plan)}
        settings |= {"layers": list(design.layers), "units": list(plan.units), "targets": list(design.targets)}
        place = Workplace(out.with_name(out.name + ".part"))
        if processes.first:
            mark = settings | {"router": "" if router is None else hash_file(router / ROUTER)}
            place = stack.enter_context(open_workplace(out, mark, resume))
        material = share_material(place, files, characters, network, plan, given, processes, tick)
        trainer = make_trainer(network, plan, design, material, processes)
        with trainer_hooks(trainer).install():
            log = run(place, trainer, minutes, tick)
            record = describe(trainer, material, settings, log)
        if processes.first:
            finish(trainer, material, record, out, out_model)
        processes.wait()
    return record


def share_material(
    place: Workplace,
    files: Files,
    characters: int,
    network: Network,
    plan: BankPlan,
    routing: Routing | None,
    processes: Processes,
    tick: Tick,
) -> BankMaterial:
    """Material of the corpus, made once by the first process and read by all."""
    folder, depth = place.folder / "material", len(plan.units)
    if processes.first and load_bank_material(folder, plan.branching, depth) is None:
        material = build_bank_material(
            files, characters, network.tokenizer, plan.length, plan.branching, depth, plan.seed,
            plan.whiten, routing, tick,
        )  # fmt: skip
        save_bank_material(material, folder)
    processes.wait()
    material_read = load_bank_material(folder, plan.branching, depth)
    if material_read is None:
        raise UserError(f"{folder} is not there: the processes must share a disk")
    return material_read


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


def trainer_hooks(trainer: BankTrainer) -> BlockHooks:
    """Hooks of the model under training, behind what lets processes share it."""
    hooks: BlockHooks = getattr(trainer.learner, "module", trainer.learner).hooks
    return hooks


def run(place: Workplace, trainer: BankTrainer, minutes: float, tick: Tick) -> list[float]:
    """All steps from the last checkpoint on; returns the loss of each."""
    start, tensors, log = load_checkpoint(place)
    if start:
        trainer.restore(tensors)
    trainer.processes.wait()

    def save(step: int, losses: list[float]) -> None:
        if trainer.processes.first:
            save_checkpoint(place, step, trainer.pack(), losses)

    steps = Steps(trainer.plan.steps, trainer.take, save, minutes, log=log, hold=trainer.processes.count == 1)
    steps.run(start, tick)
    save(steps.total, steps.log)
    trainer.network.model.eval()
    return steps.log


def describe(
    trainer: BankTrainer, material: BankMaterial, settings: dict[str, Any], log: list[float]
) -> dict[str, Any]:
    """Record of a training: what it was, the losses, sizes, how the router does, and the loss in each reading mode.

    Losses are of the first rows, one step's worth, in nats a token: `none` without blocks, `generic`, `fetched`, and
    `wrong` with the blocks of another row's cluster.
    """
    design, held = trainer.tables.design, material.packed.paths
    clusters = [len(set(held[:, level].tolist())) for level in range(design.depth)]
    return settings | {
        "rows_of_text": len(trainer.packed.ids),
        "clusters_with_documents": clusters,
        "clusters": list(design.clusters),
        "numbers_fetched": design.fetched,
        "numbers_kept": design.kept,
        "sentences_that_reach_their_cluster": None if material.reached != material.reached else material.reached,
        "log": thin_log(log),
        "loss": measure_modes(trainer),
    }


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


def finish(
    trainer: BankTrainer, material: BankMaterial, record: dict[str, Any], out: Path, out_model: Path | None
) -> None:
    """Write the model where it moved, then the bank with its router and record."""
    sha256, plan = trainer.network.sha256, trainer.plan
    if out_model is not None:
        with fresh_folder(out_model) as fresh:
            sha256 = save_network(trainer.network, fresh)
    design = trainer.tables.design
    shards = trainer.tables.cut_shards(PRECISIONS[plan.precision], name_shards(design, plan.subtree))
    router = {name: torch.from_numpy(part) for name, part in list_tensors(material.routing.router).items()}
    try:
        write_bank(out, design, sha256, shards, material.routing.describe(), router)
    except SafetensorError as error:
        raise UserError(f"cannot write {out}: {error}; nothing was left behind") from None
    write_file(out / "training.json", (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
