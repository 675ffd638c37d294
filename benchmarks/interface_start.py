"""From a link to a saved run to its picture, cold and warm: `PYTHONPATH=. python benchmarks/interface_start.py`.

A synthetic run of some hundred edges is saved, the server started, and its link opened in a headless Chromium as soon
as the server answers. *Cold* is the first page of a new server in a new browser; *again* is the same link in another
window of both. A page is there when the graph's first node can be clicked. Wanted: 2 s, and no torch in the server.

Two shares of it: *connected* is when Streamlit's own page has loaded and asks for its first message, before any of this
project's code has run; *received* when the server had sent the last message of the page. What is left is the browser,
which fetches and draws the elements. *CPU* is what the server worked for it. Seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import os
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


# Notes when the page's websocket opens and when it last brought a message, in ms since the link was followed.
WATCH = """const Plain = window.WebSocket;
window.WebSocket = class extends Plain {
  constructor(...given) {
    super(...given);
    this.addEventListener('open', () => window.connected = performance.now());
    this.addEventListener('message', () => window.received = performance.now());
  }
};"""


def read_cpu(process: int) -> float:
    """Seconds of CPU that a process has had (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def time_view(browser: Any, link: str, server: int) -> dict[str, float]:
    """Seconds from asking for a link in a window of its own until the graph is there, and its shares."""
    page = browser.new_context(viewport=VIEW).new_page()
    page.add_init_script(WATCH)
    began, before = time.perf_counter(), read_cpu(server)
    page.goto(link, wait_until="commit")
    page.locator(NODE).first.wait_for(timeout=PATIENCE)
    taken = time.perf_counter() - began
    shares = {name: page.evaluate(f"window.{name}") / 1000 for name in ("connected", "received")}
    page.context.close()
    return {"": taken, **shares, "CPU": read_cpu(server) - before}


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
                views = {name: time_view(browser, link, process) for name in ("cold", "again")}
            named = {f"{name} {part}".strip(): value for name, parts in views.items() for part, value in parts.items()}
            return {"server up": up, **named}, loads_torch(process)


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("no Chromium on this machine: install the package chromium")
    found = [measure(chromium) for _ in range(options.repeats)]
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name in found[0][0]:
        values = sorted(times[name] for times, _ in found)
        print(f"{name:15} {statistics.median(values):.2f} s  ({values[0]:.2f} to {values[-1]:.2f}, n = {len(values)})")
    print(f"torch in the server: {'yes' if any(torch for _, torch in found) else 'no'}")


if __name__ == "__main__":
    main()
