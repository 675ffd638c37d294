"""The guided tour, walked by mouse with the shipped model: every step shows what it promises."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.browser.driving import read_link, wait_for_rest, wait_or_tell
from workbench.library import read_shipped_facts
from workbench.views.tour import STEPS

PATIENCE = 240_000.0
QUICK = 60_000.0
VIEW = {"width": 1500, "height": 1300}
NODES = ".node:not(.fixed)"


def arrive(page: Any, number: int) -> None:
    """Wait for a step and its page."""
    page.get_by_text(f"Tour, step {number} of {len(STEPS)}: {STEPS[number - 1].title}").wait_for(timeout=QUICK)
    wait_for_rest(page)


def go_on(page: Any, number: int) -> None:
    """Press Next, which leads to a step."""
    page.get_by_role("button", name="Next", exact=True).click(timeout=QUICK)
    arrive(page, number)


@pytest.mark.browser
@pytest.mark.timeout(900)
def test_every_step_shows_what_it_promises(base: str, browser: Any, witness: Any) -> None:
    page = witness.watch(browser.new_page(viewport=VIEW))
    began = time.perf_counter()
    page.goto(base)
    page.get_by_role("button", name="Take the three-minute tour").click(timeout=QUICK)
    arrive(page, 1)
    (chosen,) = (fact for fact in read_shipped_facts() if fact.id == read_link(page, "fact"))
    assert chosen.split == "never-seen"
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_or_tell(page, page.get_by_role("heading", name="What comes after"), PATIENCE)

    go_on(page, 2)
    for title in ("Parameters alone", "With memory bank", "With explicit memory", "With text"):
        page.locator("strong", has_text=title).first.wait_for(timeout=QUICK)

    go_on(page, 3)
    page.get_by_role("button", name="Trace", exact=True).click()
    wait_or_tell(page, page.locator(NODES).first, PATIENCE)
    page.wait_for_url(re.compile(r"/circuit\?.*run="), timeout=QUICK)
    wait_for_rest(page)

    go_on(page, 4)
    diamonds = page.locator(f'{NODES}[aria-label*="reading explicit memory"]')
    diamonds.first.click(timeout=QUICK)
    page.locator(".strip").first.wait_for(timeout=QUICK)

    go_on(page, 5)
    page.get_by_text("Faithfulness, normalised").first.wait_for(timeout=QUICK)
    check = page.get_by_role("button", name="Check exactly").first
    check.click(timeout=QUICK)
    wait_or_tell(page, page.get_by_test_id("stMetricLabel").filter(has_text=re.compile("^Exact$")), PATIENCE)
    wait_for_rest(page)

    go_on(page, 6)
    page.get_by_role("button", name="Divide", exact=True).click(timeout=QUICK)
    wait_or_tell(page, page.get_by_text("All rows add up to"), PATIENCE)
    assert page.get_by_role("radio", name="Block and ask again").count() == 1
    page.get_by_text("What was read", exact=True).last.click(timeout=QUICK)
    page.locator(".strip").first.wait_for(timeout=QUICK)

    go_on(page, 7)
    page.locator("canvas").first.wait_for(timeout=QUICK)
    page.get_by_role("button", name="End the tour").click(timeout=QUICK)
    page.get_by_text(re.compile("^Tour, step")).wait_for(state="detached", timeout=QUICK)
    assert not witness.problems
    print(f"the tour, walked by a script: {time.perf_counter() - began:.1f} s")
