"""What several tests do in a real browser: read the address, wait for what the model must work for."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit


def read_link(page: Any, name: str) -> str:
    """A parameter of the page's address."""
    return parse_qs(urlsplit(page.url).query).get(name, [""])[0]


def wait_or_tell(page: Any, wanted: Any, patience: float) -> None:
    """Wait so many milliseconds for what the model must work for; fail with the page's error when it shows one."""
    message = page.get_by_test_id("stAlertContentError").filter(has_text=re.compile("."))
    wanted.or_(message).first.wait_for(timeout=patience)
    assert wanted.count(), message.first.inner_text()
