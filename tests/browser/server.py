"""A real server of the app on a free port, and a real Chromium that can reach nothing but this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
            time.sleep(0.05)
    raise AssertionError(f"the server did not come up: {log.read_text()[-2000:]}")


@contextmanager
def serve(
    folder: Path, runs: Path, environment: Mapping[str, str] | None = None, module: str = "pages.warm_server"
) -> Iterator[tuple[str, int]]:
    """Address and process id of a server that works in `folder`; it ends with the block.

    `module` takes the place of ours before Streamlit.
    """
    port, log = find_port(), folder / "server.log"
    variables = {**os.environ, "MEMORY_CIRCUITS_RUNS": str(runs), "PYTHONPATH": os.getcwd(), **(environment or {})}
    with log.open("wb") as out:
        server = subprocess.Popen(build_command(port, module=module), stdout=out, stderr=out, env=variables, cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_up(address, server, log)
        yield address, server.pid
    finally:
        server.terminate()
        server.wait(timeout=30)


def find_chromium() -> str | None:
    """Path of an installed Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def open_chromium(path: str) -> Iterator[Any]:
    """A headless Chromium that resolves no name."""
    from playwright.sync_api import sync_playwright

    rules = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", rules])
        yield browser
        browser.close()
