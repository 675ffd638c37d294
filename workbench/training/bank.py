"""`bank train`: blocks of nested clusters trained on one's own documents, beside a frozen or a moving model.

    corpus -> windows -> router -> rows of one deepest cluster -> steps that move the fetched blocks -> bank

Source: Pouransari et al. 2025, section 2 and appendix A. With a frozen model each subtree can be trained apart.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from probes.bank_format import ROUTER
from probes.descriptions import hash_file
from probes.errors import UserError
from probes.models import hash_weights
from probes.progress import Tick, quiet
from workbench.banks.routing import list_tensors
from workbench.banks.writing import write_bank
from workbench.storage import fresh_folder, name_work, require_free, write_file
from workbench.training.bank_material import BankMaterial, build_bank_material, load_bank_material, save_bank_material
from workbench.training.bank_plan import PRECISIONS, BankPlan
from workbench.training.bank_trainer import BankTrainer, find_hooks, make_trainer, measure_modes
from workbench.training.block_tables import name_shards
from workbench.training.checkpoints import Workplace, load_checkpoint, open_workplace, require_unmade, save_checkpoint
from workbench.training.corpus import Files, hash_corpus, open_corpus
from workbench.training.networks import Network, open_network, save_network
from workbench.training.processes import Processes, join_processes
from workbench.training.routing import Routing, read_routing
from workbench.training.steps import Steps, thin_log

# In the work folder once the model that moved is about to be put in place: its hash.
MODEL = "model.json"


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
    place = Workplace(name_work(out))
    require_unmade(out, place.folder)
    if out_model is not None and not (resume and find_written(place, out_model)):
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
        if processes.first:
            mark = settings | {"router": "" if router is None else hash_file(router / ROUTER)}
            place = stack.enter_context(open_workplace(out, mark, resume))
        material = share_material(place, files, characters, network, plan, given, processes, tick)
        trainer = make_trainer(network, plan, design, material, processes)
        with find_hooks(trainer).install():
            log = run(place, trainer, minutes, tick)
            record = describe(trainer, material, settings, log)
        if processes.first:
            finish(place, trainer, material, record, out, out_model)
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


def find_written(place: Workplace, out_model: Path) -> str:
    """Hash of the weights in `out_model` when this training has written them, and was stopped before its bank stood."""
    if not (place.folder / MODEL).is_file():
        return ""
    wanted = str(json.loads((place.folder / MODEL).read_text())["sha256"])
    return wanted if out_model.is_dir() and hash_weights(out_model, None) == wanted else ""


def write_model(place: Workplace, trainer: BankTrainer, out_model: Path) -> str:
    """Write the model that moved, unless it stands there by an earlier start; hash of its weights."""
    if found := find_written(place, out_model):
        return found
    with fresh_folder(out_model) as fresh:
        sha256 = save_network(trainer.network, fresh)
        write_file(place.folder / MODEL, json.dumps({"sha256": sha256}).encode())
    return sha256


def finish(
    place: Workplace,
    trainer: BankTrainer,
    material: BankMaterial,
    record: dict[str, Any],
    out: Path,
    out_model: Path | None,
) -> None:
    """Write the model where it moved, then the bank with its router and record."""
    sha256, plan = trainer.network.sha256, trainer.plan
    if out_model is not None:
        sha256 = write_model(place, trainer, out_model)
    design = trainer.tables.design
    shards = trainer.tables.cut_shards(PRECISIONS[plan.precision], name_shards(design, plan.subtree))
    router = {name: torch.from_numpy(part) for name, part in list_tensors(material.routing.router).items()}
    beside = {"training.json": (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()}
    write_bank(out, design, sha256, shards, material.routing.describe(), router, beside)
