"""From a link to a saved run to its picture, cold and warm: `PYTHONPATH=. python benchmarks/interface_start.py`.

A synthetic run of some hundred edges is saved, the server started, and its link opened in a headless Chromium as soon
as the server answers. *Cold* is the first page of a new server in a new browser; *again* is the same link in another
window of both. A page is there when the graph's first node can be clicked. Wanted: 2 s, and no torch in the server.
Seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.browser.server import find_chromium, open_chromium, serve
from tests.conftest import make_run
from workbench.runs import save_run

NODE, PATIENCE = ".node:not(.fixed)", 120_000.0
VIEW = {"width": 1500, "height": 1300}


def time_view(browser: Any, link: str, wanted: str) -> float:
    """Seconds from asking for a link in a window of its own until what is wanted is there."""
    page = browser.new_context(viewport=VIEW).new_page()
    began = time.perf_counter()
    page.goto(link, wait_until="commit")
    page.locator(wanted).first.wait_for(timeout=PATIENCE)
    taken = time.perf_counter() - began
    page.context.close()
    return taken


def loads_torch(process: int) -> bool:
    """Whether a process of this machine has torch's library in its memory (Linux)."""
    return "libtorch" in Path(f"/proc/{process}/maps").read_text()


def measure(chromium: str) -> tuple[dict[str, float], bool]:
    """Seconds of one server and browser, and whether torch was loaded meanwhile."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_run(make_run(edges=300), folder / "runs" / "saved")
        began = time.perf_counter()
        with serve(folder, folder / "runs") as (base, process):
            up = time.perf_counter() - began
            with open_chromium(chromium) as browser:
                link = f"{base}/circuit?run=saved"
                views = {"cold": time_view(browser, link, NODE), "again": time_view(browser, link, NODE)}
            return {"server up": up, **views}, loads_torch(process)


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("no Chromium on this machine: install the package chromium")
    found = [measure(chromium) for _ in range(options.repeats)]
    for name in found[0][0]:
        values = sorted(times[name] for times, _ in found)
        print(f"{name:10} {statistics.median(values):.2f} s  ({values[0]:.2f} to {values[-1]:.2f}, n = {len(values)})")
    print(f"torch in the server: {'yes' if any(torch for _, torch in found) else 'no'}")


if __name__ == "__main__":
    main()
