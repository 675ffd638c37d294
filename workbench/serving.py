"""How the app is served: settings that keep it on this machine and give it its looks, and the command that starts it.

`.streamlit/config.toml` holds the same values for `streamlit run` inside the repository; a test compares them.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files

Flag = str | int | bool | list[str] | list[int]

EVERYWHERE = ("0.0.0.0", "::", "")

FLAGS: dict[str, Flag] = {
    "server.address": "127.0.0.1",
    "server.headless": True,
    "server.maxUploadSize": 50,
    "server.allowedHosts": ["localhost", "127.0.0.1"],
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "type",
    "client.showErrorLinks": False,
    "theme.base": "light",
    "theme.primaryColor": "#2166ac",
    "theme.backgroundColor": "#ffffff",
    "theme.secondaryBackgroundColor": "#f5f7fa",
    "theme.textColor": "#1f2933",
    "theme.borderColor": "#d9dee5",
    "theme.baseRadius": "small",
    "theme.baseFontSize": 15,
    "theme.paddingTop": "1.5rem",
    "theme.metricValueFontSize": "1.5rem",
    "theme.showWidgetBorder": True,
    "theme.headingFontSizes": ["1.75rem", "1.3rem", "1.1rem"],
    "theme.headingFontWeights": [650, 600, 600],
}


def write_flag(name: str, value: Flag) -> list[str]:
    """A setting as arguments of `streamlit run`; a list repeats the flag, in the theme it is one JSON text."""
    if isinstance(value, list) and name.startswith("theme."):
        return [f"--{name}", json.dumps(value)]
    values = value if isinstance(value, list) else [value]
    return [
        text for item in values for text in (f"--{name}", str(item).lower() if isinstance(item, bool) else str(item))
    ]


def build_command(port: int, address: str = "127.0.0.1") -> list[str]:
    """Command that serves the app at an address and port; that address is the only one accepted beside this machine.

    An address that means all interfaces lets in every host name: which one others will use is not known here.
    """
    hosts = FLAGS["server.allowedHosts"]
    known = [str(host) for host in hosts] if isinstance(hosts, list) else []
    if address in EVERYWHERE:
        known = ["*"]
    elif address not in known:
        known.append(address)
    flags: dict[str, Flag] = {
        **FLAGS,
        "server.port": port,
        "server.address": address,
        "server.allowedHosts": known,
    }
    arguments = [argument for name, value in flags.items() for argument in write_flag(name, value)]
    return [sys.executable, "-m", "streamlit", "run", str(files("workbench") / "app.py"), *arguments]
