"""A real server on a free port with a temporary runs folder, and a real Chromium that can reach nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.server import Witness, find_chromium, open_chromium, serve


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The server's folder of saved runs."""
    return tmp_path / "runs"


@pytest.fixture
def base(tmp_path: Path, runs: Path) -> Iterator[str]:
    """Address of a running server."""
    with serve(tmp_path, runs) as (address, _):
        yield address


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium; absent it is a failure in CI and a skip elsewhere."""
    path = find_chromium()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine: install the package chromium")
        pytest.skip("no Chromium on this machine: install the package chromium")
    with open_chromium(path) as browser:
        yield browser


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of the shared server; its saved runs are in `runs`."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def shared(workspace: Path) -> Iterator[str]:
    """Address of one server for all tests of a file."""
    with serve(workspace, workspace / "runs") as (address, _):
        yield address


@pytest.fixture
def witness(base: str) -> Witness:
    """Watches every page of a test."""
    return Witness(base)
