"""`validate`: its tables are those of docs/validation.md, and what cannot be asked is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuits.component_names import KINDS
from circuits.methods import METHODS
from circuits.planted.families import FAMILIES
from circuits.planted.truths import measure_truths
from workbench import cli
from workbench.commands.validating import render_truths
from workbench.documents import BEGIN, END, read_tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "validation.md"
AUROC, PRECISION, PARTS = "AUROC over all edges", "Average precision", "Planted parts"


# Families whose fact lies in one part, and the kind of that part.
PART_OF = {"unit": "FFN unit", "bank": "bank unit", "explicit": "memory slot", "two-hop": "FFN unit"}


def read_cells(tables: str) -> dict[tuple[str, str, str], str]:
    """Cells of Markdown tables by heading, row and column."""
    found = {}
    for part in tables.split("### ")[1:]:
        title, _, table = part.partition("\n")
        head, _, *rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()]
        found |= {(title, row[0], name): cell for row in rows for name, cell in zip(head[1:], row[1:], strict=True)}
    return found


def print_tables(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[tuple[str, str, str], str]:
    """Cells of the tables that the command prints."""
    assert cli.main(["validate", *arguments]) == 0
    return read_cells(capsys.readouterr().out)


def test_the_document_has_every_circuit_and_method() -> None:
    cells = read_cells(read_tables(DOCUMENT))
    assert {row for title, row, _ in cells if title == "Planted models"} == set(FAMILIES)
    units = {f"{name}: {kind}" for name, kind in PART_OF.items()}
    rows = {row for title, row, _ in cells if title == PARTS}
    assert units <= rows and {row.split(": ")[0] for row in rows} <= set(FAMILIES)
    for title in (AUROC, PRECISION):
        assert {column for heading, _, column in cells if heading == title} == set(FAMILIES)
        assert {row for heading, row, _ in cells if heading == title} == set(METHODS)


def test_measuring_again_gives_the_documents_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """Gradients on one circuit, all its seeds."""
    found = print_tables(capsys, "--model", "induction", "--method", "eap", "--method", "eap-ig")
    kept = read_cells(read_tables(DOCUMENT))
    for cell, value in found.items():
        if cell[0] in (AUROC, PRECISION):
            assert float(value) == pytest.approx(float(kept[cell]), abs=1e-3)


def test_planted_knowledge_is_classified_and_shared_out_without_error() -> None:
    """One seed of each: no component in another class, no share further off than 2 % of the margin."""
    classes, shares = measure_truths([0])
    assert {one.kind for one in classes} == set(KINDS)
    assert sum(one.specific for one in classes) == 9 and sum(one.abstract for one in classes) == 4
    assert not any(one.errors or one.levels for one in classes)
    assert max(abs(one.found - one.planted) for one in shares) < 0.02
    cells = read_cells(render_truths(classes, shares))
    assert cells["Planted knowledge", "units", "in another class"] == "0"
    assert cells["Planted shares", "memory 1, renormalised", "planted share"] == "0.400"


@pytest.mark.slow
def test_measuring_everything_again_gives_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    found, kept = print_tables(capsys), read_cells(read_tables(DOCUMENT))
    assert found.keys() == kept.keys()
    for cell, value in found.items():
        # Another processor may order a near tie the other way.
        for ours, theirs in zip(value.split(" to "), kept[cell].split(" to "), strict=True):
            assert float(ours) == pytest.approx(float(theirs), abs=5e-3)


def test_one_circuit_as_json_and_into_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "tables.md"
    document.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    arguments = ["validate", "--model", "unit", "--method", "eap", "--seeds", "1"]
    assert cli.main([*arguments, "--into", str(document), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (size,), (score,) = found["sizes"], found["scores"]
    assert [(part["kind"], part["worst"]) for part in found["findings"]] == [("FFN unit", 1), ("attention edge", 1)]
    assert (size["family"], size["planted"], score["method"]) == ("unit", 3, "eap")
    assert (read_cells(read_tables(document))[AUROC, "eap", "unit"] == "1.0000") == (score["auroc"] == 1)
    text = document.read_text()
    assert text.startswith("before") and text.rstrip().endswith("after") and "old" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds is 0"),
        (["--steps", "-1"], "--steps is -1"),
        (["--into", "nowhere.md"], "no place for tables"),
        (["--model", "nothing"], "invalid choice"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["validate", *arguments]) == 2
    assert message in capsys.readouterr().err
