"""The Placement page: views by link, usage, measured places, moves of a selection, tiers; and what can go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.placement_measuring import draw_sample
from probes.errors import UserError
from tests.pages.reading import find_table, texts
from workbench import library
from workbench.ledgers import bulk
from workbench.ledgers.bulk import COLUMNS, HEAD
from workbench.sweeps.parts import encode_rows

OpenPage = Callable[..., AppTest]
Settle = Callable[[AppTest, str], AppTest]
COSTS, MOVES, TIERS = "Cost against usage", "Move a selection", "Tiers of storage"
SAME, TABLE = "the same for all", "as a table says"


def write_table(folder: Path) -> None:
    """A table in which Norland is carried by text and Southia is not known."""
    shared = {"fact": "norland-capital", "margin": 5.0, "unit": "logits"}
    rows: list[dict[str, Any]] = [
        {**shared, "row": "format", "format": "anchor", "share": 1.0},
        {**shared, "row": "format", "format": "text", "share": 4.0},
        {"fact": "southia-capital", "row": "reason", "reason": "answer not known: the model says ' <b>'"},
    ]
    folder.mkdir(parents=True)
    (folder / "part-000000.parquet").write_bytes(encode_rows(rows, COLUMNS))
    (folder / HEAD).write_text("{}")


@pytest.fixture
def table(runs: Path) -> str:
    """Name of a table of ledgers beside the runs."""
    write_table(runs / "measured")
    return "measured"


def test_places_as_they_are_and_as_recommended(open_page: OpenPage, fake: Any) -> None:
    app = open_page("placement")
    assert not app.exception and fake.calls == []
    places = find_table(app, "what is there")
    assert places["place"].tolist() == ["text", "explicit memory", "bank, level 2", "bank, level 1", "anchor"]
    assert (places["write one reference, TFlops"].diff().dropna()[:1] > 0).all()
    moves = find_table(app, "moves")
    assert moves["lives in"].tolist() == ["not measured"] * len(moves) and moves["facts"].sum() == 2
    assert "not measured yet" in texts(app)


def test_a_link_restores_the_view_and_its_numbers(open_page: OpenPage) -> None:
    """The paper's shape at 300 reads: between its published 0.494 and 13,400 reads explicit memory is the cheapest."""
    app = open_page("placement", view=COSTS, shape="Memory^3, 2.4B", **{"usage-source": SAME}, factor="300")
    assert not app.exception
    ranges = find_table(app, "cheapest from, reads").set_index("format")
    assert ranges.loc["explicit memory", "cheapest from, reads"] == pytest.approx(0.494, abs=0.0005)
    assert ranges.loc["explicit memory", "to, reads"] == pytest.approx(13400, abs=50)
    assert "0.494 to 13," in texts(app)
    app.segmented_control(key="view").set_value("Places").run()
    assert find_table(app, "moves")["recommended"].tolist() == ["explicit memory"]


def test_measured_places_and_a_selection_that_moves(open_page: OpenPage, table: str) -> None:
    app = open_page(
        "placement", view=MOVES, measured=table, shape="Memory^3, 2.4B", **{"usage-source": SAME}, factor="100"
    )
    assert not app.exception
    facts = find_table(app, "its share")
    assert facts["lives in"].tolist() == ["text", "not measured"] and facts["its share"].tolist()[0] == 4.0
    moves = find_table(app, "saved in all, TFlops").set_index("to")
    assert moves["facts moved"].to_dict() == {"text": 0, "explicit memory": 1, "parameters": 1}
    write, before, after, saved = moves.loc["explicit memory"].tolist()[2:]
    assert saved == pytest.approx(before - write - after) and saved > 0
    app.session_state[f"move-{table}--any-any"] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    app.run()
    assert "the 1 selected" in texts(app)
    assert find_table(app, "saved in all, TFlops")["facts moved"].sum() == 0
    app.text_input(key="move-words").input("nothing like it").run()
    assert "No fact is left" in texts(app)
    app.segmented_control(key="view").set_value("Places").run()
    assert [metric.label for metric in app.metric] == ["Saving, if written anew", "Saving, if moved now"]


