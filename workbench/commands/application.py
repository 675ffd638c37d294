"""`app`: opens the workbench in the browser, served from this machine to this machine."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.passwords import PASSWORD, hash_password, read_password
from workbench.places import name_places
from workbench.serving import EVERYWHERE, build_command, list_hosts

PORT = 8501
ADDRESS = "127.0.0.1"
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


def declare_app(parser: argparse.ArgumentParser) -> None:
    """Where to listen."""
    parser.add_argument("--port", metavar="N", type=int, default=PORT, help="port to listen on (default: %(default)s)")
    parser.add_argument(
        "--address",
        metavar="IP",
        default=ADDRESS,
        help="address to listen on; others than the default let others in (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        action="append",
        default=[],
        help="name under which others reach this machine; may be given again. Requests under unknown names are refused",
    )
    parser.add_argument(
        "--allow",
        metavar="FOLDER",
        action="append",
        default=[],
        help="folder beside the working directory from which the browser may have models, memories and texts read; "
        "may be given again",
    )
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        help="file whose first line everyone has to type who opens the app; send it over TLS only (SECURITY.md)",
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let models run code that comes with their weights"
    )


def check_address(address: str, port: int) -> None:
    """Raise UserError unless a server can listen there now."""
    if not 1 <= port <= 65535:
        raise UserError(f"--port is {port}: choose a whole number from 1 to 65535")
    try:
        family, *_, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot listen on {address}:{port} ({reason}): choose another --port or --address") from None


def run_server(command: list[str]) -> int:
    """Become the server, so that whatever stops this process stops it; its own words go to standard error."""
    sys.stdout.flush()
    if os.name == "posix":
        os.dup2(STANDARD_ERROR, STANDARD_OUTPUT)
        os.execv(command[0], command)
    return subprocess.call(command, stdin=subprocess.DEVNULL, stdout=STANDARD_ERROR)


def set_environment(options: argparse.Namespace) -> None:
    """Tell the server what it may read and who may see it; by the environment, which other users cannot read."""
    os.environ.update(name_places(options.allow, options.trust_remote_code))
    os.environ.pop(PASSWORD, None)
    if options.password_file:
        os.environ[PASSWORD] = hash_password(read_password(options.password_file))


def open_app(options: argparse.Namespace) -> Answer:
    """Serve the workbench until it is stopped."""
    check_address(options.address, options.port)
    set_environment(options)
    command = build_command(options.port, options.address, options.host)
    url = f"http://{options.address}:{options.port}"
    if options.json:
        print(json.dumps({"url": url, "command": command}))
    else:
        print(f"memory-circuits is at {url} (Ctrl-C stops it)")
        if options.address in EVERYWHERE:
            print(f"it answers to {', '.join(list_hosts(options.address, options.host))}; --host adds a name")
    return Answer(None, "", run_server(command))


APP = Command(
    "app",
    "Open the workbench in the browser.",
    "memory-circuits app --port 8502",
    declare_app,
    open_app,
)
