"""Checkpoints of a training: all tensors in safetensors, the rest in JSON, replaced whole; and the folder of its work.

A training that was stopped goes on to the same weights as one that was not: everything random in a step follows from
the seed and the step's number.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from probes.errors import UserError
from workbench.memory.store import lock_folder
from workbench.storage import (
    PARTIAL,
    discard_folder,
    fresh_folder,
    make_folder,
    name_work,
    recover_folder,
    require_free,
    write_file,
)

RUN, CHECKPOINT = "run.json", "checkpoint"


@dataclass(frozen=True, slots=True)
class Workplace:
    """Folder `OUT.part` beside the folder to be made; it holds what a stopped training goes on from."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Folder of the last checkpoint."""
        return self.folder / CHECKPOINT


@contextmanager
def open_workplace(out: Path, settings: Mapping[str, Any], resume: bool) -> Iterator[Workplace]:
    """Work folder of a training with these settings, held against other processes; removed when all went well,
    or when nothing was made in it.

    Raises UserError when `out` is in use, when the work there was begun with other settings, or another process holds
    it.
    """
    folder = name_work(out)
    require_unmade(out, folder)
    mark = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    make_folder(folder)
    with lock_folder(folder):
        if not resume:
            clear_folder(folder)
        if (folder / RUN).is_file():
            if json.loads((folder / RUN).read_text()) != {"settings": mark}:
                raise UserError(
                    f"{folder} was begun with another model, corpus or options: give the same to go on, --no-resume to "
                    "begin anew, or another --out"
                )
        elif any(path.name != ".lock" and not PARTIAL.fullmatch(path.name) for path in folder.iterdir()):
            raise UserError(f"{folder} holds something else than a training of ours: choose another --out")
        write_file(folder / RUN, json.dumps({"settings": mark}).encode())
        for leftover in folder.glob(f".{CHECKPOINT}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            yield Workplace(folder)
        except BaseException:
            # Nothing was made yet that a later start could go on from.
            if not any(path.is_dir() for path in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        with suppress(OSError):
            discard_folder(folder)


def require_unmade(out: Path, work: Path) -> None:
    """Raise UserError when what is to be made is there, naming the work folder that a stop at the very end left."""
    try:
        require_free(out)
    except UserError as error:
        more = f"; {work} beside it is the work of a training that was stopped" if work.is_dir() else ""
        raise UserError(f"{error}{more}") from None


def clear_folder(folder: Path) -> None:
    """Remove an earlier training's work. Raises UserError when the folder holds something else."""
    if not (folder / RUN).is_file():
        return
    # What says that the rest is ours goes last: a stop leaves nothing that looks like somebody else's.
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RUN):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def save_checkpoint(place: Workplace, step: int, tensors: Mapping[str, Tensor], log: list[float]) -> None:
    """Write weights, optimizer and log after `step` steps; the one before stays until this one is whole.

    Raises UserError when the disk refuses.
    """
    with fresh_folder(place.checkpoint, replace=True) as fresh:
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, fresh / "state.safetensors")
        (fresh / "state.json").write_text(json.dumps({"step": step, "log": log}))


def load_checkpoint(place: Workplace) -> tuple[int, dict[str, Tensor], list[float]]:
    """Steps done, tensors and log of the last checkpoint; nothing done where there is none.

    Raises UserError when it is damaged.
    """
    recover_folder(place.checkpoint)
    if not (place.checkpoint / "state.json").is_file():
        return 0, {}, []
    try:
        state = json.loads((place.checkpoint / "state.json").read_text())
        return int(state["step"]), load_file(place.checkpoint / "state.safetensors"), list(state["log"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{place.checkpoint} is damaged ({error}): begin anew with --no-resume") from None


def pack_state(weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and what the optimizer remembers of each, under names of their own."""
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        tensors[f"weight|{name}"] = weight
        for key, value in optimizer.state.get(weight, {}).items():
            tensors[f"{key}|{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensors


def restore_state(
    tensors: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Put packed weights and optimizer state back in place."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[f"weight|{name}"])
            state = {key.split("|")[0]: value for key, value in tensors.items() if key.split("|", 1)[1] == name}
            del state["weight"]
            if state:
                optimizer.state[weight] = {key: place_state(key, value, weight) for key, value in state.items()}


def place_state(key: str, value: Tensor, weight: Tensor) -> Tensor | int:
    """What an optimizer remembers, as it was: whole numbers as such, counts of steps on the processor."""
    if value.dtype == torch.int64 and not value.dim():
        return int(value)
    return value if key == "step" else value.to(weight.device)
