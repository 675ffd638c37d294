"""What holds on every page in a real browser: hostile text runs nothing, nobody is shut out, no work is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.server import Witness
from tests.hostile import HOSTILE, make_hostile
from workbench.runs import Run, save_run

QUICK, PATIENCE = 60_000.0, 480_000.0
VIEW = {"width": 1500, "height": 1300}
NODES = ".node:not(.fixed)"

# Parts of Streamlit's own page that no setting of ours reaches, by rule and what the finding's markup holds.
FOREIGN: tuple[tuple[str, str], ...] = ()


@pytest.fixture(scope="module")
def saved(workspace: Path, build_run: Callable[..., Run]) -> str:
    """A run of hostile texts and an ordinary one in the workspace; name of the hostile one."""
    texts = [text for name, text in HOSTILE.items() if name != "surrogate"]
    save_run(make_hostile(build_run(tokens=texts[:12], edges=60, parts=1), texts), workspace / "runs" / "hostile")
    save_run(build_run(parts=2), workspace / "runs" / "norland")
    return "hostile"


def open_page(browser: Any, witness: Witness, link: str, **options: Any) -> Any:
    """A watched page of a window of its own."""
    page = witness.watch(browser.new_context(viewport=VIEW, **options).new_page())
    page.goto(link)
    return page


def require_quiet(page: Any, witness: Witness) -> None:
    """Fail when a text ran, or the console, the page or the network had something to say."""
    assert page.evaluate("window.hostile") is None
    assert not witness.problems


def wait_for_rest(page: Any) -> None:
    """Return when the script behind the page has ended."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=QUICK)
    # What the script has left out fades away, pale meanwhile.
    page.wait_for_function("!document.querySelector('[data-stale=true]')", timeout=QUICK)


def list_pages(page: Any) -> list[str]:
    """Links of the navigation."""
    page.locator("a[data-testid=stTopNavLink]").first.wait_for(timeout=QUICK)
    return [str(link.get_attribute("href")) for link in page.locator("a[data-testid=stTopNavLink]").all()]


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


@pytest.mark.browser
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_shuts_anybody_out(shared: str, browser: Any, saved: str, scheme: str) -> None:
    witness = Witness(shared)
    page = open_page(browser, witness, f"{shared}/circuit?run=norland", color_scheme=scheme)
    page.locator(NODES).first.wait_for(timeout=QUICK)
    page.locator(NODES).nth(4).click()
    page.get_by_role("button", name="Check exactly").first.wait_for(timeout=QUICK)
    wait_for_rest(page)
    found = check(page, "circuit")
    for link in list_pages(page):
        page.goto(link if link.startswith("http") else f"{shared}/{link.lstrip('/')}")
        page.get_by_role("heading").first.wait_for(timeout=QUICK)
        wait_for_rest(page)
        found += check(page, link)
    assert not found, "\n".join(found)
    dark = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    assert (dark == "rgb(18, 24, 31)") == (scheme == "dark")
    assert not witness.problems


def check(page: Any, name: str) -> list[str]:
    """Serious findings of axe-core on a page, one line each."""
    results = Axe().run(page).response["violations"]
    return [
        f"{name}: {finding['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for finding in results
        if finding["impact"] in ("serious", "critical")
        for node in finding["nodes"]
        if not any(finding["id"] == rule and part in node["html"] for rule, part in FOREIGN)
    ]
