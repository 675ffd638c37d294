"""From the name of a planted circuit to its model, and to the problem that it poses."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from circuits.metrics import build_readout
from circuits.planted.facts import plant_bank_fact, plant_explicit_fact, plant_two_hops, plant_unit_fact
from circuits.planted.model import Planted
from circuits.planted.paths import plant_cancellation, plant_induction, plant_redundancy
from circuits.planted.weights import Sketch
from circuits.problem import Inputs, Problem, pose_problem
from probes.models import Model, load_model

# By the names of `circuits/planted/families.py`; a seed draws the background anew around the same circuit.
PLANTERS: dict[str, Callable[[int], Planted]] = {
    "unit": plant_unit_fact,
    "bank": plant_bank_fact,
    "explicit": plant_explicit_fact,
    "two-hop": plant_two_hops,
    "induction": plant_induction,
    "redundancy": plant_redundancy,
    "cancellation": plant_cancellation,
}


def load_sketch(sketch: Sketch) -> Model:
    """The model of these weights, loaded from a checkpoint as any other."""
    with tempfile.TemporaryDirectory() as folder:
        sketch.save(Path(folder))
        return load_model(folder, device="cpu")


def load_planted(planted: Planted) -> Model:
    """The model of a planted circuit."""
    return load_sketch(planted.sketch)


def pose_planted(planted: Planted) -> Problem:
    """The problem of a planted model: logit difference, each position by itself, its counterfactual as ablation."""
    model = load_planted(planted)
    clean, other = (torch.tensor([model.encode(text)]) for text in (planted.clean, planted.counterfactual))
    answer, foil = model.encode_plain(planted.answer), model.encode_plain(planted.foil)
    readout = build_readout([clean.shape[1]], [answer], [foil])
    inputs = Inputs(clean, other, planted.attachment, planted.attachment, readout)
    return pose_problem(model, inputs, attention=True, parts=True)
