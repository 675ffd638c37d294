"""Queries over sweeps: only parts can be read, nothing is written, and what the page asks is right by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.errors import UserError
from tests.sweep_tables import HOSTILE, write_table
from workbench.cli import main
from workbench.sweeps.queries import (
    Filter,
    ask,
    average_formats,
    count_outcomes,
    count_sources,
    count_values,
    list_kinds,
    list_values,
    open_sweeps,
    rank_components,
    summarise,
)
from workbench.views.sweeps import draw_components, draw_formats, draw_values, tabulate_outcomes

NODES = Filter((("method", ("eap",)), ("row", ("node",))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one sweep."""
    write_table(tmp_path / "sweeps" / "it's")
    return tmp_path / "sweeps"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "COPY sweeps TO '{out}'",
        "COPY sweeps TO '{part}'",
        "EXPORT DATABASE '{out}'",
        "ATTACH '{out}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW sweeps",
        "SELECT 1; SELECT 2",
        "SELECT * FROM secret",
        "SELECT nonsense FROM sweeps",
        "",
        "PRAGMA database_list",
    ],
)
def test_nothing_else_is_read_and_nothing_is_written(folder: Path, tmp_path: Path, sql: str) -> None:
    """Other files, Python's variables, extensions, settings and every statement that changes something are refused."""
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    part = folder / "it's" / "part-000000.parquet"
    before = part.read_bytes()
    out = tmp_path / "out"
    with pytest.raises(UserError):
        ask(open_sweeps(folder), sql.format(secret=secret, out=out, part=str(part).replace("'", "''")))
    assert part.read_bytes() == before
    assert not out.exists()


def test_a_query_is_answered(folder: Path) -> None:
    """Rows, their columns, and whether there are more; a folder of sweeps and a sweep by itself."""
    found = ask(open_sweeps(folder), "SELECT sweep, count(*) AS n FROM sweeps GROUP BY 1")
    assert (found.columns, found.rows, found.more) == (("sweep", "n"), (("it's", 13),), False)
    found = ask(open_sweeps(folder / "it's"), "FROM sweeps SELECT value ORDER BY value", limit=2)
    assert (found.rows, found.more) == (((-3.0,), (-1.0,)), True)
    strange = ask(open_sweeps(folder), "SELECT 'nan'::DOUBLE, DATE '2026-01-01', NULL, 1")
    assert strange.to_json()["rows"] == [["nan", "2026-01-01", None, 1]]
    with pytest.raises(UserError, match="there are no sweeps"):
        open_sweeps(folder / "nowhere")
    (folder / "it's" / "part-000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError):
        ask(open_sweeps(folder), "SELECT sum(value) FROM sweeps")


def test_what_the_page_asks(folder: Path) -> None:
    """Means, counts and histograms of the table by hand."""
    connection = open_sweeps(folder)
    values = list_values(connection)
    assert (values["method"], values["relation"]) == (["eap", "ledger"], sorted([HOSTILE, "capital", "colour"]))
    assert count_outcomes(connection) == [
        ("it's", "given", "eap", "", 2),
        ("it's", "given", "eap", "too long", 1),
        ("it's", "given", "ledger", "", 2),
    ]
    assert rank_components(connection, NODES) == [
        ("a1.h0", 4.0, 4.0, 2, pytest.approx(8**0.5)),
        ("m0", -2.0, 2.0, 2, pytest.approx(2**0.5)),
    ]
    assert list_kinds(connection) == {"eap": ["edge", "node"], "ledger": ["component", "format"]}
    edges = rank_components(connection, Filter((("row", ("edge",)), ("relation", (HOSTILE,)))))
    assert edges == [("a1.h0 → logits", 4.5, 4.5, 1, None)]
    assert rank_components(connection, Filter((("row", ("node",)),), "m"))[0][:4] == ("m0", -2.0, 2.0, 2)
    assert summarise(connection, NODES) == (4, 2, ["logit-diff, ablation counterfactual, in logits"])
    assert count_sources(connection, NODES) == (1, 1)
    bins = count_values(connection, NODES)
    assert sum(count for _, _, count in bins) == 4
    assert (bins[0][0], bins[-1][0] + bins[-1][1]) == (-3.0, pytest.approx(6.0))
    ledger = Filter((("method", ("ledger",)),))
    assert ("capital", "memory 1", 3.0, 1) in average_formats(connection, ledger)
    nothing = Filter((("relation", ("nowhere",)),))
    assert (count_values(connection, nothing), summarise(connection, nothing)[0]) == ([], 0)
    with pytest.raises(UserError, match="no column"):
        summarise(connection, Filter((("value; DROP VIEW sweeps", ("x",)),)))


def test_figures_show_names_as_text(folder: Path) -> None:
    """Signs of markup in names of relations and components are shown, not obeyed."""
    connection = open_sweeps(folder)
    drawn = draw_formats(average_formats(connection, Filter((("method", ("ledger",)),))), "logits")
    assert any(label.startswith("&lt;b&gt;") for label in drawn.data[0].y)
    bars = draw_components(rank_components(connection, NODES), "logits")
    assert list(bars.data[0].x) == [4.0, -2.0]
    assert sum(draw_values(count_values(connection, NODES), "logits").data[0].y) == 4
    outcomes = tabulate_outcomes(count_outcomes(connection))["outcome"]
    assert outcomes == ["measured", "not measured: too long", "measured"]


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One JSON document, or a table whose cells no terminal obeys; bad input is exit code 2."""
    monkeypatch.setenv("MEMORY_CIRCUITS_SWEEPS", str(folder))
    assert (
        main(["query", "SELECT component FROM sweeps WHERE row = 'node' ORDER BY value", "--limit", "2", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == {"columns": ["component"], "rows": [["m0"], ["m0"]], "more": True}
    assert main(["query", "SELECT chr(27) || 'x' AS shown", "--sweeps", str(folder)]) == 0
    assert "\\x1bx" in capsys.readouterr().out
    assert main(["query", "DROP VIEW sweeps"]) == 2
    assert main(["query", "SELECT 1", "--limit", "0"]) == 2
    assert main(["query", "SELECT 1", "--sweeps", str(folder / "nowhere")]) == 2
