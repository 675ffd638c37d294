"""A real server on a free port with a temporary runs folder, and a real Chromium that can reach nothing else."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from workbench.serving import build_command

PATIENCE = 120.0
# Streamlit's page asks a deep link's folder for these before it asks the root: two 404s that mean nothing.
PROBES = ("/_stcore/health", "/_stcore/host-config")


@dataclass
class Witness:
    """What a page did that it should not have: console errors, exceptions, requests to another host."""

    base: str
    problems: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> Any:
        """Listen to a page from its start."""
        page.on("console", self.hear)
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("request", self.follow)
        return page

    def hear(self, message: Any) -> None:
        """Note an error of the console, the two known probes aside."""
        url = str(message.location.get("url", ""))
        known = "404" in message.text and url.startswith(self.base) and url.endswith(PROBES)
        if message.type == "error" and not known:
            self.problems.append(f"console: {message.text} ({url})")

    def follow(self, request: Any) -> None:
        """Note a request that leaves this machine."""
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.problems.append(f"request: {request.url}")


def find_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(base: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{base}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not come up: {log.read_text()[-2000:]}")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The server's folder of saved runs."""
    return tmp_path / "runs"


@pytest.fixture
def base(tmp_path: Path, runs: Path) -> Iterator[str]:
    """Address of a running server."""
    port, log = find_port(), tmp_path / "server.log"
    environment = {**os.environ, "MEMORY_CIRCUITS_RUNS": str(runs), "PYTHONPATH": os.getcwd()}
    with log.open("wb") as out:
        server = subprocess.Popen(build_command(port), stdout=out, stderr=out, env=environment, cwd=tmp_path)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_up(address, server, log)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium; absent it is a failure in CI and a skip elsewhere."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine: install the package chromium")
        pytest.skip("no Chromium on this machine: install the package chromium")
    from playwright.sync_api import sync_playwright

    rules = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", rules])
        yield browser
        browser.close()


@pytest.fixture
def witness(base: str) -> Witness:
    """Watches every page of a test."""
    return Witness(base)
