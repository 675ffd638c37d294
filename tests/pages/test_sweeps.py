"""The Sweeps page: nothing there, what is there by default, filters, hostile names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.sweep_tables import HOSTILE, write_lost, write_table
from workbench.ledgers.table import METHOD

OpenPage = Callable[..., AppTest]


@pytest.fixture
def sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of sweeps that the page uses; empty."""
    monkeypatch.setenv("MEMORY_CIRCUITS_SWEEPS", str(tmp_path / "sweeps"))
    return tmp_path / "sweeps"


def caption(app: AppTest) -> str:
    """The line on what is chosen."""
    return "\n".join(str(element.value) for element in app.caption)


def test_without_a_sweep_the_page_says_how_to_make_one(open_page: OpenPage, sweeps: Path) -> None:
    app = open_page("sweeps")
    assert not app.exception
    assert "memory" in str(app.info[0].value) and "sweep" in str(app.info[0].value)


def test_filters_change_what_is_counted(open_page: OpenPage, sweeps: Path) -> None:
    """Ledgers' parts to begin with; then nodes by EAP, of one relation, of a component, of none."""
    write_table(sweeps / "first")
    app = open_page("sweeps")
    assert not app.exception
    assert "2 rows of 2 facts" in caption(app)
    assert app.selectbox[1].options == ["parts of the memories and the anchor", "whole formats"]
    app.selectbox(key="sweeps-method").select("eap").run()
    assert "4 rows of 2 facts" in caption(app)
    app.multiselect(key="sweeps-relation").select(HOSTILE).run()
    assert "2 rows of 1 fact" in caption(app)
    app.text_input(key="sweeps-component").set_value("m").run()
    assert "1 row of 1 fact" in caption(app)
    app.text_input(key="sweeps-component").set_value("nowhere").run()
    assert "No row is left" in str(app.info[0].value)
    assert not app.exception and not app.warning
    write_table(sweeps / "second")
    app.text_input(key="sweeps-component").set_value("").run()
    assert "second" in app.multiselect(key="sweeps-sweep").options
    assert "Means go over 2 sweeps together" in str(app.warning[0].value)


def test_the_page_opens_on_rows_that_there_are(open_page: OpenPage, sweeps: Path) -> None:
    """Real ledgers name their method by a sentence; of a sweep without one the nodes come first."""
    write_table(sweeps / "first", ledger=METHOD)
    app = open_page("sweeps")
    assert "2 rows of 2 facts" in caption(app)
    assert app.selectbox(key="sweeps-method").options == ["Margin divided over formats (ledger)", "EAP"]


def test_a_sweep_that_measured_nothing_says_why(open_page: OpenPage, sweeps: Path) -> None:
    sweeps.mkdir()
    write_lost(sweeps / "first")
    app = open_page("sweeps")
    assert not app.exception
    assert "No fact was measured" in str(app.info[0].value)
    assert "too long" in str(app.dataframe[0].value)
