"""The server before Streamlit: garbage that is set aside, and timers that wait for a page to be run to its end."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.runtime.app_session import AppSession, AppSessionState

from pages import warm_server


def collect_with(monkeypatch: pytest.MonkeyPatch, whole: float, lasts: float) -> tuple[list[str], float]:
    """What one collection at the moment 100, which lasts so long, does; and the moment that it returns."""
    did: list[str] = []
    moments = iter([100.0, 100.0 + lasts])
    calls = {name: lambda name=name: did.append(name) for name in ("collect", "freeze", "unfreeze")}
    monkeypatch.setattr(warm_server, "gc", SimpleNamespace(**calls))
    monkeypatch.setattr(warm_server, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    return did, warm_server.collect(whole)


def test_a_short_collection_sets_nothing_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    assert collect_with(monkeypatch, 90.0, warm_server.LONG / 2) == (["collect"], 90.0)


def test_what_a_long_collection_leaves_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    assert collect_with(monkeypatch, 90.0, 2 * warm_server.LONG) == (["collect", "freeze"], 90.0)


def test_everything_is_looked_at_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    long_ago = 100.0 - 2 * warm_server.COLLECT_ALL_EVERY
    assert collect_with(monkeypatch, long_ago, 2 * warm_server.LONG) == (["unfreeze", "collect", "freeze"], 100.0)
    assert collect_with(monkeypatch, long_ago, 0.0) == (["unfreeze", "collect", "freeze"], 100.0)


@pytest.mark.parametrize("state", [AppSessionState.APP_IS_RUNNING, AppSessionState.APP_NOT_RUNNING])
@pytest.mark.parametrize("timed", [True, False])
def test_a_timer_waits_for_a_page_that_is_being_run(
    state: AppSessionState, timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ClientState | None] = []
    monkeypatch.setattr(AppSession, "request_rerun", lambda _, wanted: asked.append(wanted))
    warm_server.skip_looks_at_running_pages()
    session = SimpleNamespace(_state=state)
    wanted = ClientState(is_auto_rerun=timed)
    AppSession.request_rerun(session, wanted)  # type: ignore[arg-type]
    assert asked == ([] if timed and state is AppSessionState.APP_IS_RUNNING else [wanted])
    AppSession.request_rerun(session, None)  # type: ignore[arg-type]
    assert asked[-1] is None


def test_a_session_says_whether_its_page_is_being_run() -> None:
    assert "self._state = AppSessionState.APP_IS_RUNNING" in inspect.getsource(AppSession)
