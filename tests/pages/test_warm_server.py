"""Garbage of the server: what a long collection leaves is set aside, and looked at again now and then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

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
