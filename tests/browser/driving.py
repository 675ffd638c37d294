"""What several tests do in a real browser: read the address, wait for what the model must work for, find content."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from workbench.ledgers.bulk import COLUMNS, HEAD
from workbench.library import read_shipped_facts
from workbench.sweeps.parts import encode_rows


def read_link(page: Any, name: str) -> str:
    """A parameter of the page's address."""
    return parse_qs(urlsplit(page.url).query).get(name, [""])[0]


def wait_for_rest(page: Any) -> None:
    """Return when the script behind the page has ended."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=60_000.0)
    # What the script has left out fades away, pale meanwhile.
    page.wait_for_function("!document.querySelector('[data-stale=true]')", timeout=60_000.0)


def wait_or_tell(page: Any, wanted: Any, patience: float) -> None:
    """Wait so many milliseconds for what the model must work for; fail with the page's error when it shows one."""
    message = page.get_by_test_id("stAlertContentError").filter(has_text=re.compile("."))
    wanted.or_(message).first.wait_for(timeout=patience)
    assert wanted.count(), message.first.inner_text()


def write_places(folder: Path) -> None:
    """A measured table of one shipped fact for the Placement page, in a new folder."""
    fact, shares = read_shipped_facts()[0].id, {"anchor": 1.0, "text": 4.0}
    rows = [
        {"fact": fact, "row": "format", "format": name, "share": share, "margin": 5.0, "unit": "logits"}
        for name, share in shares.items()
    ]
    folder.mkdir(parents=True)
    (folder / "part-000000.parquet").write_bytes(encode_rows(rows, COLUMNS))
    (folder / HEAD).write_text("{}")
