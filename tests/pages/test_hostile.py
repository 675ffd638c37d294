"""Hostile text on every page: it is shown as text, with what is invisible made visible, and nothing of it is markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from circuits.graph import Kind
from probes.errors import UserError
from probes.facts import Fact
from tests.hostile import HALF, HOSTILE, LOTS, MARKUP, UNSEEN, make_hostile, taint_words
from workbench import library, pipeline
from workbench.answers import Condition, Found, Prediction
from workbench.runs import Run, save_run

OpenPage = Callable[..., AppTest]
Settle = Callable[[AppTest, str], AppTest]

MARKDOWN = ("title", "header", "subheader", "markdown", "caption", "error", "warning", "info", "success")
SENT = [[text for text in lot if text != HALF] for lot in LOTS]


def require_harmless(app: AppTest) -> None:
    """Fail when a text on the page works as markup or carries what nobody can see."""
    assert not app.exception, app.exception[0].value
    elements = [element for kind in MARKDOWN for element in app.get(kind)]
    assert not [element.value for element in elements if getattr(element.proto, "allow_html", False)]
    texts = [str(element.value) for element in elements] + [button.label for button in app.button]
    # Streamlit takes a metric's value and every help text for Markdown too.
    texts += [str(metric.value) for metric in app.metric]
    texts += [str(element.proto.help) for kind in ("metric", "button", "caption") for element in app.get(kind)]
    for text in texts:
        left = re.sub(r"\\[^\w\s]", "", text)
        assert not [mark for mark in MARKUP if mark in left], text[:300]
        # The word joiner is `plain`'s own.
        assert not [sign for sign in UNSEEN if sign in text.replace("\u2060", "")], repr(text[:300])
        assert len(text) < 5_000, text[:300]


@pytest.mark.parametrize("texts", SENT, ids=range(len(SENT)))
def test_a_run_of_hostile_text(
    open_page: OpenPage, runs: Path, build_run: Callable[..., Run], texts: list[str]
) -> None:
    run = taint_words(make_hostile(build_run(tokens=texts[:5], parts=1), texts), texts)
    save_run(run, runs / "hostile")
    node = next(node.id for node in run.circuit.nodes if node.component.kind is Kind.EXPLICIT)
    require_harmless(open_page("circuit", run="hostile", node=node))


@pytest.mark.parametrize("texts", SENT, ids=range(len(SENT)))
def test_every_text_as_the_question(open_page: OpenPage, runs: Path, run: Run, texts: list[str]) -> None:
    for place, text in enumerate(texts):
        save_run(make_hostile(run, [text]), runs / f"hostile-{place}")
    app = open_page("runs")
    require_harmless(app)
    cells = app.dataframe[0].value.to_numpy().ravel().tolist()
    assert not [cell for cell in cells if isinstance(cell, str) and any(sign in cell for sign in UNSEEN)]
    for place in range(0, len(texts), 3):
        require_harmless(open_page("circuit", run=f"hostile-{place}"))


@pytest.mark.parametrize("texts", SENT, ids=range(len(SENT)))
def test_hostile_answers(
    open_page: OpenPage, settle: Settle, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    facts = tuple(
        Fact(f"f{place}", text, text, text, text or "x", " " + text, split=text, document=text, bucket=1, occurrences=1)
        for place, text in enumerate(texts)
    )
    predictions = tuple(Prediction(text, place, 0.5) for place, text in enumerate(texts))
    found = tuple(Found(text, 0.5, text, text) for text in texts)
    conditions = tuple(
        Condition(f"{name}", texts[0], predictions[start : start + 5], predictions[start], texts[1], found=found)
        for name, start in (("parameters", 0), ("bank", 4), ("explicit memory", 5))
    ) + tuple(Condition("text", text, reason=text) for text in texts[:1])
    monkeypatch.setattr(library, "read_shipped_facts", lambda: facts)
    monkeypatch.setattr(pipeline, "ask", lambda *_: conditions)
    app = open_page("", fact="f0")
    require_harmless(app)
    next(button for button in app.button if button.label == "Ask").click().run()
    require_harmless(settle(app, "asking"))


@pytest.mark.parametrize("texts", SENT, ids=range(len(SENT)))
def test_hostile_links(open_page: OpenPage, saved: str, texts: list[str]) -> None:
    for first, second in zip(texts[::4], texts[1::4], strict=False):
        text, other = first[:2000], second[:2000]
        require_harmless(open_page("circuit", run=text, node=other, edges=text, job=other))
        require_harmless(open_page("circuit", run=saved, node=text, edges=other, tour=text))
    require_harmless(open_page("", fact=texts[0][:2000], job=texts[1][:2000]))


def test_a_failing_job_tells_hostile_text_as_text(
    open_page: OpenPage, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UserError(HOSTILE["html image"] + HOSTILE["ansi"] + HOSTILE["markdown image"])

    monkeypatch.setattr(pipeline, "ask", refuse)
    app = open_page("", fact="norland-capital")
    next(button for button in app.button if button.label == "Ask").click().run()
    require_harmless(settle(app, "asking"))
    assert app.error
