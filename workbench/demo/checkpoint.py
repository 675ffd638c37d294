"""Checkpoints of training: tensors in safetensors, the rest in JSON, replaced in one rename."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from probes.errors import UserError
from workbench.demo.config import Config, as_dict
from workbench.storage import fresh_folder, recover_folder


def fingerprint(config: Config) -> str:
    """A hash of what training depends on; a checkpoint of another configuration is refused."""
    parts = {name: part for name, part in as_dict(config).items() if name != "experiments"}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_checkpoint(
    folder: Path,
    step: int,
    config: Config,
    modules: nn.Module,
    optimizer: torch.optim.Optimizer,
    log: list[Any],
) -> None:
    """Write weights, optimizer state, step and log; the previous checkpoint stays until the new one is whole.

    Raises UserError when the disk refuses.
    """
    with fresh_folder(folder, replace=True) as fresh:
        weights = {name: value.detach().contiguous() for name, value in modules.named_parameters()}
        save_file(weights, fresh / "weights.safetensors")
        save_file(_optimizer_tensors(modules, optimizer), fresh / "optimizer.safetensors")
        state = {"step": step, "config": fingerprint(config), "log": log}
        (fresh / "state.json").write_text(json.dumps(state))


def _optimizer_tensors(modules: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}|{key}": value.detach().contiguous()
        for name, parameter in modules.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_checkpoint(
    folder: Path, config: Config, modules: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[Any]]:
    """Restore weights and optimizer state in place; returns the step to go on from, and the log.

    Without a checkpoint that is step 0. Raises `UserError` when the checkpoint belongs to another configuration.
    """
    recover_folder(folder)
    if not (folder / "state.json").is_file():
        return 0, []
    state = json.loads((folder / "state.json").read_text())
    if state["config"] != fingerprint(config):
        raise UserError(f"{folder} was begun with another configuration; remove it, or choose another --out.")
    weights = load_file(folder / "weights.safetensors")
    stored = load_file(folder / "optimizer.safetensors")
    with torch.no_grad():
        for name, parameter in modules.named_parameters():
            parameter.copy_(weights[name])
            own = {key.split("|")[1]: value for key, value in stored.items() if key.split("|")[0] == name}
            if own:
                moved = {key: value if key == "step" else value.to(parameter.device) for key, value in own.items()}
                optimizer.state[parameter] = moved
    return int(state["step"]), list(state["log"])
