"""Uploads in a real browser session: a file that is too large, one that is no result, one that is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import read_link, wait_for_rest
from tests.browser.server import Witness
from tests.pages.measured import FOUND
from workbench.library import read_shipped_facts

QUICK = 60_000.0
LIMIT = 50 * 1024 * 1024

# Sends so many bytes as an upload of this session, past the check that the page itself makes.
SEND = """async ([url, headers, size]) => {
  const body = new FormData();
  body.append('file', new Blob([new Uint8Array(size)]), 'large.json');
  try { return (await fetch(url, { method: 'PUT', body, headers, credentials: 'include' })).status; }
  catch { return 0; }
}"""


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_what_is_uploaded_is_small_and_obeys_its_schema(shared: str, browser: Any, tmp_path: Path) -> None:
    witness = Witness(shared)
    page = witness.watch(browser.new_page())
    page.goto(f"{shared}/knowledge?section=components")
    page.get_by_text("Open the output of a command").first.click(timeout=QUICK)
    large, odd, good = (tmp_path / f"{name}.json" for name in ("large", "odd", "good"))
    with large.open("wb") as file:
        file.truncate(LIMIT + 1)
    odd.write_text(json.dumps({"components": [{"component": "<img src=x onerror=alert(1)>", "kind": 3}]}))
    good.write_text(json.dumps(FOUND["specificity"]))
    field = page.locator("[data-testid=stFileUploader] input[type=file]")
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request) if "upload_file" in request.url else None)

    field.set_input_files(large)
    page.get_by_text(re.compile("must be 50.*or smaller")).wait_for(timeout=QUICK)
    wait_for_rest(page)
    assert not [request for request in sent if request.method in ("PUT", "POST")]
    assert page.get_by_role("button", name="Keep and open").count() == 0

    field.set_input_files(odd)
    keep = page.get_by_role("button", name="Keep and open")
    keep.click(timeout=QUICK)
    page.get_by_test_id("stAlertContentError").wait_for(timeout=QUICK)
    assert page.evaluate("document.querySelectorAll('[data-testid=stAlertContentError] img').length") == 0

    # The session's own address and token, and still no more than the limit.
    upload = next(request for request in sent if request.method == "PUT")
    headers = {name: value for name, value in upload.headers.items() if "xsrf" in name}
    assert page.evaluate(SEND, [upload.url, headers, 1024]) < 300
    assert page.evaluate(SEND, [upload.url, headers, LIMIT + (1 << 20)]) not in range(200, 400)

    field.set_input_files(good)
    # The button stands there for the odd file until the page was drawn anew, which takes the error away.
    page.get_by_text("good.json").first.wait_for(timeout=QUICK)
    page.get_by_test_id("stAlertContentError").wait_for(state="detached", timeout=QUICK)
    wait_for_rest(page)
    keep.click(timeout=QUICK)
    page.wait_for_url(re.compile(r"[?&]measurement="), timeout=QUICK)
    assert read_link(page, "section") == "components"
    assert not [problem for problem in witness.problems if not problem.startswith("console")]


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_table_of_usage_is_read_or_told_what_it_lacks(shared: str, browser: Any, tmp_path: Path) -> None:
    witness = Witness(shared)
    page = witness.watch(browser.new_page(viewport={"width": 1300, "height": 1200}))
    page.goto(f"{shared}/placement")
    page.get_by_role("combobox", name="A fact is read").click(timeout=QUICK)
    page.get_by_role("option", name="as a table says").click(timeout=QUICK)
    page.get_by_text("A table with the columns id and usage").wait_for(timeout=QUICK)
    page.get_by_text("No fact has a usage yet").wait_for(timeout=QUICK)
    field = page.get_by_test_id("stFileUploader").locator("input[type=file]")
    message = page.get_by_test_id("stAlertContentError")
    first, second = (fact.id for fact in read_shipped_facts()[:2])

    for name, content, told in (
        ("short.csv", f'id,amount\n"{first}",3\n', "row 1 needs the columns id and usage"),
        ("words.csv", f'id,usage\n"{first}",3\n"{second}",<img src=x onerror=alert(1)>\n', "row 2 has the usage"),
        ("picture.parquet", "no table at all", "cannot be read as what its name says"),
    ):
        (tmp_path / name).write_text(content)
        field.set_input_files(tmp_path / name)
        message.filter(has_text=told).wait_for(timeout=QUICK)
        assert message.locator("img").count() == 0

    (tmp_path / "usage.csv").write_text(f'id,usage\n"{first}",3\n"{second}",1000000\n')
    field.set_input_files(tmp_path / "usage.csv")
    page.get_by_text("n = 2 facts, 2 of them not measured").wait_for(timeout=QUICK)
    message.wait_for(state="detached", timeout=QUICK)
    wait_for_rest(page)
    assert not witness.problems
