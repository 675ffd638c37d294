"""Checkpoints: missing and swapped files, wrong shapes, numbers that are not finite, a configuration that lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import torch

from probes.models import load_model
from tests.checkpoints import write_checkpoint
from tests.fuzz.banks import change_tensors
from tests.fuzz.cases import Attempt, Read, Target
from tests.fuzz.mutations import mutate_bytes, spell_json
from workbench.costs.shapes import read_shape
from workbench.model_checks import inspect_folder

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


def use_checkpoint(folder: Path) -> None:
    """Look at a checkpoint without loading it, then load it and run a few tokens."""
    list(inspect_folder(folder))
    read_shape(folder)
    model = load_model(str(folder), device="cpu")
    with torch.no_grad():
        assert model.run(torch.tensor([[0, 5, 6]])).shape[1] == 3


def prepare_checkpoint(workspace: Path) -> Attempt:
    """A small checkpoint with one file changed."""
    whole, other = write_checkpoint("llama"), write_checkpoint("qwen2")

    def attempt(draw: Random) -> Read:
        folder = workspace / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        path = folder / draw.choice(FILES)
        if path.is_file():
            match draw.randrange(6):
                case 0:
                    path.unlink()
                case 1:
                    shutil.copyfile(other / path.name, path)
                case 2:
                    path.write_bytes(mutate_bytes(draw, path.read_bytes()))
                case _ if path.suffix == ".json":
                    path.write_bytes(spell_json(draw, json.loads(path.read_bytes())))
                case _:
                    change_tensors(draw, path)
        return lambda: use_checkpoint(folder)

    return attempt


TARGETS = (Target("checkpoint", prepare_checkpoint),)
