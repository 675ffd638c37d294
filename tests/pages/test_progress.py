"""What a job brought is not lost when the script that takes it is stopped at any of its uses of the session."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pages import progress
from workbench.jobs import Job, State


class Stop(BaseException):
    """Streamlit stops a script like this, at any use of the session."""


class Session(dict[str, Any]):
    """A session whose `stops`-th change is stopped before it is made."""

    stops = -1

    def yield_once(self) -> None:
        """Stop here, or count down."""
        self.stops -= 1
        if self.stops == -1:
            raise Stop

    def __setitem__(self, key: str, value: Any) -> None:
        self.yield_once()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.yield_once()
        super().__delitem__(key)

    def pop(self, key: str, *default: Any) -> Any:
        """As of a dictionary."""
        self.yield_once()
        return super().pop(key, *default)


@pytest.mark.parametrize("stops", range(4))
def test_a_result_survives_a_stop_at_any_change(stops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    session.update({"asking": "1", "answer": "of the question before"})
    job = Job("1", "me", "Asking", None, state=State.DONE, result="found")
    monkeypatch.setattr(progress, "st", SimpleNamespace(session_state=session))
    monkeypatch.setattr(progress, "find_job", lambda slot: job if dict.get(session, slot) else None)
    session.stops = stops
    try:
        progress.watch("asking", into="asked", stale=("answer",))
        assert stops == 3, "a run without a stop"
    except Stop:
        progress.watch("asking", into="asked", stale=("answer",))
    assert session == {"asked": "found"}


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_an_end_is_told_before_it_is_forgotten(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    session, told = Session(asking="1"), list[str]()
    job = Job("1", "me", "Asking", None, state=state, error="no room")
    say = {name: lambda text, **_: told.append(text) for name in ("error", "info", "warning")}
    monkeypatch.setattr(progress, "st", SimpleNamespace(session_state=session, **say))
    monkeypatch.setattr(progress, "find_job", lambda slot: job if dict.get(session, slot) else None)
    session.stops = 0
    with pytest.raises(Stop):
        progress.watch("asking")
    assert progress.watch("asking") is None
    assert len(told) == 2 and not session
