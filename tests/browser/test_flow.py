"""The whole flow in a real browser: ask a shipped fact, trace it, click nodes, follow a link, download the figure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from workbench.runs import Run, load_run, save_run

PATIENCE = 240_000.0
QUICK = 60_000.0
VIEW = {"width": 1500, "height": 1300}


def read_link(page: Any, name: str) -> str:
    """A parameter of the page's address."""
    return parse_qs(urlsplit(page.url).query).get(name, [""])[0]


def choose_first_fact(page: Any) -> None:
    """Select the first row of the table, which is drawn on a canvas."""
    page.get_by_text("Select a row to choose one").wait_for(timeout=QUICK)
    canvas = page.locator("[data-testid=stDataFrame] canvas").first
    canvas.wait_for(timeout=QUICK)
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 52)
    page.wait_for_url(re.compile(r"[?&]fact="), timeout=QUICK)


def wait_or_tell(page: Any, wanted: Any) -> None:
    """Wait for something that the model must work for; fail with the page's error when it shows one instead."""
    message = page.get_by_test_id("stAlertContentError").filter(has_text=re.compile("."))
    wanted.or_(message).first.wait_for(timeout=PATIENCE)
    assert wanted.count(), message.first.inner_text()


def select(page: Any, node: Any) -> str:
    """Click a node and wait until the link names it."""
    name = node.get_attribute("data-id")
    node.click()
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query).get("node") == [name], timeout=QUICK)
    return str(name)


@pytest.mark.browser
@pytest.mark.timeout(900)
def test_ask_trace_click_link_download(base: str, browser: Any, witness: Any, runs: Path, tmp_path: Path) -> None:
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(base)
    choose_first_fact(page)
    page.get_by_role("button", name="Ask", exact=True).click(timeout=QUICK)
    wait_or_tell(page, page.get_by_role("heading", name="What comes after"))
    for title in ("Parameters alone", "With memory bank", "With explicit memory", "With text"):
        assert page.locator("strong", has_text=title).count() == 1
    page.get_by_text("The prompt as tokens").click()
    page.get_by_text(re.compile(r"^·is #\d+$")).first.wait_for(timeout=QUICK)
    page.get_by_text("Logit lens: what the stream predicts at every layer").click()
    page.get_by_role("button", name="Read the layers").click(timeout=QUICK)
    wait_or_tell(page, page.get_by_text("Logit lens, n = 1 prompt"))
    page.get_by_role("button", name="Trace", exact=True).click()
    nodes = page.locator(".node:not(.fixed)")
    wait_or_tell(page, nodes.first)
    page.wait_for_url(re.compile(r"/circuit\?.*run="), timeout=QUICK)
    (run,) = [load_run(path) for path in runs.iterdir()]
    assert read_link(page, "run") == next(runs.iterdir()).name
    clicked = select(page, nodes.nth(3))
    page.get_by_role("button", name="Check exactly").first.wait_for(timeout=QUICK)
    assert run.circuit.find_node(clicked) is not None

    page.locator(f'.node[data-id="{clicked}"]').focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Output logits").wait_for(timeout=QUICK)

    again = witness.watch(browser.new_page(viewport=VIEW))
    again.goto(page.url)
    again.get_by_role("heading", name="Output logits").wait_for(timeout=QUICK)
    again.locator(".node.chosen").wait_for(timeout=QUICK)
    assert again.locator(".node.chosen").get_attribute("data-id") == read_link(page, "node")

    again.get_by_role("tab", name="Download and replay").click()
    with again.expect_download(timeout=QUICK) as download:
        again.get_by_role("button", name="Figure as shown (SVG)").click()
    path = tmp_path / "figure.svg"
    download.value.save_as(path)
    texts = [element.text or "" for element in ElementTree.parse(path).iter()]
    assert any("One of many" in text for text in texts)
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_saved_run_opens_by_link_and_by_keyboard(base: str, browser: Any, witness: Any, runs: Path, run: Run) -> None:
    save_run(run, runs / "norland")
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/circuit?run=norland&edges=20")
    nodes = page.locator(".node:not(.fixed)")
    nodes.first.wait_for(timeout=QUICK)
    page.get_by_text("Showing 20 of 30 edges").wait_for(timeout=QUICK)
    first = select(page, nodes.first)
    page.locator(f'.node[data-id="{first}"]').focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query).get("node") not in (None, [first]), timeout=QUICK)
    page.go_back()
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query).get("node") == [first], timeout=QUICK)
    page.locator(f'.node.chosen[data-id="{first}"]').wait_for(timeout=QUICK)
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_zoom_survives_a_selection_and_pins_stay(base: str, browser: Any, witness: Any, runs: Path, run: Run) -> None:
    save_run(run, runs / "norland")
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/circuit?run=norland")
    nodes = page.locator(".node:not(.fixed)")
    nodes.first.wait_for(timeout=QUICK)
    page.get_by_role("button", name="Zoom in").click()
    view = page.locator("svg.picture").get_attribute("viewBox")
    select(page, nodes.nth(5))
    page.get_by_role("button", name="Check exactly").first.wait_for(timeout=QUICK)
    assert page.locator("svg.picture").get_attribute("viewBox") == view
    nodes.nth(6).click(modifiers=["Control"])
    page.locator(".node.pinned").wait_for(timeout=QUICK)
    select(page, nodes.nth(4))
    page.locator(".node.pinned").wait_for(timeout=QUICK)
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_bad_link_is_told_in_the_page(base: str, browser: Any, witness: Any, runs: Path, run: Run) -> None:
    save_run(run, runs / "norland")
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/circuit?run=../../etc&node=%3Cimg%20src=x%3E")
    page.get_by_text("there is no saved run").wait_for(timeout=QUICK)
    assert not witness.problems
