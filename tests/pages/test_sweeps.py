"""The Sweeps page: nothing there, what is there by default, filters, hostile names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.sweep_tables import HOSTILE, write_table

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
    app.selectbox(key="sweeps-method").select("eap").run()
    assert "No row is left" in str(app.info[0].value)
    app.selectbox(key="sweeps-row").select("node").run()
    assert "4 rows of 2 facts" in caption(app)
    app.multiselect(key="sweeps-relation").select(HOSTILE).run()
    assert "2 rows of 1 facts" in caption(app)
    app.text_input(key="sweeps-component").set_value("m").run()
    assert "1 rows of 1 facts" in caption(app)
    assert not app.exception
    write_table(sweeps / "second")
    assert "second" in app.run().multiselect(key="sweeps-sweep").options
