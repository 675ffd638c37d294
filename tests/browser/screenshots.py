"""The documentation's screenshots, made from the running app: `make screenshots` writes them to docs/images.

The shipped model answers and traces the tour's fact as a reader would have it do, with the settings that the page
starts with. A page that cannot be opened ends the script with an error; nothing is drawn by hand.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

from tests.browser.driving import wait_or_tell
from tests.browser.server import find_chromium, open_chromium, serve
from workbench.library import read_shipped_facts
from workbench.views.tour import pick_fact

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
VIEW = {"width": 1400, "height": 1000}
PATIENCE = 600_000.0
NODES = ".node:not(.fixed)"


def settle(page: Any) -> None:
    """Wait until the script behind the page has ended and nothing moves any more."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=PATIENCE)
    page.wait_for_timeout(1_500)


def shoot(page: Any, folder: Path, name: str, most: int = 0) -> None:
    """Write one picture of the page: what a window shows, or as much of it as so many pixels of height hold."""
    settle(page)
    page.mouse.move(0, 0)
    if most:
        height = page.locator("[data-testid=stMainBlockContainer]").bounding_box()["height"]
        page.set_viewport_size({"width": VIEW["width"], "height": min(int(height) + 80, most)})
        settle(page)
    page.screenshot(path=folder / f"{name}.png", animations="disabled")
    page.set_viewport_size(VIEW)
    print(folder / f"{name}.png")


def visit(page: Any, base: str, folder: Path) -> None:
    """From the first page to a circuit, as the tour goes."""
    page.goto(f"{base}/?tour=1&fact={pick_fact(read_shipped_facts())}")
    page.get_by_text("Tour, step 1").wait_for(timeout=PATIENCE)
    shoot(page, folder, "tour")
    page.get_by_role("button", name="End the tour").click()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("heading", name="What comes after").wait_for(timeout=PATIENCE)
    shoot(page, folder, "ask", most=2400)
    page.get_by_role("button", name="Trace", exact=True).click()
    page.wait_for_url(re.compile(r"/circuit\?.*run="), timeout=PATIENCE)
    page.locator(NODES).first.wait_for(timeout=PATIENCE)
    choose_node(page)
    shoot(page, folder, "circuit", most=1360)
    page.emulate_media(color_scheme="dark")
    shoot(page, folder, "circuit-dark", most=1360)
    page.emulate_media(color_scheme="light")
    page.goto(f"{base}/runs")
    page.locator("canvas").first.wait_for(timeout=PATIENCE)
    shoot(page, folder, "runs")


def visit_knowledge(page: Any, base: str, folder: Path) -> None:
    """What a page each says of the tour's fact, of components over several facts, and of places."""
    page.goto(f"{base}/memory?fact={pick_fact(read_shipped_facts())}")
    page.get_by_role("button", name="Divide", exact=True).click()
    wait_or_tell(page, page.get_by_text("All rows add up to"), PATIENCE)
    shoot(page, folder, "memory", most=1800)
    page.goto(f"{base}/knowledge")
    page.get_by_text("Measure anew", exact=True).click()
    page.get_by_role("button", name="Measure", exact=True).click()
    wait_or_tell(page, page.locator(".js-plotly-plot .scatterlayer .points path").first, PATIENCE)
    shoot(page, folder, "knowledge", most=1800)
    page.goto(f"{base}/placement?view=Cost+against+usage")
    page.locator(".js-plotly-plot").first.wait_for(timeout=PATIENCE)
    shoot(page, folder, "placement", most=1600)


def choose_node(page: Any) -> None:
    """Select a head that reads explicit memory, or the first node where there is none."""
    reading = page.locator(f'{NODES}[aria-label*="reading explicit memory"]')
    (reading if reading.count() else page.locator(NODES)).first.click()


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to (default: docs/images)")
    options = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("no Chromium on this machine: install the package chromium")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with serve(folder, folder / "runs") as (base, _), open_chromium(chromium) as browser:
            page = browser.new_page(viewport=VIEW)
            visit(page, base, options.out)
            visit_knowledge(page, base, options.out)


if __name__ == "__main__":
    main()
