"""How the app is served: the command and the configuration file agree, and both stay on this machine."""

from __future__ import annotations

import json
import socket
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.serving import FLAGS, build_command, list_hosts, write_flag


def flatten(table: dict[str, Any], stem: str = "") -> Iterator[tuple[str, Any]]:
    """Names with dots and values of nested tables."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{stem}{name}.")
        else:
            yield f"{stem}{name}", value


def test_the_configuration_file_says_the_same() -> None:
    path = Path(__file__).resolve().parents[2] / ".streamlit" / "config.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    assert dict(flatten(table)) == FLAGS


def test_the_command_serves_this_machine_alone() -> None:
    command = build_command(8765)
    assert command[:4] == [sys.executable, "-m", "pages.warm_server", "run"]
    assert build_command(8765, module="another")[1:4] == ["-m", "another", "run"]
    assert Path(command[4]).name == "app.py"
    assert Path(command[4]).is_file()
    assert command[command.index("--server.address") + 1] == "127.0.0.1"
    assert command[command.index("--server.port") + 1] == "8765"
    assert command[command.index("--browser.gatherUsageStats") + 1] == "false"


def test_another_address_is_let_in_by_name() -> None:
    command = build_command(1, "192.0.2.7")
    hosts = [command[place + 1] for place, word in enumerate(command) if word == "--server.allowedHosts"]
    assert hosts == ["localhost", "127.0.0.1", "192.0.2.7"]
    assert FLAGS["server.allowedHosts"] == ["localhost", "127.0.0.1"]


def test_all_interfaces_answer_to_known_names_only() -> None:
    hosts = list_hosts("0.0.0.0", ["lab.example"])
    assert {"localhost", "127.0.0.1", "lab.example", socket.gethostname()} <= set(hosts)
    assert "*" not in hosts


def test_lists_are_repeated_and_theme_lists_are_json() -> None:
    assert write_flag("server.x", ["a", "b"]) == ["--server.x", "a", "--server.x", "b"]
    assert json.loads(write_flag("theme.x", [1, 2])[1]) == [1, 2]
    assert write_flag("server.y", True) == ["--server.y", "true"]
