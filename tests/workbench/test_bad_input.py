"""What a person can mend, asked for from the command line: one line that says what to change, and nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import load_shape, write_checkpoint
from workbench import cli

QUESTION = {
    "prompt": "The capital of France is",
    "answer": " Paris",
    "counterfactual": "The capital of Italy is",
    "foil": " Rome",
}
Change = Callable[[dict[str, torch.Tensor]], None]


def spoil(folder: Path, change: Change) -> str:
    """Folder of a checkpoint whose weights were changed."""
    shutil.copytree(write_checkpoint("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def refuse(capsys: pytest.CaptureFixture[str], out: Path, *options: str, model: str = "", **changes: str) -> str:
    """The one line of a trace that is refused; asserts that it left nothing behind."""
    words = [word for name, text in (QUESTION | changes).items() for word in (f"--{name}", text)]
    model = model or str(write_checkpoint("llama"))
    # Writing the checkpoint may have drawn a bar.
    capsys.readouterr()
    assert cli.main(["trace", *words, "--model", model, "--device", "cpu", "--out", str(out), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert not out.exists() and not [path for path in out.parent.iterdir() if path.name.startswith((".", "run"))]
    return printed.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counterfactual": "The capital is"}, "give a counterfactual of the same length"),
        ({"foil": " Paris"}, "choose another foil"),
        ({"foil": "Paris"}, "choose another foil"),
        ({"foil": " Rome is"}, "choose a foil of the same length"),
        ({"counterfactual": QUESTION["prompt"]}, "does not move"),
        ({"answer": " "}, "the answer is empty"),
    ],
)
def test_pairs_that_cannot_be_compared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    assert message in refuse(capsys, tmp_path / "run", **changes)


def fill_unit(tensors: dict[str, torch.Tensor]) -> None:
    """One weight of an MLP is not a number."""
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")


def swell_units(tensors: dict[str, torch.Tensor]) -> None:
    """An MLP whose products leave float32."""
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1e30
    tensors["model.layers.1.mlp.up_proj.weight"] *= 1e20


@pytest.mark.parametrize("change", [fill_unit, swell_units])
def test_weights_that_are_not_finite(capsys: pytest.CaptureFixture[str], tmp_path: Path, change: Change) -> None:
    """Told as what they are when the model is loaded, not as an architecture that is not supported."""
    line = refuse(capsys, tmp_path / "run", model=spoil(tmp_path / "spoiled", change))
    assert "the weights hold NaN or infinity" in line and "not supported" not in line


@pytest.mark.parametrize(("word", "value"), [(" France", float("nan")), (" Italy", float("inf"))])
def test_activations_that_are_not_finite_on_one_prompt(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, word: str, value: float
) -> None:
    """A single token that overflows, on the prompt or on its counterfactual."""
    (token,) = load_shape("llama").encode_plain(word)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"][token] = value

    assert "not finite" in refuse(capsys, tmp_path / "run", model=spoil(tmp_path / "spoiled", change))


def run_out(*given: Any, **named: Any) -> NoReturn:
    """What the CPU's allocator says."""
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried")


def run_out_on_device(*given: Any, **named: Any) -> NoReturn:
    """What a device's allocator says."""
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("error", [run_out, run_out_on_device])
@pytest.mark.parametrize(
    "stage",
    [
        "workbench.conditions.answer_conditions",
        "circuits.problem.pose_problem",
        "circuits.batches.measure_scores",
        "circuits.batches.score_parts",
        "circuits.batches.measure_kept",
        "circuits.selection.select_edges",
    ],
)
def test_memory_that_runs_out(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    error: Callable[..., NoReturn],
) -> None:
    """At every stage of a trace, on every kind of device."""
    monkeypatch.setattr(stage, error)
    line = refuse(capsys, tmp_path / "run", "--parts", "2")
    assert "out of memory while" in line and "--rows" in line
