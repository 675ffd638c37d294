"""Hostile text on every page of a real browser: as prompt, token, label, note, document, memory, name of a file.

Nothing of it runs, asks another host for anything, or makes the console complain; and it is there to be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.driving import wait_for_rest
from tests.browser.server import Witness
from tests.hostile import HALF, HOSTILE, LOTS, make_hostile, taint, taint_words
from tests.pages.measured import FOUND
from tests.studies import make_study
from tests.sweep_tables import list_rows, write_parts
from workbench.ledgers.bulk import COLUMNS, HEAD
from workbench.library import read_shipped_facts
from workbench.measurements import Measurement, save_measurement
from workbench.runs import Run, save_run
from workbench.studies import find_studies, load_study, save_study
from workbench.sweeps.parts import encode_rows
from workbench.view_files import SavedView, save_view
from workbench.views.curation import LONGEST_NAME, Curation, Group

QUICK = 60_000.0
VIEW = {"width": 1500, "height": 1300}
NODES, PLOT, TABLE = ".node:not(.fixed)", ".js-plotly-plot .main-svg", "[data-testid=stDataFrame] canvas"
TEXTS = [text for text in HOSTILE.values() if text != HALF]
# What a file system takes for a name; a link names it percent-encoded.
NAME = '<img src=x onerror="window.hostile=1">&lt;b&gt; **b** $y$ :red[z]'
# What people wrote, in the files of a study and of measured components.
WRITTEN = ("entry", "source", "said", "prompt", "answer", "text", "reason", "tokens", "document", "siblings", "blocks")
FREE = ("strongest", "example", "text", "prompt", "counterfactual", "tokens", "best", "answer", "reason", "fact")

# Every page by its link, and what is there when its content is.
PAGES = {
    "/": TABLE,
    "/circuit?run=hostile-0&node=NODE&view=VIEW&edges=60": NODES,
    "/circuit?run=hostile-1&edges=60": NODES,
    "/circuit?run=hostile-2&edges=60&with=hostile-3": NODES,
    "/circuit?run=hostile-3&edges=60": NODES,
    "/circuit?run=NAME": NODES,
    "/circuit?run=TEXT&node=TEXT&edges=TEXT&tour=TEXT&job=TEXT&view=TEXT&draft=TEXT": "[data-testid=stAlert]",
    "/memory?study=hostile": PLOT,
    "/memory?study=hostile&section=What+was+read": ".token",
    "/memory?study=hostile&section=Cluster+path": TABLE,
    "/memory?study=hostile&section=Block+and+ask+again": "[data-testid=stCheckbox]",
    "/memory?study=conflict": PLOT,
    "/memory?study=writing": PLOT,
    **{f"/knowledge?section={kind}": f"{PLOT}, {TABLE}" for kind in ("components", *FOUND) if kind != "specificity"},
    "/knowledge?section=core&runs=NAME,NAME 2": NODES,
    "/placement?measured=hostile": PLOT,
    "/placement?measured=hostile&view=Move+a+selection": TABLE,
    "/runs": TABLE,
    "/sweeps": PLOT,
}

# Of every lot of hostile texts; and pages that show none as text: their tables are drawn on a canvas.
MARKS = ("window.hostile", "hostile.invalid", "write18", "alert(1)")
DRAWN = {
    "/",
    "/runs",
    "/placement?measured=hostile",
    "/placement?measured=hostile&view=Move+a+selection",
}


def make_curation(run: Run, texts: Sequence[str]) -> Curation:
    """Names, notes and a supernode of hostile texts."""
    ids = [node.id for node in run.circuit.nodes]
    short = [text[:LONGEST_NAME] for text in texts if text.strip()]
    return Curation(
        pinned=tuple(ids[:2]),
        groups=(Group("group:1", short[0], tuple(ids[2:4])),),
        names=tuple(zip(ids[4:10], short, strict=False)),
        notes=tuple(zip(ids[:6], short[1:], strict=False)),
    )


def plant_runs(runs: Path, build_run: Callable[..., Run]) -> tuple[str, str]:
    """Runs of every text and one under a hostile name; a node and a view of the first."""
    for place, lot in enumerate(LOTS):
        texts = [text for text in lot if text != HALF]
        run = taint_words(make_hostile(build_run(tokens=texts[:8], edges=60, parts=1), texts), texts)
        save_run(run, runs / f"hostile-{place}")
        number = save_view(runs / f"hostile-{place}", SavedView(60, "", make_curation(run, texts), texts[0][:60]))
        if place == 0:
            first, view = run.circuit.nodes[0].id, number
    for seed, name in enumerate((NAME, f"{NAME} 2")):
        save_run(make_hostile(build_run(edges=20, seed=seed), TEXTS), runs / name)
    return first, view


def plant_studies(runs: Path) -> None:
    """Studies of every kind whose texts are hostile."""
    more = {
        "hostile": {},
        "conflict": {"winner": TEXTS[0], "winner_says": "text", "said": TEXTS[1], "says": ["text", "memory"]},
        "writing": {"document": "\n".join(text[:500] for text in TEXTS), "memories": TEXTS[:3], "bank": TEXTS[4]},
    }
    for name, told in more.items():
        kinds = {"conflict": ("conflict", {"conflict": told}), "writing": ("writing", {"written": told})}
        kind, about = kinds.get(name, ("ledger", {}))
        save_study(make_study(name, kind, **about), runs)
        path = find_studies(runs) / f"{name}.json"
        document = json.loads(path.read_text())
        kept = {key: document[key] for key in ("format", "question", "settings", "kind") if key in document}
        path.write_text(json.dumps(taint(document, TEXTS, WRITTEN) | kept))
        assert load_study(name, runs).references or kind != "ledger"


def plant_tables(workspace: Path) -> None:
    """A sweep and a table of measured places with hostile words, and a name of a folder that is one."""
    rows = [row for place, text in enumerate(TEXTS) for row in list_rows(f"f{place} {text}", text[:200], 1.0, "ledger")]
    for name in ("first", NAME):
        write_parts(workspace / "sweeps" / name, [[{**row, "reader": TEXTS[0]} for row in rows]])
    fact = read_shipped_facts()[0].id
    places = [{"fact": fact, "row": "format", "format": "text", "share": 1.0, "margin": 5.0, "unit": "logits"}]
    places += [{"fact": text, "row": "reason", "reason": text} for text in TEXTS]
    for name in ("hostile", NAME):
        folder = workspace / "runs" / name if name == "hostile" else workspace / "runs" / f"{name} table"
        folder.mkdir(parents=True)
        (folder / "part-000000.parquet").write_bytes(encode_rows(places, COLUMNS))
        (folder / HEAD).write_text("{}")


@pytest.fixture(scope="module")
def planted(workspace: Path, build_run: Callable[..., Run]) -> tuple[str, str]:
    """Hostile text wherever the workspace holds text; a node and a saved view of the first run."""
    runs = workspace / "runs"
    found = plant_runs(runs, build_run)
    plant_studies(runs)
    for kind, measured in FOUND.items():
        told = taint(measured, [text[:2000] for text in TEXTS], FREE)
        for name in (kind, f"{kind} {NAME}"):
            save_measurement(Measurement(kind, told, HOSTILE["html image"]), runs / "measurements" / f"{name}.json")
    plant_tables(workspace)
    return found


@pytest.mark.browser
def test_a_page_that_took_a_text_for_markup_would_be_caught(browser: Any) -> None:
    page = browser.new_page()
    witness = Witness("http://127.0.0.1")
    witness.watch(page)
    page.set_content(HOSTILE["html image"].replace("//", "http://"))
    page.wait_for_function("window.hostile === 1", timeout=QUICK)
    assert [problem for problem in witness.problems if "hostile.invalid" in problem]


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_nothing_hostile_runs_on_any_page(shared: str, browser: Any, planted: tuple[str, str]) -> None:
    witness, shown = Witness(shared), set[str]()
    page = witness.watch(browser.new_context(viewport=VIEW).new_page())
    values = dict(zip(("NODE", "VIEW"), planted, strict=True)) | {"NAME": NAME, "TEXT": HOSTILE["html image"]}
    for link, content in PAGES.items():
        address = link
        for name, value in values.items():
            address = address.replace(name, quote(value, safe=""))
        page.goto(f"{shared}{address}")
        alert = page.get_by_test_id("stAlertContentError")
        page.locator(content).first.or_(alert.first).first.wait_for(timeout=QUICK)
        assert page.locator(content).count(), (link, page.locator("body").inner_text()[:1000])
        wait_for_rest(page)
        for tab in page.get_by_role("tab").all() if NODES in content else []:
            tab.click()
            wait_for_rest(page)
        assert page.evaluate("window.hostile") is None, link
        assert not witness.problems, (link, witness.problems)
        assert page.get_by_test_id("stException").count() == 0, (link, page.get_by_test_id("stException").inner_text())
        # The joiner keeps Streamlit from making links of words.
        text = page.locator("body").inner_text().replace("\u2060", "")
        if any(mark in text for mark in MARKS):
            shown.add(link)
    assert set(PAGES) - shown <= DRAWN
