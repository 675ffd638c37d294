"""`findings` on the planted world: what was planted is found, the document is written, and bad input is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.planted_world import write_world
from workbench import library
from workbench.cli import main
from workbench.commands.findings import NAMES
from workbench.documents import BEGIN, END, read_tables
from workbench.findings.document import render_findings
from workbench.findings.record import Finding, Method, Row, judge

DOCUMENT = Path(__file__).parents[2] / "docs" / "findings.md"
FEW = ["findings", "--facts", "24", "--device", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = write_world(tmp_path_factory.mktemp("planted") / "shipped")
    patch = pytest.MonkeyPatch()
    for module in ("library", "engine", "findings.tags"):
        patch.setattr(f"workbench.{module}.find_shipped", lambda: folder)
    yield
    patch.undo()
    library.read_facts.cache_clear()


def run(capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    """Rows of the command by finding and name."""
    assert main([*FEW, *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_was_planted_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks are specific and heads are not; a block's river is lost and nothing else; each bucket has its format."""
    found = run(capsys, *(part for name in ("index", "blocking", "ledger") for part in ("--only", name)))
    rows = {(row["finding"], row["row"]): row for row in found["rows"]}
    # Of three facts of a relation a resample may hold one alone, whose index is not told from the relation's.
    assert {row["verdict"] for row in found["rows"] if row["finding"] != "index"} == {"as expected"}
    assert rows["index", "bank that are specific"]["value"] == 3
    assert rows["index", "heads that are specific"]["value"] == 0
    assert rows["index", "Cliff's delta, all bank blocks against heads"]["value"] == 1
    # One of two facts of each subject, the other being its capital.
    assert rows["blocking", "level 1: own facts that are lost"]["value"] == pytest.approx(0.5)
    assert rows["blocking", "level 1: drop on its own facts"]["low"] > 1
    assert abs(rows["blocking", "level 1: drop on neighbours that read it"]["value"]) < 0.3
    assert rows["ledger", "bucket 1: bank"]["value"] == pytest.approx(1, abs=0.1)
    assert rows["ledger", "bucket 5: anchor"]["value"] == pytest.approx(1, abs=0.1)
    assert rows["ledger", "bucket 0 (never seen): explicit memory"]["value"] == pytest.approx(1, abs=0.1)
    for row in found["rows"]:
        assert {"n", "unit", "method", "ablation", "metric", "seed", "expected"} <= set(row)


def test_every_finding_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The document carries each of them, measured or with the reason."""
    document = tmp_path / "findings.md"
    document.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    assert main([*FEW, "--into", str(document)]) == 0
    text = capsys.readouterr().out
    assert read_tables(document) == text.strip() and "old" not in text
    assert text.count("### ") == len(NAMES)
    assert "Induction heads: abstract? | not measured" in text


def test_the_same_run_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """By the seed; a run of one finding has its rows alone."""
    first, second = (run(capsys, "--only", "blocking") for _ in range(2))
    assert first == second and {row["finding"] for row in first["rows"]} == {"blocking"}


def test_markup_in_a_name_stays_text() -> None:
    """Cells cannot leave their table."""
    row = Row("a|b\nc", 1.0, 1, "facts", "share")
    text = render_findings(
        [Finding("x", "X", "", Method("m", "a", "u"), judge(True), (row,))],
        dict.fromkeys(("model", "bank", "memory", "facts", "seed"), "0"),
    )
    assert "a\\|b c" in text


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Too few facts, a document without a place, an unknown finding."""
    for given, message in (
        (["--facts", "1"], "--facts is 1"),
        (["--into", "nowhere.md"], "no place for tables"),
        (["--only", "nothing"], "invalid choice"),
    ):
        assert main(["findings", *given]) == 2
        assert message in capsys.readouterr().err


def test_the_document_has_a_place_for_them() -> None:
    """`findings --into docs/findings.md` writes there."""
    read_tables(DOCUMENT)
