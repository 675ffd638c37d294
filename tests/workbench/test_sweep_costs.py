"""Costs of sweeps: operations by hand, passes counted as they run, models that do not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.small_world import ship_world
from workbench.cli import main
from workbench.costs.shapes import Shape
from workbench.engine import open_engine
from workbench.settings import Settings
from workbench.sweeps.estimates import SHAPES, Assumptions, Passes, count_operations, count_passes, estimate
from workbench.sweeps.overhead import Run, record_runs, run_bare
from workbench.sweeps.plans import Order

SMALL = Shape(layers=2, heads=1, kv_heads=1, d_head=4, d_model=4, d_ffn=8, vocabulary=10)


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ship_world(tmp_path_factory.mktemp("world") / "shipped"):
        yield


def test_operations_by_hand() -> None:
    """Two layers of 64 + 96 numbers, 10 tokens forwards, 5 backwards, a row of logits of 10 x 4."""
    operations = count_operations(SMALL, Passes(10, 5, 1))
    assert operations == 2 * 2 * (64 + 96) * 15 + 2 * 40 * 1.5
    assumed = Assumptions(2.0, peak=1e-12, utilisation=0.5)
    found = estimate("small", SMALL, Passes(10, 5, 1), 3600, 4, assumed)
    assert (found.each, found.copies) == (1, 4)
    assert found.hours == pytest.approx(operations * 2 / (4 * 0.5))
    assert found.gpu_hours == pytest.approx(4 * operations)


def test_published_shapes_have_their_parameters() -> None:
    """1.24, 8.03 and 70.6 billion."""
    sizes = {name: round(shape.parameters / 1e9, 2) for name, shape in SHAPES.items()}
    assert sizes == {"1B": 1.24, "8B": 8.03, "70B": 70.55}


def test_a_model_that_does_not_fit_has_no_hours() -> None:
    """141 GB of weights: three GPUs of 64 GB for weights each, so none on one and two copies on eight."""
    found = [estimate("70B", SHAPES["70B"], Passes(10, 5, 1), 10, gpus, Assumptions(1.5)) for gpus in (1, 8)]
    assert [(one.each, one.copies, one.hours is None) for one in found] == [(3, 0, True), (3, 2, False)]


def test_passes_are_counted_as_they_run() -> None:
    """EAP: a clean pass with its backward pass and a counterfactual one; more for a ledger, text and memory."""
    settings = Settings(device="cpu", memory="none", bank="none")
    engine = open_engine(settings)
    order, facts = Order(settings, ("given",), ("eap",)), engine.facts[:2]
    length = sum(len(engine.model.encode(fact.prompt)) for fact in facts) / 2
    assert count_passes(engine, order, facts) == Passes(2 * length, length, 2)
    both = count_passes(engine, replace(order, methods=("eap", "ledger")), facts)
    assert both.forward > 2 * length and both.backward > length


def test_the_runs_of_a_sweep_are_noted_and_run_bare() -> None:
    """A clean pass run backwards too and one of the counterfactual, of as many rows as there are facts."""
    settings = Settings(device="cpu", memory="none", bank="none")
    engine = open_engine(settings)
    order, facts = Order(settings, ("given",), ("eap",)), engine.facts[:2]
    runs, seconds = record_runs(engine, order, facts)
    assert [(run.rows, run.backward) for run in runs] == [(2, True), (2, False)]
    bare = list[Run]()

    def note(stream: torch.Tensor, hook: object) -> None:
        bare.append(Run(stream.shape[0], stream.shape[1], torch.is_grad_enabled()))

    with engine.model.attach([("blocks.0.hook_in", note)]):
        assert run_bare(engine.model, runs) > 0
    assert bare == runs and seconds > 0


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A row a model and number of GPUs, assumptions stated; bad numbers are exit code 2."""
    assert main(["sweep-costs", "--sample", "2", "--gpus", "8", "1", "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(one["model"], one["gpus"]) for one in document["estimates"]] == [
        (model, gpus) for model in SHAPES for gpus in (1, 8)
    ]
    hours = [one["hours"] for one in document["estimates"] if one["gpus"] == 8]
    assert hours == sorted(hours)
    assert document["assumed"]["utilisation"] == 0.3
    assert document["overhead_measured"] and document["assumed"]["overhead"] > 0
    assert main(["sweep-costs", "--sample", "2", "--device", "cpu", "--overhead", "1.25"]) == 0
    assert "1.25, given" in capsys.readouterr().out
    assert main(["sweep-costs", "--overhead", "0"]) == 2
    assert main(["sweep-costs", "--gpus", "0"]) == 2
    assert main(["sweep-costs", "--utilisation", "nan"]) == 2
