"""Memory and Placement in a real browser, by mouse and keyboard: divide, block, write, reopen; places and moves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import read_link, wait_or_tell, write_places
from tests.studies import HOSTILE, make_study
from workbench.library import read_shipped_facts
from workbench.studies import load_study, save_study

PATIENCE = 240_000.0
QUICK = 60_000.0
VIEW = {"width": 1500, "height": 1500}


def press_key(page: Any, role: str, name: str, key: str = "Enter") -> None:
    """Bring the focus to a control and press a key."""
    # The slider's own input is out of sight behind what is drawn of it.
    slider = page.get_by_test_id("stSlider").filter(has_text=name).locator("input[type=range]")
    control = slider if role == "slider" else page.get_by_role(role, name=name, exact=True)
    control.wait_for(state="attached", timeout=QUICK)
    control.focus()
    page.keyboard.press(key)


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_saved_study_opens_by_link_and_by_keyboard(base: str, browser: Any, witness: Any, runs: Path) -> None:
    """Without a model: waterfall and parts, what was read, the path, what can be blocked; hostile text stays text."""
    save_study(make_study("norland.ledger"), runs)
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/memory?study=norland.ledger")
    page.get_by_text("All rows add up to").wait_for(timeout=QUICK)
    page.locator(".js-plotly-plot .waterfalllayer .point").first.wait_for(timeout=QUICK)
    page.get_by_text("memory 1: x1.h0.b0.s2").first.wait_for(timeout=QUICK)
    press_key(page, "slider", "Parts shown of each place", "Home")
    page.get_by_text("memory 1: explicit memory").first.wait_for(timeout=QUICK)
    press_key(page, "radio", "What was read")
    page.get_by_text("Kept tokens are outlined").wait_for(timeout=QUICK)
    page.locator(".token.kept").first.wait_for(timeout=QUICK)
    assert page.locator(".token", has_text=HOSTILE).count() == 1
    press_key(page, "radio", "Cluster path")
    page.get_by_text("Siblings share a parent").wait_for(timeout=QUICK)
    press_key(page, "radio", "Block and ask again")
    page.wait_for_url(re.compile("section=Block"), timeout=QUICK)
    page.get_by_text("block memory 1").click()
    page.get_by_text("Chosen: without memory 1").wait_for(timeout=QUICK)
    again = witness.watch(browser.new_page(viewport=VIEW))
    again.goto(page.url)
    again.get_by_text("Chosen: everything on").wait_for(timeout=QUICK)
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(900)
def test_divide_block_write_and_reopen(base: str, browser: Any, witness: Any, runs: Path) -> None:
    """A fact that was never seen is divided, loses its memory, and a new one is written and answered."""
    fact = next(fact for fact in read_shipped_facts() if fact.split == "never-seen" and fact.document)
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/memory?fact={fact.id}")
    page.get_by_role("button", name="Divide", exact=True).click(timeout=QUICK)
    wait_or_tell(page, page.get_by_text("All rows add up to"), PATIENCE)
    name = read_link(page, "study")
    study = load_study(name, runs)
    assert study.ledgers[0].total == pytest.approx(study.ledgers[0].margin, abs=1e-9)
    press_key(page, "radio", "Block and ask again")
    page.wait_for_url(re.compile("section=Block"), timeout=QUICK)
    page.get_by_text("block memory 1").click()
    page.get_by_text("Chosen: without memory 1").wait_for(timeout=QUICK)
    press_key(page, "button", "Ask again")
    wait_or_tell(page, page.get_by_text("asked already"), PATIENCE)
    answers = load_study(name, runs).answers
    assert [one.name for one in answers] == ["everything on", "without memory 1"]

    page.goto(f"{base}/memory")
    page.get_by_role("radio", name="Write a new fact").click(timeout=QUICK)
    page.get_by_role("button", name="Fill in an example").click(timeout=QUICK)
    write = page.get_by_role("button", name="Write and ask")
    page.wait_for_function(
        "() => [...document.querySelectorAll('textarea')].some(one => one.value.length > 10)", timeout=QUICK
    )
    write.click(timeout=QUICK)
    wait_or_tell(page, page.get_by_text("Written into explicit memory"), PATIENCE)
    written = load_study(read_link(page, "study"), runs)
    assert len(written.answers) == 3 and (runs / written.about["written"]["bank"] / "memory.json").is_file()
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_places_costs_and_a_selection(base: str, browser: Any, witness: Any, runs: Path) -> None:
    """A measured table opens by link; views change by keyboard, a row is selected by mouse, a slider moves by key."""
    write_places(runs / "measured")
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/placement?measured=measured")
    page.get_by_text("Saving, if moved now").wait_for(timeout=QUICK)
    page.locator(".js-plotly-plot .sankey-node").first.wait_for(timeout=QUICK)
    press_key(page, "radio", "Cost against usage")
    page.get_by_text("explicit memory cheapest").first.wait_for(timeout=QUICK)
    page.get_by_role("radio", name="Move a selection").click()
    page.get_by_text(re.compile("^Moving all")).wait_for(timeout=QUICK)
    canvas = page.locator("[data-testid=stDataFrame] canvas").first
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 52)
    page.get_by_text("Moving the 1 selected facts").wait_for(timeout=QUICK)
    press_key(page, "radio", "Tiers of storage")
    page.get_by_text("Wait without a cache").wait_for(timeout=QUICK)
    assert read_link(page, "view") == "Tiers of storage"
    waits = page.get_by_test_id("stMetric").filter(has_text="Wait without a cache").get_by_test_id("stMetricValue")
    before = waits.inner_text()
    press_key(page, "slider", "Latency, µs", "End")
    page.wait_for_function(
        "before => ![...document.querySelectorAll('[data-testid=stMetricValue]')].some(e => e.innerText === before)",
        arg=before,
        timeout=QUICK,
    )
    assert not witness.problems
