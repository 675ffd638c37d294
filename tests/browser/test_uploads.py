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
