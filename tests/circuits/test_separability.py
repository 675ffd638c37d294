"""Definitions 6 and 7: thresholds as printed, probabilities as a plain pass gives them, undecided where K is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from circuits.separability import KNOWN, LACKED, Realisation, decide, judge_fact, measure_lowest
from probes.attachments import NOTHING
from probes.errors import UserError
from probes.forward import Pass
from tests.checkpoints import load_shape
from tests.small_world import write_world
from workbench import library
from workbench.cli import main

REALISATIONS = [Realisation("The capital of France is", " Paris"), Realisation("France has the capital", "Paris plums")]


def test_thresholds_are_those_of_the_paper() -> None:
    assert (LACKED, KNOWN) == (0.5, 0.9)


def test_probabilities_are_those_of_a_plain_pass() -> None:
    """The lowest over an answer of several tokens, taught, behind every prefix; batches change nothing."""
    model = load_shape("llama")
    prefixes = ["", "Anna lives in Oslo.", "The capital of Italy is Rome. Anna eats."]
    found = measure_lowest(model, NOTHING, prefixes, REALISATIONS, 2)
    assert torch.allclose(found, measure_lowest(model, NOTHING, prefixes, REALISATIONS, 64), atol=1e-6)
    for row, prefix in enumerate(prefixes):
        for column, one in enumerate(REALISATIONS):
            ids = model.encode(f"{prefix} {one.prompt}" if prefix else one.prompt)
            answer = model.encode_plain(one.answer if one.answer[0] == " " else f" {one.answer}")
            logits = Pass(model).run(torch.tensor([ids + answer]))[0].float().softmax(-1)
            wanted = min(float(logits[len(ids) - 1 + i, token]) for i, token in enumerate(answer))
            assert float(found[row, column]) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("lowest", "verdict"),
    [
        # Without; behind either realisation; behind the document: lacked, separable, imitable.
        ([[0.5, 0.1], [0.9, 0.95], [0.99, 0.9], [0.0, 0.0]], (True, True, True)),
        ([[0.5, 0.1], [0.9, 0.95], [0.89, 0.95], [0.0, 0.0]], (True, True, False)),
        ([[0.5, 0.1], [0.9, 0.1], [0.1, 0.95], [0.9, 0.9]], (True, True, False)),
        ([[0.5, 0.1], [0.9, 0.1], [0.1, 0.95], [0.9, 0.89]], (True, False, False)),
        ([[0.51, 0.1], [0.9, 0.95], [0.99, 0.9], [0.9, 0.9]], (False, None, None)),
    ],
)
def test_verdicts(lowest: list[list[float]], verdict: tuple[bool | None, ...]) -> None:
    found = decide(torch.tensor(lowest, dtype=torch.float64), ["first.", "second.", "document"])
    assert (found.lacks, found.separable, found.imitable) == verdict
    assert found.without == max(lowest[0]) and found.realisations == 2
    assert found.best == max(map(min, lowest[1:])) and found.worst == min(map(min, lowest[1:3]))
    assert not found.imitable or found.separable, "imitable implies separable"


def test_a_realisation_is_a_sentence() -> None:
    assert REALISATIONS[0].text == "The capital of France is Paris."
    assert REALISATIONS[1].text == "France has the capital Paris plums."
    with pytest.raises(UserError, match="no realisation"):
        judge_fact(load_shape("llama"), NOTHING, [])


@pytest.mark.parametrize("attach", ["none", "generic", "fetched"])
def test_the_command(
    attach: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A verdict a fact and rates over them, on a small world; a fact that is not there or named twice is one line."""
    folder = write_world(tmp_path / "shipped")
    for module in ("workbench.library.find_shipped", "workbench.engine.find_shipped"):
        monkeypatch.setattr(module, lambda: folder)
    library.read_facts.cache_clear()
    options = ["separability", "--fact", "capital/France", "--fact", "capital/Anna", "--attach", attach]
    assert main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["fact"] for row in found["facts"]] == ["capital/France", "capital/Anna"]
    assert found["rows"][0]["metric"] == "lacked by the model" and found["rows"][0]["n"] == 2
    assert all(set(row) == {"metric", "value", "unit", "n", "low", "high"} for row in found["rows"])
    assert main([*options, "--fact", "capital/Anna"]) == 2
    assert main(["separability", "--split", "never-seen"]) == 0
    assert "some model that lacks the fact" in capsys.readouterr().out
