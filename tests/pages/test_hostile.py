"""Hostile text on every page: it is shown as text, with what is invisible made visible, and nothing of it is markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from circuits.graph import Kind
from probes.facts import Fact
from tests.hostile import HOSTILE, MARKUP, UNSEEN, make_hostile
from workbench import library, pipeline
from workbench.answers import Condition, Found, Prediction
from workbench.runs import Run, save_run

OpenPage = Callable[..., AppTest]
Settle = Callable[[AppTest, str], AppTest]

MARKDOWN = ("title", "header", "subheader", "markdown", "caption", "error", "warning", "info", "success")
# Half a character cannot be sent to a browser, nor saved in a file.
TEXTS = {name: text for name, text in HOSTILE.items() if name != "surrogate"}


def require_harmless(app: AppTest) -> None:
    """Fail when a text on the page works as markup or carries what nobody can see."""
    assert not app.exception, app.exception[0].value
    elements = [element for kind in MARKDOWN for element in app.get(kind)]
    assert not [element.value for element in elements if getattr(element.proto, "allow_html", False)]
    texts = [str(element.value) for element in elements] + [str(metric.value) for metric in app.metric]
    texts += [button.label for button in app.button]
    for text in texts:
        left = re.sub(r"\\[^\w\s]", "", text)
        assert not [mark for mark in MARKUP if mark in left], text[:300]
        # The word joiner is `plain`'s own.
        assert not [sign for sign in UNSEEN if sign in text.replace("\u2060", "")], repr(text[:300])
        assert len(text) < 5_000, text[:300]


@pytest.mark.parametrize("name", TEXTS)
def test_a_run_of_hostile_text(open_page: OpenPage, runs: Path, build_run: Callable[..., Run], name: str) -> None:
    run = make_hostile(build_run(tokens=[TEXTS[name]] * 5, parts=2), [TEXTS[name]])
    save_run(run, runs / "hostile")
    node = next(node.id for node in run.circuit.nodes if node.component.kind is Kind.EXPLICIT)
    require_harmless(open_page("circuit", run="hostile", node=node))


def test_hostile_runs_in_the_list(open_page: OpenPage, runs: Path, build_run: Callable[..., Run]) -> None:
    for place, text in enumerate(TEXTS.values()):
        save_run(make_hostile(build_run(), [text]), runs / f"hostile-{place}")
    app = open_page("runs")
    require_harmless(app)
    cells = app.dataframe[0].value.to_numpy().ravel().tolist()
    assert not [cell for cell in cells if isinstance(cell, str) and any(sign in cell for sign in UNSEEN)]


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_answers(open_page: OpenPage, settle: Settle, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text = TEXTS[name]
    fact = Fact("f", text, text, text, text or "x", " " + text, split=text, document=text, bucket=1, occurrences=1)
    prediction = Prediction(text, 1, 0.5)
    found = (Found(text, 0.5, text, text),)
    conditions = (
        Condition("parameters", text, (prediction,), prediction, text),
        Condition("explicit memory", text, (prediction,), prediction, text, found=found),
        Condition("text", text, reason=text),
    )

    def ask(*_: Any) -> tuple[Condition, ...]:
        return conditions

    monkeypatch.setattr(library, "read_shipped_facts", lambda: (fact,))
    app = open_page("", fact="f")
    require_harmless(app)
    monkeypatch.setattr(pipeline, "ask", ask)
    next(button for button in app.button if button.label == "Ask").click().run()
    require_harmless(settle(app, "asking"))


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_links(open_page: OpenPage, saved: str, name: str) -> None:
    text = TEXTS[name][:2000]
    for page, parameters in (
        ("circuit", {"run": text, "node": text, "edges": text, "job": text}),
        ("circuit", {"run": saved, "node": text, "edges": text}),
        ("runs", {"job": text, "x": text}),
        ("", {"fact": text, "job": text}),
    ):
        require_harmless(open_page(page, **parameters))


def test_a_failing_job_tells_hostile_text_as_text(
    open_page: OpenPage, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes.errors import UserError

    def refuse(*_: Any) -> None:
        raise UserError(TEXTS["html image"] + TEXTS["ansi"] + TEXTS["markdown image"])

    monkeypatch.setattr(pipeline, "ask", refuse)
    app = open_page("", fact="norland-capital")
    next(button for button in app.button if button.label == "Ask").click().run()
    require_harmless(settle(app, "asking"))
    assert app.error
