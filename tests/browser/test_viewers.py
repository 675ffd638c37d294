"""Our exports in the viewers of other projects, circuit-tracer's and Mermaid, where `make viewers` fetched them.

Everything in the file is drawn, nothing is complained of or asked of the network, and no text becomes markup.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.viewers import HASHES, MERMAID, answer_scripts, is_there, read_script, serve_graphs
from tests.hostile import LOTS, make_hostile
from workbench.exports import EXPORTS
from workbench.formats.attribution_graph import write_attribution_files
from workbench.runs import Run
from workbench.views.curation import Curation, Group
from workbench.views.drawing import View

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not all(map(is_there, HASHES)), reason="not fetched: `make viewers` does, from PyPI and npm"),
]
MARKUP = "<img src=x onerror=window.hostile=1>"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for what is unpacked once."""
    return tmp_path_factory.mktemp("unpacked")


@pytest.fixture(params=[None, *LOTS], ids=["plain", *(f"lot {place}" for place in range(len(LOTS)))])
def told(request: pytest.FixtureRequest, build_run: Callable[..., Run]) -> Run:
    """A run of plain tokens, and runs of hostile ones."""
    if request.param is None:
        return build_run(edges=60)
    texts = list(request.param)
    run = make_hostile(build_run(tokens=texts, edges=60), texts)
    run.about["pairs"][0] |= {"clean_tokens": texts, "clean": texts[0], "answer": texts[1]}
    return run


def arrange(run: Run) -> View:
    """A view with a pinned node, a supernode and a name of one's own; texts with marks that could mislead."""
    first, second, third, *_ = [node.id for node in run.circuit.nodes if node.id.startswith(("a", "m"))]
    group = Group("group:1", f"50% of it, {MARKUP}", (second, third))
    return View(curation=Curation(pinned=(first,), groups=(group,), names=((first, f'"named" 100%2C {MARKUP}'),)))


@pytest.fixture
def heard(browser: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page, and what it complained of."""
    page, said = browser.new_page(viewport={"width": 1500, "height": 1000}), list[str]()
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    yield page, said
    page.close()


def test_circuit_tracer_opens_an_attribution_graph(
    heard: tuple[Any, list[str]], told: Run, tmp_path: Path, unpacked: Path
) -> None:
    """Each node is drawn and can be pointed at, a click lists its links; pins and supernodes have their names."""
    (page, said), files, asked = heard, write_attribution_files(told, "fact", arrange(told)), list[str]()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    graph = json.loads(files["fact.json"])
    with serve_graphs(tmp_path, unpacked) as base:
        answer_scripts(page, base, asked)
        page.goto(f"{base}/index.html{files['fact.query.txt'].decode().strip()}")
        page.wait_for_selector(".subgraph .node-text-container, .subgraph .supernode-container")
        nodes = page.locator(".link-graph text.node")
        assert nodes.count() == len(graph["nodes"])
        boxes = nodes.evaluate_all("found => found.map(one => one.getBoundingClientRect()).map(r => [r.x, r.y])")
        for x, y in boxes:
            page.mouse.move(x + 3, y + 5)
        words = page.locator(".subgraph").inner_text()
        assert page.evaluate("window.hostile ?? null") is None
        for name in ("50% of it, ", '"named" 100%2C '):
            assert name in words
        # It lists what has a weight.
        ends = Counter(link[end] for link in graph["links"] if link["weight"] for end in ("source", "target"))
        ((target, count),) = ends.most_common(1)
        page.goto(f"{base}/index.html?slug=fact&clickedId={target}")
        page.wait_for_selector(".node-connections .feature-row")
        assert page.locator(".node-connections .feature-row").count() == count
        assert page.evaluate("window.hostile ?? null") is None
    assert (said, asked) == ([], [])


def read_labels(text: str) -> dict[str, str]:
    """What each node of a flowchart of ours is to show."""
    found = re.findall(r'^  (n\d+)\["(.*)"\]$', text, re.MULTILINE)
    return {name: re.sub(r"#(\d+);", lambda match: chr(int(match[1])), label) for name, label in found}


DRAW = """async ([text, level]) => {
  mermaid.initialize({startOnLoad: false, securityLevel: level});
  await mermaid.parse(text);
  const {svg} = await mermaid.render("drawing", text);
  document.body.innerHTML = svg;
  const nodes = [...document.querySelectorAll("g.node")].map(one => [one.id.split("-").at(-2), one.textContent]);
  return [nodes, document.querySelectorAll("path.flowchart-link").length,
          document.body.querySelectorAll("script, img, iframe, a").length, window.hostile ?? null];
}"""


@pytest.mark.parametrize("level", ["strict", "loose"])
def test_mermaid_draws_what_we_wrote(heard: tuple[Any, list[str]], told: Run, level: str) -> None:
    """Mermaid's own parser takes the flowchart; every label is the text it was made of, every edge a line."""
    page, said = heard
    text, asked = EXPORTS["mermaid"].write(told).decode(), list[str]()
    answer_scripts(page, "about:", asked)
    page.add_script_tag(content=read_script(*MERMAID).decode())
    drawn, lines, marked, hostile = page.evaluate(DRAW, [text, level])
    shown = {name: " ".join(label.split()) for name, label in drawn}
    assert shown == {name: " ".join(label.split()) for name, label in read_labels(text).items()}
    assert lines == text.count("-->") + text.count("-.->")
    assert (marked, hostile, said, asked) == (0, None, [], [])
