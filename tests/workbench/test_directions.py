"""Directions of the papers: what counts as shown, read from a demo's files, and the same for whatever was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probes.errors import UserError
from workbench.cli import main
from workbench.commands.papers import DIRECTIONS
from workbench.costs import hierarchical_directions, memory3_directions
from workbench.costs.directions import Direction, Share, read_evaluation, read_heads, subtract
from workbench.library import find_shipped


def make_row(
    experiment: str, condition: str, accuracy: float, bucket: int | None = None, paraphrase: str = "seen"
) -> Any:
    return {
        "experiment": experiment, "condition": condition, "bucket": bucket, "paraphrase": paraphrase,
        "accuracy": accuracy, "n": 100,
    }  # fmt: skip


def write_rows(folder: Path, rows: list[Any]) -> Path:
    (folder / "evaluation.json").write_text(json.dumps(rows))
    return folder


def test_a_difference_has_the_interval_of_two_samples() -> None:
    value, low, high = subtract([Share(0.8, 100)], [Share(0.5, 100)])
    # sqrt(0.16 / 100 + 0.25 / 100) is 0.064031
    assert (value, low, high) == (30.0, pytest.approx(30 - 196 * 0.0640312, abs=0.006), pytest.approx(42.55, abs=0.006))


def test_what_counts_as_shown() -> None:
    def show(relation: Any, ours: float, low: float) -> bool:
        return Direction("", "", relation, ours, low, 99.0, 1, "", "").ok

    assert show("above", 10.0, 0.1) and not show("above", 10.0, -0.1) and not show("above", -10.0, -20.0)
    assert show("alike", -4.9, -9.0) and not show("alike", 5.1, -9.0)


def test_rows_against_a_paper_are_listed_as_found(tmp_path: Path) -> None:
    """The shipped model shows some and not others; with the figures turned round the verdicts turn too."""

    def judge(fetched: float, alone: float) -> dict[str, bool]:
        rows = [make_row("long tail", "fetched", fetched, 1), make_row("long tail", "anchor trained alone", alone, 1)]
        found = hierarchical_directions.list_directions(write_rows(tmp_path, rows))
        return {one.name: one.ok for one in found}

    name = "rarest facts: fetched over anchor trained alone"
    assert judge(0.9, 0.2) == {name: True} and judge(0.2, 0.9) == {name: False}


def test_stages_are_compared_seed_by_seed(tmp_path: Path) -> None:
    rows = [
        make_row("two stages", f"{name}, with gradient, seed {seed}", accuracy, 0, "one memory")
        for name, accuracies in (("from the start", (0.1, 0.2)), ("after warm-up", (0.5, 0.3)))
        for seed, accuracy in enumerate(accuracies)
    ]
    (found,) = memory3_directions.list_directions(write_rows(tmp_path, rows))
    assert (found.ours, found.low, found.high, found.n, found.ok) == (25.0, 10.0, 40.0, 2, True)


def test_layers_are_known_by_their_numbers(tmp_path: Path) -> None:
    """Of eight layers the first four are the half, and four from the third on the middle."""
    names = ["layers 0, 1, 2, 3", "layers 2, 3, 4, 5", "layers 0, 1, 2, 3, 4, 5, 6, 7"]
    rows = [make_row("memory layers", name, 0.1 * n, 0, "one memory") for n, name in enumerate(names)]
    (found,) = memory3_directions.list_directions(write_rows(tmp_path, rows))
    assert found.name == "memory layers 2, 3, 4, 5 over layers 0, 1, 2, 3" and found.ours == 10.0


def test_without_measurements_there_are_no_rows(tmp_path: Path) -> None:
    assert all(listing(tmp_path) == [] for listing in DIRECTIONS.values())
    (tmp_path / "evaluation.json").write_text("[{}]")
    with pytest.raises(UserError, match="demo evaluate"):
        read_evaluation(tmp_path)


def test_heads_of_other_weights_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    (tmp_path / "heads.json").write_bytes((find_shipped() / "heads.json").read_bytes())
    assert read_heads(tmp_path) == []


@pytest.mark.parametrize("paper", DIRECTIONS)
def test_the_command_lists_every_row(paper: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", paper, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {"exact", "inferred", "direction"} == {row["kind"] for row in rows}
    assert all({"name", "published", "ours", "unit", "kind", "ok"} <= row.keys() for row in rows)
    names = " ".join(row["name"] for row in rows if row["kind"] == "direction")
    wanted = (
        ("warm-up", "memory-head finder", "memory layers") if paper == "memory3" else ("kind:", "layers:", "blocked")
    )
    assert all(word in names for word in wanted)
    assert all(row["n"] > 1 and row["low"] <= row["high"] for row in rows if row["kind"] == "direction")