def test_a_table_that_is_not_there_or_damaged_is_told(open_page: OpenPage, table: str, runs: Path) -> None:
    app = open_page("placement", measured="../<b>")
    assert not app.exception and "there is no table" in app.warning[0].value and "<b>" not in app.warning[0].value
    (runs / table / "part-000000.parquet").unlink()
    app = open_page("placement", measured=table)
    assert not app.exception and "holds no parts" in app.error[0].value


def test_usage_from_a_table(open_page: OpenPage) -> None:
    app = open_page("placement", **{"usage-source": TABLE})
    assert not app.exception and "No fact has a usage yet" in texts(app)
    app.file_uploader(key="usage-file").upload("usage.csv", b"id,usage\nnorland-capital,5\n", "text/csv").run()
    assert find_table(app, "moves")["facts"].tolist() == [1]
    app.file_uploader(key="usage-file").upload("usage.csv", b"id,usage\nnorland-capital,=1+1\n", "text/csv").run()
    assert not app.exception and "give a number from 0" in app.error[0].value.replace("\\", "")
    app.file_uploader(key="usage-file").upload("usage.parquet", b"\x80\x04never", "application/x").run()
    assert not app.exception and "cannot be read" in app.error[0].value


def test_tiers_follow_their_sliders(open_page: OpenPage) -> None:
    """A cache as large as the bank answers nearly all; one of a text's blocks few; faster storage waits less."""
    app = open_page("placement", view=TIERS)
    assert not app.exception
    caches = find_table(app, "mean wait a text, ms")
    waits = caches["mean wait a text, ms"].tolist()
    assert waits == sorted(waits, reverse=True)
    assert caches["level 1 from the cache, share"].tolist()[-1] > 0.9
    before = {metric.label: metric.value for metric in app.metric}
    app.selectbox(key="tier-bank").select("paper").run()
    app.slider(key="latency").set_value(10_000).run()
    assert not app.exception
    after = {metric.label: metric.value for metric in app.metric}
    assert before["A text fetches"] != after["A text fetches"]
    assert float(after["Wait without a cache"].split()[0]) > 10


def test_some_facts_are_measured(
    open_page: OpenPage, settle: Settle, runs: Path, monkeypatch: pytest.MonkeyPatch, fake: Any
) -> None:
    """The sample goes to the worker as ids, and its table is chosen when it is there."""
    from types import SimpleNamespace

    from workbench import pipeline

    asked: list[Any] = []

    def attribute(engine: Any, path: Path, folder: Path, settings: Any, **more: Any) -> dict[str, Any]:
        asked.append(([json.loads(line)["id"] for line in path.read_text().splitlines()], settings.memory, more["top"]))
        write_table(folder)
        return {}

    made = SimpleNamespace(model=SimpleNamespace(sha256="ab" * 32))
    monkeypatch.setattr(pipeline, "open_engine", lambda settings, tick: made)
    monkeypatch.setattr(bulk, "attribute", attribute)
    app = open_page("placement")
    app.number_input(key="sample").set_value(5).run()
    app.button(key="measure-places").click().run()
    app = settle(app, "attributing")
    assert not app.exception
    assert asked == [(["norland-capital", "southia-capital"], "own", 0)]
    assert app.query_params["measured"] in ("places-abababab.n5.seed0", ["places-abababab.n5.seed0"])
    assert "1 of them not measured" in texts(app)
    assert len(draw_sample(1, 3)) == 1 and draw_sample(1, 3) == draw_sample(1, 3)


def test_missing_shipped_files_are_one_line(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UserError("the shipped model is missing")

    monkeypatch.setattr(library, "read_shipped_facts", refuse)
    app = open_page("placement")
    assert not app.exception and "the shipped model is missing" in app.error[0].value
