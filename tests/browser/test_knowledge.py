"""Pages that open what is saved, in a real browser: components and shared core, the list of runs; mouse and "
"keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.browser.driving import read_link, wait_for_rest
from tests.pages.measured import FOUND
from workbench.measurements import Measurement, save_measurement
from workbench.runs import Run, save_run

QUICK = 60_000.0
TRIES = 6
VIEW = {"width": 1500, "height": 1600}


def tick_row(page: Any, row: int, shows: Any) -> None:
    """Tick the box before a row of the first table, which is drawn on a canvas, until what that shows is there.

    A click is lost while the page is drawn anew after an earlier one, so it is made again where nothing came of it.
    """
    canvas = page.locator("[data-testid=stDataFrame] canvas").first
    for _ in range(TRIES):
        page.get_by_test_id("stStatusWidget").wait_for(state="detached", timeout=QUICK)
        canvas.wait_for(timeout=QUICK)
        box = canvas.bounding_box()
        page.mouse.click(box["x"] + 18, box["y"] + 52 + 35 * row)
        try:
            shows.first.wait_for(timeout=QUICK / TRIES)
            return
        except PlaywrightTimeout:
            continue
    shows.first.wait_for(timeout=QUICK / TRIES)


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_components_and_the_shared_core(
    base: str, browser: Any, witness: Any, runs: Path, build_run: Callable[..., Run]
) -> None:
    for kind in ("specificity", "lens"):
        save_measurement(Measurement(kind, FOUND[kind]), runs / "measurements" / f"{kind}-1.json")
    for seed in range(3):
        save_run(build_run(seed=seed), runs / f"run-{seed}")
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/knowledge")
    point = page.locator(".js-plotly-plot .scatterlayer .points path").first
    point.wait_for(timeout=QUICK)
    # The layer that catches the pointer lies over the points: the mouse goes to the place.
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(re.compile(r"[?&]component="), timeout=QUICK)
    # Escaped text holds an invisible joiner behind its dots.
    name = re.compile(read_link(page, "component").replace(".", r"\.\W?"))
    page.get_by_role("heading", name=name).wait_for(timeout=QUICK)

    page.get_by_role("radio", name="Shared core").or_(page.get_by_role("button", name="Shared core")).first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"[?&]section=core"), timeout=QUICK)
    page.goto(f"{base}/knowledge?section=core&runs=run-0,run-1,run-2")
    nodes = page.locator(".node:not(.fixed)")
    nodes.first.wait_for(timeout=QUICK)
    nodes.first.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"is in (all 3|\d of 3)")).wait_for(timeout=QUICK)
    page.go_back()
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_runs_are_renamed_compared_deleted_and_restored(
    base: str, browser: Any, witness: Any, runs: Path, build_run: Callable[..., Run]
) -> None:
    for seed in range(3):
        save_run(build_run(seed=seed), runs / f"run-{seed}")
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/runs")
    page.get_by_text("3 of 3 runs").wait_for(timeout=QUICK)
    rename = page.get_by_role("tab", name="Rename")
    tick_row(page, 0, rename)
    rename.click(timeout=QUICK)
    field = page.get_by_label("New name")
    field.fill("renamed")
    field.press("Enter")
    page.get_by_text("Renamed to renamed").wait_for(timeout=QUICK)
    assert (runs / "renamed" / "run.json").is_file()

    page.get_by_label("Search", exact=True).fill("renamed")
    page.get_by_label("Search", exact=True).press("Enter")
    page.get_by_text("1 of 3 runs").wait_for(timeout=QUICK)
    export = page.get_by_role("tab", name="Export")
    tick_row(page, 0, export)
    export.click(timeout=QUICK)
    with page.expect_download(timeout=QUICK) as download:
        page.get_by_role("button", name="Whole run (zip)").click()
    assert download.value.suggested_filename == "renamed.zip"
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Move to the trash").click(timeout=QUICK)
    page.get_by_text("1 moved to the trash").wait_for(timeout=QUICK)
    assert not (runs / "renamed").exists()
    # A click is lost while the page is drawn anew.
    wait_for_rest(page)
    page.get_by_text("Trash (1)").click()
    page.get_by_role("button", name="Restore").click(timeout=QUICK)
    page.get_by_text("Restored as renamed").wait_for(timeout=QUICK)
    assert (runs / "renamed" / "run.json").is_file()

    page.get_by_label("Search", exact=True).fill("run-")
    page.get_by_label("Search", exact=True).press("Enter")
    page.get_by_text("2 of 3 runs").wait_for(timeout=QUICK)
    tick_row(page, 0, page.locator("button:enabled", has_text="Open"))
    # While the page is drawn anew the old button stands beside the new one.
    compare = page.locator("button:enabled", has_text="Compare")
    tick_row(page, 1, compare)
    compare.first.click(timeout=QUICK)
    page.wait_for_url(re.compile(r"/circuit\?"), timeout=QUICK)
    assert read_link(page, "run") and read_link(page, "with") and "renamed" not in page.url
    assert not witness.problems
