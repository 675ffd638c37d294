"""Measurements at rest: recognised, checked, kept whole; and what the pages make of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from probes.errors import UserError
from tests.pages.measured import FOUND, HOSTILE, LENS, SPECIFICITY, TABLE
from workbench.lens_tables import restore_table
from workbench.measurements import (
    Measurement,
    check_measurement_name,
    import_measurement,
    list_measurements,
    name_measurement,
    open_measurement,
    read_measurement,
    save_measurement,
)
from workbench.views.component_figures import choose_points, draw_map, scatter_components
from workbench.views.components import (
    QUANTITIES,
    filter_components,
    find_place,
    gather_tags,
    map_heads,
    map_units,
    tabulate_components,
)
from workbench.views.readout_figures import draw_lens, scatter_classes, tabulate_answer, tabulate_lens

ROWS: list[dict[str, Any]] = SPECIFICITY["components"]


@pytest.mark.parametrize("kind", list(FOUND))
def test_what_a_command_printed_is_recognised_and_kept(kind: str, tmp_path: Path) -> None:
    """Bare output and a kept file give the same result; the same measurement gives the same bytes."""
    bare = read_measurement(json.dumps(FOUND[kind]).encode())
    assert (bare.kind, bare.found) == (kind, FOUND[kind])
    name = import_measurement(json.dumps(FOUND[kind]).encode(), tmp_path)
    assert name == f"{kind}-1" and name_measurement(kind, tmp_path) == f"{kind}-2"
    kept = Measurement(kind, FOUND[kind], "memory-circuits x", {"name": "shipped"})
    for path in (tmp_path / "a.json", tmp_path / "b.json"):
        save_measurement(kept, path)
    assert open_measurement(tmp_path / "a.json") == kept
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "no object"),
        (b'{"a": NaN}', "no number"),
        (b"[" * 100_000, "not JSON"),
        (b'{"cells": 1}', "can be opened here"),
        (b'{"format": "memory-circuits/measurement", "version": 9}', "version 9"),
        (b'{"format": "memory-circuits/measurement", "version": 1, "kind": "x"}', "none of"),
        (json.dumps({**SPECIFICITY, "facts": "4"}).encode(), r"\$.facts"),
        (json.dumps({**LENS, "everywhere": {**TABLE, "ids": ["<b>"]}}).encode(), "everywhere"),
    ],
)
def test_what_is_no_measurement_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        import_measurement(data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_names_are_never_paths(tmp_path: Path) -> None:
    for name in ("good", "..", "-x", "a b"):
        (tmp_path / f"{name}.json").write_text("{}")
    assert list_measurements(tmp_path) == ["good"]
    with pytest.raises(UserError, match="no saved measurement"):
        check_measurement_name("../good", ["good"])
    with pytest.raises(UserError, match=r"^gone.json: cannot read"):
        open_measurement(tmp_path / "gone.json")


def test_maps_hold_the_numbers_of_their_rows() -> None:
    assert (find_place("a12.h3"), find_place("bank 1:5"), find_place("m1.u3x")) == ((12, 3), None, None)
    heads = map_heads(ROWS, "largest")
    assert heads.values[0, 1] == -3.0 and heads.values[2, 0] == 2.0 and math.isnan(heads.values[1, 0])
    units, count = map_units(ROWS, "largest", 64)
    assert count == 2 and units.columns == ("u0", "u1", "u2", "u3") and units.values[1, 3] == 4.0
    ranked, _ = map_units(ROWS, "index", 1)
    assert ranked.columns == ("#0",) and ranked.names == {(0, 0): "m0.u0", (1, 0): "m1.u3"}
    figure = draw_map(heads, QUANTITIES["largest"], "nats")
    assert [point[0] for point in figure.data[1].customdata] == ["a0.h1", "a2.h0"]
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-3.0, 3.0)
    assert draw_map(heads, QUANTITIES["index"], "nats").data[0].zmax == 1.0


def test_components_are_filtered_drawn_and_tabled() -> None:
    assert [row["component"] for row in filter_components(ROWS, ["heads"], ["specific"])] == ["a2.h0"]
    assert [row["component"] for row in filter_components(ROWS, words="BANK norland")] == ["bank 1:5"]
    assert len(choose_points(ROWS)) == 5, "a component without an index is left out"
    figure = scatter_components(ROWS, "nats", "m1.u3")
    names = {point[0] for trace in figure.data if trace.customdata is not None for point in trace.customdata}
    assert names == {row["component"] for row in ROWS[:5]}
    (ring,) = [trace for trace in figure.data if trace.customdata is None]
    assert ring.error_y.array == (pytest.approx(0.15),) and ring.error_y.arrayminus == (0.25,)
    assert not any("<img" in text for trace in figure.data if trace.text for text in trace.text)
    table = tabulate_components(ROWS)
    assert table["class"][1] == "abstract: a relation" and table["own facts"][:2] == [3.5, None]
    tags = gather_tags("a0.h1", FOUND["heads"], FOUND["units"])
    assert tags["mark"] == ["candidate", ""] and tags["value"] == [0.7, 0.3]
    assert gather_tags("m1.u3", None, FOUND["units"])["says"] == [f"knowledge neuron of {HOSTILE}"]


def test_a_lens_table_shows_odd_tokens_and_frames_the_answer() -> None:
    table = restore_table(TABLE)
    figure = draw_lens(table)
    assert len(figure.layout.shapes) == 1 and figure.layout.shapes[0].x0 == pytest.approx(0.53)
    assert tuple(figure.layout.xaxis.ticktext) == ("0 The", "1 ⏎")
    assert tabulate_lens(table)["1 ⏎"][1] == "·Oskarville 0.90"
    assert tabulate_answer(table)["rank of the answer"] == [3, 1]
    classes = scatter_classes(FOUND["classes"])
    assert [trace.name for trace in classes.data] == ["specific", "abstract"]
