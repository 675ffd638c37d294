"""How the app is served: settings that keep it on this machine and give it its looks, and the command that starts it.

`.streamlit/config.toml` holds the same values for `streamlit run` inside the repository; a test compares them.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files

Flag = str | int | bool | list[str] | list[int]

EVERYWHERE = ("0.0.0.0", "::", "")

FLAGS: dict[str, Flag] = {
    "server.address": "127.0.0.1",
    "server.headless": True,
    "server.maxUploadSize": 50,
    "server.allowedHosts": ["localhost", "127.0.0.1"],
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    # One collection after every run of a page or fragment, each second for each page that waits, would leave the worker
    # no time: `pages/warm_server.py` collects at its own pace.
    "runner.postScriptGC": False,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "type",
    "client.showErrorLinks": False,
    "theme.baseRadius": "small",
    "theme.baseFontSize": 15,
    "theme.paddingTop": "1.5rem",
    "theme.metricValueFontSize": "1.5rem",
    "theme.showWidgetBorder": True,
    "theme.headingFontSizes": ["1.75rem", "1.3rem", "1.1rem"],
    "theme.headingFontWeights": [650, 600, 600],
    "theme.light.primaryColor": "#2166ac",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f5f7fa",
    "theme.light.textColor": "#0d1117",
    "theme.light.codeTextColor": "#0d1117",
    "theme.light.borderColor": "#d9dee5",
    "theme.dark.primaryColor": "#7ab4ec",
    "theme.dark.backgroundColor": "#12181f",
    "theme.dark.secondaryBackgroundColor": "#1d2630",
    "theme.dark.textColor": "#e6ebf1",
    "theme.dark.codeTextColor": "#e6ebf1",
    "theme.dark.borderColor": "#3a4653",
}


def write_flag(name: str, value: Flag) -> list[str]:
    """A setting as arguments of `streamlit run`; a list repeats the flag, in the theme it is one JSON text."""
    if isinstance(value, list) and name.startswith("theme."):
        return [f"--{name}", json.dumps(value)]
    values = value if isinstance(value, list) else [value]
    return [
        text for item in values for text in (f"--{name}", str(item).lower() if isinstance(item, bool) else str(item))
    ]


def name_this_machine() -> list[str]:
    """Names and addresses under which others may know this machine, as far as it knows them itself."""
    names = {socket.gethostname(), socket.getfqdn()}
    with suppress(OSError):
        names |= {str(target[0]) for *_, target in socket.getaddrinfo(socket.gethostname(), None)}
    return sorted(name for name in names if name)


def list_hosts(address: str, hosts: Sequence[str] = ()) -> list[str]:
    """Host names that requests may ask for: this machine's own, the address that is listened on, those given.

    A request under any other name is refused: it may come from a foreign page whose name was pointed at this machine.
    """
    known = FLAGS["server.allowedHosts"]
    own = name_this_machine() if address in EVERYWHERE else [address]
    return list(dict.fromkeys([*(known if isinstance(known, list) else []), *own, *hosts]))


def build_command(
    port: int, address: str = "127.0.0.1", hosts: Sequence[str] = (), module: str = "pages.warm_server"
) -> list[str]:
    """Command that serves the app at an address and port, under the names of `list_hosts`.

    Another `module` stands before Streamlit where a server is watched.
    """
    flags: dict[str, Flag] = {
        **FLAGS,
        "server.port": port,
        "server.address": address,
        "server.allowedHosts": list_hosts(address, hosts),
    }
    arguments = [argument for name, value in flags.items() for argument in write_flag(name, value)]
    return [sys.executable, "-m", module, "run", str(files("workbench") / "app.py"), *arguments]
