"""How fast the Circuit page answers in Chromium: `python benchmarks/interface.py`.

Made-up runs of a given number of nodes and edges, no model. Each interaction is timed inside the browser, from the key
or pointer event to the first frame in which its effect is in the page, the way through the server included where it
takes that way. Medians and largest of as many repeats. Wanted: at most 300 ms at 300 nodes and 1,000 edges.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from circuits.assembly import assemble
from circuits.circuit import EdgeScores
from circuits.graph import Kind, Plan, wire
from workbench.runs import Recording, Run, save_run
from workbench.serving import build_command
from workbench.settings import Question, Settings

PLAN, POSITIONS = Plan(layers=16, heads=16, kv_heads=4), 24

# Waits, frame by frame, until the effect is there; the clock starts at the event itself.
WATCH = """([words, ...values]) => {
  const host = [...document.querySelectorAll('*')].find((e) => e.shadowRoot?.querySelector('.picture'));
  const root = host.shadowRoot, test = new Function('root', 'values', `return ${words}`);
  let begun = null;
  for (const kind of ['keydown', 'pointerdown', 'pointerover'])
    window.addEventListener(kind, () => { begun ??= performance.now(); }, { capture: true, once: true });
  window.ended = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`nothing after 30 s: ${words}`)), 30000);
    const step = () => { if (begun !== null && test(root, values)) resolve(performance.now() - begun);
      else requestAnimationFrame(step); };
    requestAnimationFrame(step);
  });
}"""


def make_run(nodes: int, edges: int) -> Run:
    """A run whose circuit joins `nodes` nodes by `edges` edges drawn at random."""
    generator = np.random.default_rng(0)
    wiring = wire(PLAN)
    writers = {writer: index for index, writer in enumerate(wiring.writers)}
    components = [*dict.fromkeys([*wiring.writers, *(reader.component for reader in wiring.readers)])]
    places = [(c, p) for c in components if c.kind is not Kind.LOGITS for p in range(POSITIONS)]
    chosen = {places[i] for i in generator.choice(len(places), size=nodes - 1, replace=False)}
    chosen.add((next(c for c in components if c.kind is Kind.LOGITS), POSITIONS - 1))
    writes, reads = np.zeros((POSITIONS, len(writers))), np.zeros((POSITIONS, len(wiring.readers)))
    for component, position in chosen:
        if component in writers:
            writes[position, writers[component]] = 1
        reads[position, [i for i, reader in enumerate(wiring.readers) if reader.component == component]] = 1
    exists = (writes[:, :, None] * reads[:, None, :] * wiring.visible) > 0
    values = (generator.normal(size=exists.shape) * exists).astype(np.float32)
    strongest = np.argsort(-np.abs(values), axis=None)[:edges]
    mask = np.zeros(exists.shape, dtype=bool)
    mask.ravel()[strongest] = True
    scores = EdgeScores(wiring, values, values.sum(-1), "eap", "counterfactual", "logit-diff", "logits")
    pattern = np.tril(np.ones((PLAN.layers, PLAN.heads, POSITIONS, POSITIONS)))
    attention = (pattern / pattern.sum(-1, keepdims=True)).astype(np.float16)
    recording = Recording(attention, np.zeros((0,) * 5, dtype=np.float16))
    return Run(describe(edges), assemble(scores, mask, edges, attention.astype(np.float32)), scores, recording)


def describe(edges: int) -> dict[str, Any]:
    """What a run says of itself, as far as the page reads it."""
    tokens = [f" t{position}" for position in range(POSITIONS)]
    ids = list(range(POSITIONS))
    pair = {"clean": "".join(tokens), "counterfactual": "".join(tokens), "answer": " yes", "foil": " no", "spans": []}
    pair |= {
        f"{side}_{part}": value
        for side in ("clean", "counterfactual")
        for part, value in (("tokens", tokens), ("ids", ids))
    }
    pair |= {"answer_tokens": [" yes"], "foil_tokens": [" no"], "answer_ids": [1], "foil_ids": [2]}
    return {
        "question": Question(prompt=pair["clean"]).to_json(),
        "settings": Settings(edges=edges).to_json(),
        "model": {"name": "made up", "sha256": "0" * 64},
        "memories": {},
        "fact": None,
        "pairs": [pair],
        "summed": False,
        "selection": {"name": "top-n"},
        "conditions": [],
        "faithfulness": {
            "metric_whole": 1.0,
            "metric_empty": 0.0,
            "metric_circuit": 0.5,
            "normalised": 0.5,
            "unit": "logits",
        },
        "versions": {},
        "command": "",
    }


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """A server of the app over a folder of runs, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {**os.environ, "MEMORY_CIRCUITS_RUNS": str(folder)}
    server = subprocess.Popen(build_command(port), env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{base}/_stcore/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        yield base
    finally:
        server.terminate()
        server.wait(timeout=30)


class Bench:
    """One page with its graph; every method does one thing and gives the milliseconds until it shows."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.nodes = page.locator(".node:not(.fixed)")
        self.ids: list[str] = self.nodes.evaluate_all("found => found.map((node) => node.dataset.id)")

    def time(self, act: Callable[[], Any], effect: str, *values: str) -> float:
        """Milliseconds from the event that `act` makes to its effect, a condition on `root` and `values`."""
        self.page.evaluate(WATCH, [effect, *values])
        act()
        return float(self.page.evaluate("window.ended"))

    def focus(self, place: int) -> str:
        """Move the keyboard to a node."""
        node = self.ids[place % len(self.ids)]
        self.page.locator(f'.node[data-id="{node}"]').focus()
        return node

    def hover(self, place: int) -> float:
        """Its neighbours light up."""
        node = self.ids[(7 * place) % len(self.ids)]
        self.page.mouse.move(3, 3)
        box = self.page.locator(f'.node[data-id="{node}"]').bounding_box()
        there = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        return self.time(lambda: self.page.mouse.move(*there), "root.querySelector('.picture.dim .node.near')")

    def walk(self, place: int) -> float:
        """The next node has the keyboard."""
        node = self.focus(place)
        # One key: a second one could lead back before a frame is drawn. What is first in the list lies at the bottom
        # or the top.
        key = "ArrowUp" if self.lowest(node) else "ArrowDown"
        return self.time(lambda: self.page.keyboard.press(key), "root.activeElement?.dataset.id !== values[0]", node)

    def lowest(self, node: str) -> bool:
        """Whether no other node lies below."""
        places = "(all) => all.map((one) => [one.dataset.id, one.at.y])"
        heights: dict[str, float] = dict(self.nodes.evaluate_all(places))
        return heights[node] == max(heights.values())

    def pin(self, place: int) -> float:
        """The ring shows and the page counts the pin."""
        node = self.focus(place)
        effect = (
            'root.querySelector(`.node.pinned[data-id="${values[0]}"]`) && document.body.innerText.includes(values[1])'
        )
        took = self.time(lambda: self.page.keyboard.press("p"), effect, node, "1 pinned")
        self.page.keyboard.press("p")
        self.page.get_by_text("1 pinned").first.wait_for(state="detached")
        return took

    def select(self, place: int) -> float:
        """The panel beside the graph tells about it."""
        node = self.focus(3 * place + 1)
        return self.time(
            lambda: self.page.keyboard.press("Enter"),
            "document.body.innerText.replaceAll('\\u2060', '').includes(`${values[0]} ·`)",
            node,
        )

    def hide(self, place: int) -> float:
        """It is gone."""
        node = self.focus(place)
        gone = '!root.querySelector(`[data-id="${values[0]}"]`)'
        took = self.time(lambda: self.page.keyboard.press("h"), gone, node)
        self.page.keyboard.press("Control+z")
        self.page.locator(f'.node[data-id="{node}"]').wait_for()
        return took

    def undo(self, place: int) -> float:
        """It is back."""
        node = self.focus(place)
        self.page.keyboard.press("h")
        self.page.locator(f'.node[data-id="{node}"]').wait_for(state="detached")
        effect = 'root.querySelector(`[data-id="${values[0]}"]`)'
        return self.time(lambda: self.page.keyboard.press("Control+z"), effect, node)

    def search(self, place: int) -> float:
        """Nodes that fit are listed."""
        self.page.locator(".search").fill("")
        self.page.locator(".search").focus()
        return self.time(lambda: self.page.keyboard.press("h"), "root.querySelectorAll('.found button').length > 1")

    def slide(self, place: int) -> float:
        """One edge fewer is drawn."""
        thumb = self.page.get_by_role("slider").first
        thumb.focus()
        count = int(thumb.evaluate("(thumb) => thumb.getAttribute('aria-valuenow') ?? thumb.value"))
        drawn = "root.querySelectorAll('.lines .line:not(.move)').length === +values[1]"
        effect = f"document.body.innerText.includes(values[0]) && {drawn}"
        return self.time(
            lambda: self.page.keyboard.press("ArrowLeft"), effect, f"Showing {count - 1:,} of", str(count - 1)
        )


INTERACTIONS = ("hover", "walk", "search", "pin", "hide", "undo", "select", "slide")


def measure(browser: Any, base: str, name: str, edges: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every interaction on one run; the first of each is left out, as is the page's start."""
    page = browser.new_page(viewport={"width": 1600, "height": 1200})
    begun = time.perf_counter()
    page.goto(f"{base}/circuit?run={name}&edges={edges}")
    page.locator(".node:not(.fixed)").first.wait_for(timeout=120_000)
    found = {"first view, to the graph": [1000 * (time.perf_counter() - begun)]}
    page.wait_for_load_state("networkidle")
    bench = Bench(page)
    for kind in INTERACTIONS:
        found[kind] = [getattr(bench, kind)(place) for place in range(repeats + 1)][1:]
    page.close()
    return found


def main() -> None:
    """Print one table a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["300:1000", "2000:8000"], help="NODES:EDGES")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        for size in options.sizes:
            save_run(make_run(*map(int, size.split(":"))), folder / size.replace(":", "-"))
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        with serve(folder) as base:
            for size in options.sizes:
                nodes, edges = map(int, size.split(":"))
                found = measure(browser, base, size.replace(":", "-"), edges, options.repeats)
                print(f"\n{nodes:,} nodes, {edges:,} edges; ms, {options.repeats} repeats, Chromium {browser.version}")
                print("| interaction | median | largest |\n|---|---|---|")
                for kind, values in found.items():
                    print(f"| {kind} | {statistics.median(values):.0f} | {max(values):.0f} |", flush=True)


if __name__ == "__main__":
    main()
