"""What holds on every page in a real browser: hostile text runs nothing, and no work is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import wait_for_rest
from tests.browser.server import Witness
from tests.hostile import HOSTILE, make_hostile
from workbench.runs import Run, save_run

QUICK, PATIENCE = 60_000.0, 480_000.0
VIEW = {"width": 1500, "height": 1300}
NODES = ".node:not(.fixed)"


@pytest.fixture(scope="module")
def saved(workspace: Path, build_run: Callable[..., Run]) -> str:
    """A run of hostile texts in the workspace; its name."""
    texts = [text for name, text in HOSTILE.items() if name != "surrogate"]
    save_run(make_hostile(build_run(tokens=texts[:12], edges=60, parts=1), texts), workspace / "runs" / "hostile")
    return "hostile"


def open_page(browser: Any, witness: Witness, link: str) -> Any:
    """A watched page of a window of its own."""
    page = witness.watch(browser.new_context(viewport=VIEW).new_page())
    page.goto(link)
    return page


def require_quiet(page: Any, witness: Witness) -> None:
    """Fail when a text ran, or the console, the page or the network had something to say."""
    assert page.evaluate("window.hostile") is None
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(900)
def test_hostile_text_runs_nothing_and_a_reload_loses_no_work(shared: str, browser: Any, saved: str) -> None:
    witness = Witness(shared)
    page = open_page(browser, witness, f"{shared}/circuit?run={saved}&edges=60")
    page.locator(NODES).first.wait_for(timeout=QUICK)
    for node in page.locator(NODES).all()[:60:12]:
        node.hover(force=True)
        node.click(force=True)
        wait_for_rest(page)
    for tab in page.get_by_role("tab").all():
        tab.click()
    require_quiet(page, witness)
    page.goto(f"{shared}/runs")
    page.locator("canvas").first.wait_for(timeout=QUICK)
    require_quiet(page, witness)

    page.goto(shared)
    page.get_by_text("My own prompt").click(timeout=QUICK)
    wait_for_rest(page)
    page.get_by_label("Prompt", exact=True).fill("".join(HOSTILE[name] for name in HOSTILE if "html" in name) + " is")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Ask", exact=True).click(timeout=QUICK)
    page.wait_for_url(re.compile(r"[?&]job="), timeout=QUICK)
    page.reload()
    page.get_by_role("heading", name="What comes after").wait_for(timeout=PATIENCE)
    require_quiet(page, witness)
