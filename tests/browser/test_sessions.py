"""Several people on one server: each gets the run of what it asked, bit for bit that of a trace alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import read_link, wait_or_tell
from tests.browser.server import Witness
from workbench.library import read_shipped_facts
from workbench.pipeline import open_engine
from workbench.replaying import replay
from workbench.runs import load_run
from workbench.settings import restore_settings

QUICK, PATIENCE = 60_000.0, 240_000.0
SESSIONS = 3


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_sessions_trace_at_once_and_nothing_is_mixed_up(base: str, browser: Any, witness: Witness, runs: Path) -> None:
    """One session leaves in the middle of its trace; the others' runs are those of their own facts."""
    facts = [fact.id for fact in read_shipped_facts()[: 40 * SESSIONS : 40]]
    pages = [witness.watch(browser.new_context().new_page()) for _ in facts]
    for page, fact in zip(pages, facts, strict=True):
        page.goto(f"{base}/?fact={fact}")
        page.get_by_role("button", name="Ask", exact=True).click(timeout=QUICK)
    for page in pages:
        wait_or_tell(page, page.get_by_role("heading", name="What comes after"), PATIENCE)
    for page in pages:
        page.get_by_role("button", name="Trace", exact=True).click(timeout=QUICK)
    pages[0].context.close()
    asked = {}
    for page, fact in zip(pages[1:], facts[1:], strict=True):
        page.wait_for_url(re.compile(r"/circuit\?.*run="), timeout=PATIENCE)
        asked[read_link(page, "run")] = fact
    assert len(asked) == SESSIONS - 1
    first = load_run(runs / next(iter(asked)))
    engine = open_engine(restore_settings(first.about["settings"]))
    for name, fact in asked.items():
        run = load_run(runs / name)
        assert run.about["question"]["fact"] == fact
        assert replay(run, engine) == ()
    assert not witness.problems
