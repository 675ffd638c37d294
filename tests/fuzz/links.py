"""Links to every page: each parameter that a page reads, right, changed, doubled, or something else altogether.

Pages run in this process (AppTest) in a workspace that has one of everything a link can name. A page says what is wrong
with its link in a message, which is the refusal here; an exception on the page is a fault.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from random import Random
from unittest import mock

from streamlit.logger import set_log_level
from streamlit.testing.v1 import AppTest

from pages.memory_study import LEDGER, PATH, READ, TRIALS
from probes.errors import UserError
from tests.conftest import make_run
from tests.fuzz.cases import Attempt, Read, Target
from tests.fuzz.files import make_view
from tests.fuzz.mutations import draw_value, mutate_bytes
from tests.pages.measured import FOUND
from tests.studies import make_study
from tests.sweep_tables import write_table
from workbench.drafts import save_draft
from workbench.ledgers.bulk import COLUMNS, HEAD
from workbench.measurements import Measurement, save_measurement
from workbench.runs import save_run
from workbench.studies import save_study
from workbench.sweeps.parts import encode_rows
from workbench.view_files import save_view

APP = str(files("workbench") / "app.py")
# Outside of a server it warns of every run.
set_log_level("error")
DRAFT = "0123456789ab"
# Each page's parameters with values that it takes up.
PARAMETERS: dict[str, dict[str, tuple[str, ...]]] = {
    "ask": {"fact": ("birthplace/programmer Tudan Toren",)},
    "circuit": {
        "run": ("first", "second"), "node": ("m0@1", "a0.h0@0", "logits@4", "group:1"), "edges": ("5", "999999999"),
        "view": ("VIEW",), "with": ("second",), "draft": (DRAFT,),
    },
    "memory": {"study": ("first", "conflict"), "section": (LEDGER, READ, PATH, TRIALS)},
    "knowledge": {
        "section": ("core", "components", *FOUND), "measurement": tuple(FOUND), "component": ("m1.u3", "bank 1:5"),
        "runs": ("first,second", "first", "second,,first,first"),
    },
    "placement": {
        "measured": ("table",), "view": ("Cost against usage", "Move a selection", "Tiers of storage"),
        "shape": ("Memory^3, 2.4B",), "usage-source": ("the same for all", "as a table says"), "factor": ("300", "0.5"),
        "reference": ("128",), "chunk": ("64",),
    },
    "runs": {"run": ("first",)},
    "sweeps": {"sweep": ("first",)},
}  # fmt: skip
# Of the frame, above every page; and names that no page reads.
EVERYWHERE = {"tour": ("0", "1", "3", "7"), "job": ("0123456789abcdef",), "nothing": ("x",), "embed": ("true",)}


def fill(workspace: Path) -> str:
    """One of everything that a link names; the id of the view that was saved."""
    runs = workspace / "runs"
    for place, name in enumerate(("first", "second")):
        save_run(make_run(edges=15, seed=place, parts=1), runs / name)
    view = make_view(make_run(edges=15).circuit)
    save_draft(runs / "first", DRAFT, view)
    for name in ("first", "conflict"):
        save_study(make_study(name), runs)
    for kind, found in FOUND.items():
        measured = Measurement(kind, found, f"memory-circuits {kind} --json", {"name": "shipped"})
        save_measurement(measured, runs / "measurements" / f"{kind}.json")
    write_table(workspace / "sweeps" / "first")
    (runs / "table").mkdir()
    rows = [{"fact": "f0", "row": "format", "format": "text", "share": 1.0, "margin": 5.0, "unit": "logits"}]
    (runs / "table" / "part-000000.parquet").write_bytes(encode_rows(rows, COLUMNS))
    (runs / "table" / HEAD).write_text("{}")
    return save_view(runs / "first", view)


def draw_text(draw: Random, right: tuple[str, ...]) -> str:
    """A parameter's value; what a browser can send, so no half of a character."""
    match draw.randrange(6):
        case 0 | 1:
            text = draw.choice(right)
        case 2:
            text = mutate_bytes(draw, draw.choice(right).encode()).decode("latin-1")
        case 3:
            text = ",".join(draw.choice((*right, "", str(draw_value(draw)))) for _ in range(draw.randrange(5)))
        case _:
            text = str(draw_value(draw))
    return text.encode("utf-8", "replace").decode()


def draw_link(draw: Random, page: str) -> dict[str, list[str]]:
    """Parameters of a link; most often those that open something, then some of them wrong."""
    known = PARAMETERS[page] | EVERYWHERE
    link = {name: [draw.choice(right)] for name, right in PARAMETERS[page].items() if draw.randrange(3)}
    for _ in range(draw.randrange(1, 4)):
        name = draw.choice(list(known))
        link[name] = [draw_text(draw, known[name]) for _ in range(1 if draw.randrange(5) else draw.randrange(1, 6))]
    if draw.randrange(12) == 0:
        link[draw_text(draw, ("run",))] = [draw_text(draw, ("first",))]
    return link


@contextlib.contextmanager
def enter(workspace: Path) -> Iterator[None]:
    """Work in the workspace, with nothing of the machine's own."""
    places = {
        "MEMORY_CIRCUITS_RUNS": str(workspace / "runs"), "MEMORY_CIRCUITS_SWEEPS": str(workspace / "sweeps"),
        "HOME": str(workspace),
    }  # fmt: skip
    with contextlib.chdir(workspace), mock.patch.dict(os.environ, places):
        yield


def open_link(page: str, link: dict[str, list[str]]) -> None:
    """Run the page once, as a browser does that follows the link. Raises UserError with what the page warns of."""
    app = AppTest.from_file(APP, default_timeout=60)
    if page != "ask":
        app.switch_page(f"../pages/{page}.py")
    for name, values in link.items():
        app.query_params[name] = values
    app.run()
    if app.exception:
        raise AssertionError(f"{page}: {app.exception[0].message[:300]} {app.exception[0].stack_trace[-3:]}")
    assert app.title or app.header or app.subheader or app.main.children, "an empty page"
    told = [str(one.value) for kind in ("error", "warning") for one in app.get(kind)]
    if told:
        raise UserError(max(told, key=len))


def prepare_links(page: str) -> Target:
    """Links to one page."""

    def prepare(workspace: Path) -> Attempt:
        view = fill(workspace)
        draft = workspace / "runs" / "first" / "drafts" / f"{DRAFT}.json"

        def attempt(draw: Random) -> Read:
            link = draw_link(draw, page)
            link = {name: [view if value == "VIEW" else value for value in values] for name, values in link.items()}
            # Of many drafts the oldest goes: this one stays.
            draft.touch()

            def read() -> None:
                with enter(workspace):
                    open_link(page, link)

            return read

        return attempt

    return Target(f"link to {page}", prepare)


TARGETS = tuple(prepare_links(page) for page in PARAMETERS)
