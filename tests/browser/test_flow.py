"""The whole flow in a real browser: ask a shipped fact, trace it, click nodes, follow a link, download the figure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from tests.browser.driving import read_link, wait_for_rest, wait_or_tell
from workbench.runs import Run, load_run, save_run
from workbench.views.tour import STEPS

PATIENCE = 240_000.0
QUICK = 60_000.0
VIEW = {"width": 1500, "height": 1300}


def choose_first_fact(page: Any) -> None:
    """Select the first row of the table, which is drawn on a canvas."""
    page.get_by_text("Select a row to choose one").wait_for(timeout=QUICK)
    canvas = page.locator("[data-testid=stDataFrame] canvas").first
    canvas.wait_for(timeout=QUICK)
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 52)
    page.wait_for_url(re.compile(r"[?&]fact="), timeout=QUICK)


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
    wait_or_tell(page, page.get_by_role("heading", name="What comes after"), PATIENCE)
    for title in ("Parameters alone", "With memory bank", "With explicit memory", "With text"):
        page.locator("strong", has_text=title).first.wait_for(timeout=QUICK)
    page.get_by_text("The prompt as tokens").click()
    page.get_by_text(re.compile(r"^·is #\d+$")).first.wait_for(timeout=QUICK)
    page.get_by_text("Logit lens: what the stream predicts at every layer").click()
    page.get_by_role("button", name="Read the layers").click(timeout=QUICK)
    wait_or_tell(page, page.get_by_text("Logit lens, n = 1 prompt"), PATIENCE)
    page.get_by_role("button", name="Trace", exact=True).click()
    nodes = page.locator(".node:not(.fixed)")
    wait_or_tell(page, nodes.first, PATIENCE)
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


@pytest.mark.browser
@pytest.mark.timeout(400)
def test_a_graph_is_curated_by_mouse_and_by_keyboard(
    base: str, browser: Any, witness: Any, runs: Path, run: Run, tmp_path: Path
) -> None:
    """Pin, group, name, note, hide, undo, search, keys; saved, and opened by its link in another session."""
    save_run(run, runs / "norland")
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/circuit?run=norland&edges=20")
    heads = page.locator('.node[data-id^="a"]')
    heads.first.wait_for(timeout=QUICK)
    ids = [heads.nth(place).get_attribute("data-id") for place in range(4)]

    def find(node: str) -> Any:
        return page.locator(f'.node[data-id="{node}"]')

    # By keyboard alone, from the first node on.
    find(ids[0]).focus()
    page.keyboard.press("p")
    page.locator(f'.node.pinned[data-id="{ids[0]}"]').wait_for(timeout=QUICK)
    find(ids[1]).focus()
    page.keyboard.press("g")
    page.get_by_label("Name of the supernode").wait_for(timeout=QUICK)
    page.keyboard.type("<img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    group = find("group:1")
    group.wait_for(timeout=QUICK)
    assert find(ids[0]).count() == 0
    group.focus()
    page.keyboard.press("n")
    page.keyboard.type("</script> $y$")
    page.keyboard.press("Enter")
    page.locator('.node[data-id="group:1"] .mark').wait_for(timeout=QUICK)
    group.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Supernode of 2 nodes").wait_for(timeout=QUICK)
    find(ids[2]).focus()
    page.keyboard.press("h")
    find(ids[2]).wait_for(state="detached", timeout=QUICK)
    page.get_by_text("1 hidden").first.wait_for(timeout=QUICK)
    page.keyboard.press("Control+z")
    find(ids[2]).wait_for(timeout=QUICK)
    page.keyboard.press("Control+Shift+z")
    find(ids[2]).wait_for(state="detached", timeout=QUICK)
    page.keyboard.press("?")
    page.get_by_role("region", name="Keys").wait_for(timeout=QUICK)
    page.keyboard.press("Escape")
    page.get_by_role("region", name="Keys").wait_for(state="hidden", timeout=QUICK)
    page.keyboard.press("/")
    page.keyboard.type(ids[2])
    page.get_by_role("list", name="Nodes found").get_by_text("(hidden)").wait_for(timeout=QUICK)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query).get("node") == [ids[2]], timeout=QUICK)
    find(ids[2]).wait_for(timeout=QUICK)

    # By mouse alone.
    find(ids[3]).click(modifiers=["Control"])
    page.locator(f'.node.pinned[data-id="{ids[3]}"]').wait_for(timeout=QUICK)
    select(page, find(ids[2]))
    page.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_label("Name", exact=True).fill("mover")
    page.get_by_role("button", name="OK", exact=True).click()
    find(ids[2]).get_by_text("mover", exact=True).wait_for(timeout=QUICK)
    find(ids[2]).hover()
    assert page.locator("svg.picture.dim").count() == 1
    page.get_by_role("tab", name="Saved views").click()
    page.get_by_role("button", name="Save view").click(timeout=QUICK)
    page.wait_for_url(re.compile(r"[?&]view=[0-9a-f]{12}"), timeout=QUICK)

    again = witness.watch(browser.new_page(viewport=VIEW))
    again.goto(f"{base}/circuit?run=norland&view={read_link(page, 'view')}")
    again.locator('.node[data-id="group:1"]').get_by_text("<img").first.wait_for(timeout=QUICK)
    again.locator(f'.node.pinned[data-id="{ids[3]}"]').wait_for(timeout=QUICK)
    again.locator(f'.node[data-id="{ids[2]}"]').get_by_text("mover", exact=True).wait_for(timeout=QUICK)
    again.get_by_role("tab", name="Download and replay").click()
    with again.expect_download(timeout=QUICK) as download:
        again.get_by_role("button", name="Figure as shown (SVG)").click()
    path = tmp_path / "figure.svg"
    download.value.save_as(path)
    texts = [element.text or "" for element in ElementTree.parse(path).iter()]
    assert (
        "mover" in texts and any("<img src=x" in text for text in texts) and any("</script>" in text for text in texts)
    )
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_reload_loses_nothing_and_two_readers_keep_apart(
    base: str, browser: Any, witness: Any, runs: Path, run: Run
) -> None:
    """Pins and notes that were not saved come back; who opens the same link changes a copy; a saved view ends it."""
    save_run(run, runs / "norland")
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(f"{base}/circuit?run=norland")
    heads = page.locator('.node[data-id^="a"]')
    heads.first.wait_for(timeout=QUICK)
    ids = [heads.nth(place).get_attribute("data-id") for place in range(2)]
    page.locator(f'.node[data-id="{ids[0]}"]').focus()
    page.keyboard.press("p")
    page.get_by_text("Not saved yet").wait_for(timeout=QUICK)
    page.wait_for_url(re.compile(r"[?&]draft=[0-9a-f]{12}"), timeout=QUICK)
    page.reload()
    page.locator(f'.node.pinned[data-id="{ids[0]}"]').wait_for(timeout=QUICK)

    other = witness.watch(browser.new_page(viewport=VIEW))
    other.goto(page.url)
    other.locator(f'.node.pinned[data-id="{ids[0]}"]').wait_for(timeout=QUICK)
    other.locator(f'.node[data-id="{ids[1]}"]').focus()
    other.keyboard.press("h")
    other.get_by_text("1 hidden").first.wait_for(timeout=QUICK)
    page.reload()
    page.locator(f'.node.pinned[data-id="{ids[0]}"]').wait_for(timeout=QUICK)
    page.locator(f'.node[data-id="{ids[1]}"]').wait_for(timeout=QUICK)

    page.get_by_role("tab", name="Saved views").click()
    page.get_by_role("button", name="Save view").click(timeout=QUICK)
    page.wait_for_url(lambda url: "view=" in url and "draft=" not in url, timeout=QUICK)
    assert page.get_by_text("Not saved yet").count() == 0
    assert not witness.problems


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_every_step_of_the_tour_is_reached_by_keyboard(
    base: str, browser: Any, witness: Any, runs: Path, run: Run
) -> None:
    save_run(run, runs / "norland")
    page = witness.watch(browser.new_page(viewport=VIEW))
    page.goto(base)
    page.get_by_role("button", name="Take the three-minute tour").press("Enter", timeout=QUICK)
    for number, step in enumerate(STEPS, start=1):
        page.get_by_text(f"Tour, step {number} of {len(STEPS)}: {step.title}").wait_for(timeout=QUICK)
        page.wait_for_url(re.compile("/(\\?|$)" if step.page == "ask" else f"/{step.page}\\?"), timeout=QUICK)
        page.get_by_role("heading", level=1).first.wait_for(timeout=QUICK)
        wait_for_rest(page)
        if number < len(STEPS):
            page.get_by_role("button", name="Next", exact=True).press("Enter")
    page.get_by_role("button", name="End the tour").press("Enter")
    page.get_by_text("Tour, step").wait_for(state="detached", timeout=QUICK)
    assert not witness.problems
