"""Hostile text through every export: each file opens in its own format's reader and gives the text back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

import networkx
import pyarrow.parquet
import pytest

from tests.hostile import LOTS, make_hostile
from workbench.exports import EXPORTS
from workbench.exports_graphml import clean_xml
from workbench.exports_json import read_json
from workbench.exports_tables import FORMULA_STARTS
from workbench.runs import Run
from workbench.views.text import show_line, show_token

TABLES = ("csv", "csv-nodes", "csv-parts")
PARQUET = ("parquet", "parquet-nodes", "parquet-parts")
BINARY = {"pdf": b"%PDF-", "png": b"\x89PNG\r\n"}


@pytest.fixture(params=LOTS, ids=lambda lot: f"lot {LOTS.index(lot)}", scope="module")
def texts(request: pytest.FixtureRequest) -> list[str]:
    """Some hostile texts."""
    return list(request.param)


@pytest.fixture(scope="module")
def hostile(build_run: Callable[..., Run], texts: Sequence[str]) -> Run:
    """A run that has each of the texts as a token, and as prompt, answer, memory or name."""
    run = make_hostile(build_run(tokens=texts, parts=1), texts)
    pair = run.about["pairs"][0] | {"clean_tokens": list(texts), "clean": texts[0], "answer": texts[1]}
    run.about["pairs"][0] = pair
    return run


def read_cells(data: bytes) -> list[dict[str, str]]:
    """Rows of a table, by the standard library's reader."""
    before = csv.field_size_limit(1 << 20)
    try:
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    finally:
        csv.field_size_limit(before)


def undo(cell: str) -> str:
    """The text of a cell without the apostrophe that keeps a spreadsheet from taking it for a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:].lstrip().startswith(FORMULA_STARTS) else cell


def spell_halves(text: str) -> str:
    """Half a character has no UTF-8: it is written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def test_json_gives_the_texts_back(hostile: Run, texts: list[str]) -> None:
    data = EXPORTS["json"].write(hostile)
    assert json.loads(data)["pairs"][0]["clean_tokens"] == texts
    read = read_json(data)
    assert read.tokens == texts
    assert {name: read.about[name] for name in ("pairs", "memories")} == {
        name: hostile.about[name] for name in ("pairs", "memories")
    }


def test_graphml_gives_the_texts_back(hostile: Run, texts: list[str]) -> None:
    graph = networkx.parse_graphml(EXPORTS["graphml"].write(hostile).decode(), force_multigraph=True)
    for node in hostile.circuit.nodes:
        assert graph.nodes[node.id].get("token", "") == clean_xml(texts[node.position])
    assert (graph.graph.get("prompt", ""), graph.graph.get("answer", "")) == tuple(map(clean_xml, texts[:2]))


def test_svg_is_a_picture_with_the_texts_and_nothing_that_runs(hostile: Run, texts: list[str]) -> None:
    root = ElementTree.fromstring(EXPORTS["svg"].write(hostile))
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
        "svg", "title", "desc", "rect", "g", "path", "text"
    }  # fmt: skip
    assert not [key for element in root.iter() for key in element.attrib if key.startswith("on") or "href" in key]
    told = "".join(element.text or "" for element in root.iter())
    used = {node.position for node in hostile.circuit.nodes}
    assert not [text for place, text in enumerate(texts) if place in used and show_token(text)[:79] not in told]
    assert show_line(texts[0]) in told


@pytest.mark.parametrize("export", TABLES)
def test_tables_give_the_texts_back_and_no_cell_is_a_formula(hostile: Run, texts: list[str], export: str) -> None:
    rows = read_cells(EXPORTS[export].write(hostile))
    assert rows
    for row in rows:
        assert undo(row["token"]) == spell_halves(texts[int(row["position"])])
        told = [row[name] for name in ("token", "source", "label") if name in row]
        assert not [cell for cell in told if cell.lstrip().startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("export", sorted(set(EXPORTS) - {"json", "graphml", "svg", *TABLES, *PARQUET, *BINARY}))
def test_other_formats_hold_no_control_characters(hostile: Run, export: str) -> None:
    data = EXPORTS[export].write(hostile)
    assert data
    assert not {0x00, 0x07, 0x1B, 0x7F} & set(data)


@pytest.mark.parametrize("export", PARQUET)
def test_parquet_tells_what_csv_tells_without_its_apostrophes(hostile: Run, export: str) -> None:
    rows = pyarrow.parquet.read_table(io.BytesIO(EXPORTS[export].write(hostile))).to_pylist()
    cells = read_cells(EXPORTS[export.replace("parquet", "csv")].write(hostile))
    assert len(rows) == len(cells) > 0
    for row, cell in zip(rows, cells, strict=True):
        assert {name: value for name, value in row.items() if isinstance(value, str)} == {
            name: undo(cell[name]) for name, value in row.items() if isinstance(value, str)
        }


@pytest.mark.parametrize("export", BINARY)
def test_pictures_are_drawn_of_it(hostile: Run, export: str) -> None:
    assert EXPORTS[export].write(hostile).startswith(BINARY[export])
