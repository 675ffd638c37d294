"""Nobody is shut out: axe-core finds nothing serious on any page, with content in it, light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.driving import wait_for_rest, write_places
from tests.browser.server import Witness
from tests.pages.measured import FOUND
from tests.studies import make_study
from tests.sweep_tables import write_table
from workbench.measurements import Measurement, save_measurement
from workbench.runs import Run, save_run
from workbench.studies import save_study

QUICK = 60_000.0
VIEW = {"width": 1500, "height": 1300}
NODES = ".node:not(.fixed)"
RUNS = ("run-0", "run-1", "run-2")
PLOT = ".js-plotly-plot .main-svg"
TABLE = "[data-testid=stDataFrame] canvas"

# Every page by its link, and what is there when its content is.
PAGES = {
    "ask": ("/", TABLE),
    "circuit": ("/circuit?run=run-0", NODES),
    "memory, new study": ("/memory", "[data-testid=stButtonGroup]"),
    "ledger": ("/memory?study=norland.ledger", PLOT),
    "what was read": ("/memory?study=norland.ledger&section=What+was+read", ".token"),
    "cluster path": ("/memory?study=norland.ledger&section=Cluster+path", TABLE),
    "block": ("/memory?study=norland.ledger&section=Block+and+ask+again", "[data-testid=stCheckbox]"),
    "components": ("/knowledge?section=components", PLOT),
    "classes": ("/knowledge?section=classes", TABLE),
    "core": (f"/knowledge?section=core&runs={','.join(RUNS)}", NODES),
    "heads": ("/knowledge?section=heads", PLOT),
    "units": ("/knowledge?section=units", TABLE),
    "lens": ("/knowledge?section=lens", PLOT),
    "probe": ("/knowledge?section=probe", PLOT),
    "restore": ("/knowledge?section=restore", PLOT),
    "places": ("/placement?measured=measured&view=Places", PLOT),
    "costs": ("/placement?measured=measured&view=Cost+against+usage", PLOT),
    "moves": ("/placement?measured=measured&view=Move+a+selection", TABLE),
    "tiers": ("/placement?measured=measured&view=Tiers+of+storage", "[data-testid=stSlider]"),
    "runs": ("/runs", TABLE),
    "sweeps": ("/sweeps", PLOT),
}

# Parts of Streamlit's own page that no setting of ours reaches, by rule and what the finding's markup holds.
FOREIGN: tuple[tuple[str, str], ...] = ()


@pytest.fixture(scope="module")
def filled(workspace: Path, build_run: Callable[..., Run]) -> None:
    """Runs, a study, every kind of measurement, a table of places and a sweep in the workspace."""
    runs = workspace / "runs"
    for seed, name in enumerate(RUNS):
        save_run(build_run(seed=seed, parts=2), runs / name)
    save_study(make_study("norland.ledger"), runs)
    for kind, found in FOUND.items():
        save_measurement(Measurement(kind, found), runs / "measurements" / f"{kind}-1.json")
    write_places(runs / "measured")
    write_table(workspace / "sweeps" / "first")


@pytest.mark.browser
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_shuts_anybody_out(shared: str, browser: Any, filled: None, scheme: str) -> None:
    witness = Witness(shared)
    page = witness.watch(browser.new_context(viewport=VIEW, color_scheme=scheme).new_page())
    found: list[str] = []
    for name, (link, content) in PAGES.items():
        page.goto(f"{shared}{link}")
        page.locator(content).first.wait_for(timeout=QUICK)
        wait_for_rest(page)
        found += check(page, name)
    assert not found, "\n".join(found)
    dark = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    assert (dark == "rgb(18, 24, 31)") == (scheme == "dark")
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_opens_on_a_page_shuts_nobody_out(shared: str, browser: Any, filled: None, scheme: str) -> None:
    """The circuit's node, its tabs, notes and keys; the tour; the actions of a chosen run; folded parts."""
    witness = Witness(shared)
    page = witness.watch(browser.new_context(viewport=VIEW, color_scheme=scheme).new_page())
    page.goto(f"{shared}/circuit?run=run-0&tour=4")
    page.locator(NODES).first.wait_for(timeout=QUICK)
    page.locator('.node[data-id^="a"]').first.click()
    page.locator(".attention td").first.wait_for(timeout=QUICK)
    page.keyboard.press("p")
    page.get_by_text("Not saved yet").wait_for(timeout=QUICK)
    page.keyboard.press("?")
    wait_for_rest(page)
    found = check(page, "circuit, a node")
    page.keyboard.press("Escape")
    for tab in page.get_by_role("tab").all():
        tab.click()
        wait_for_rest(page)
        found += check(page, f"circuit, {tab.inner_text()}")
    page.goto(f"{shared}/sweeps")
    page.locator(PLOT).first.wait_for(timeout=QUICK)
    for fold in page.locator("[data-testid=stExpander] summary").all():
        fold.click()
        wait_for_rest(page)
    found += check(page, "sweeps, tables")
    page.goto(f"{shared}/runs")
    canvas = page.locator(TABLE).first
    canvas.wait_for(timeout=QUICK)
    wait_for_rest(page)
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 52)
    page.get_by_role("tab").first.wait_for(timeout=QUICK)
    for tab in page.get_by_role("tab").all():
        tab.click()
        wait_for_rest(page)
        found += check(page, f"runs, {tab.inner_text()}")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Move to the trash").wait_for(timeout=QUICK)
    wait_for_rest(page)
    found += check(page, "runs, dialog")
    assert not found, "\n".join(found)
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
