"""Hostile text through every export: each file opens in its own format's reader and gives the text back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from xml.etree import ElementTree

import networkx
import pytest

from tests.hostile import HOSTILE, make_hostile
from workbench.exports import EXPORTS
from workbench.exports_graphml import clean_xml
from workbench.exports_json import read_json
from workbench.exports_tables import FORMULA_STARTS
from workbench.runs import Run
from workbench.views.text import show_line, show_token

Builder = Callable[..., Run]


def build(build_run: Builder, text: str) -> Run:
    """A run with one hostile text as every token, answer, memory and name."""
    return make_hostile(build_run(tokens=[text] * 5, parts=2), [text])


def read_cells(data: bytes) -> list[dict[str, str]]:
    """Rows of a table, by the standard library's reader."""
    csv.field_size_limit(1 << 20)
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def undo(cell: str) -> str:
    """The text of a cell without the apostrophe that keeps a spreadsheet from taking it for a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:].lstrip().startswith(FORMULA_STARTS) else cell


def write_surrogates(text: str) -> str:
    """Half a character has no UTF-8: it is written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("name", HOSTILE)
def test_json_gives_the_text_back(build_run: Builder, name: str) -> None:
    run = build(build_run, HOSTILE[name])
    data = EXPORTS["json"].write(run)
    assert json.loads(data)["pairs"][0]["clean_tokens"] == [HOSTILE[name]] * 5
    read = read_json(data)
    assert read.tokens == run.tokens and read.about["pairs"] == run.about["pairs"]
    assert read.about["memories"] == run.about["memories"]


@pytest.mark.parametrize("name", HOSTILE)
def test_graphml_gives_the_text_back(build_run: Builder, name: str) -> None:
    run = build(build_run, HOSTILE[name])
    graph = networkx.parse_graphml(EXPORTS["graphml"].write(run).decode(), force_multigraph=True)
    wanted = clean_xml(HOSTILE[name])
    assert {graph.nodes[node.id].get("token", "") for node in run.circuit.nodes} == {wanted}
    assert graph.graph.get("prompt", "") == wanted


@pytest.mark.parametrize("name", HOSTILE)
def test_svg_is_a_picture_with_the_text_and_nothing_that_runs(build_run: Builder, name: str) -> None:
    text = HOSTILE[name]
    root = ElementTree.fromstring(EXPORTS["svg"].write(build(build_run, text)))
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "rect", "g", "path", "text"}
    assert not [key for element in root.iter() for key in element.attrib if key.startswith("on") or "href" in key]
    told = "".join(element.text or "" for element in root.iter())
    assert show_token(text) in told and show_line(text) in told


@pytest.mark.parametrize("export", ["csv", "csv-nodes", "csv-parts"])
@pytest.mark.parametrize("name", HOSTILE)
def test_tables_give_the_text_back_and_no_cell_is_a_formula(build_run: Builder, export: str, name: str) -> None:
    rows = read_cells(EXPORTS[export].write(build(build_run, HOSTILE[name])))
    assert {undo(row["token"]) for row in rows} == {write_surrogates(HOSTILE[name])}
    cells = [cell for row in rows for key, cell in row.items() if key in ("token", "source", "label")]
    assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("name", sorted(set(EXPORTS) - {"json", "graphml", "svg", "csv", "csv-nodes", "csv-parts"}))
def test_other_formats_are_written_with_every_text_in_them(build_run: Builder, name: str) -> None:
    for text in HOSTILE.values():
        data = EXPORTS[name].write(build(build_run, text))
        assert data
        assert not {0x00, 0x07, 0x1B, 0x7F} & set(data)
