"""Viewers of other projects, which our exports are opened in: fetched once, from PyPI and npm, never committed.

`python -m tests.browser.viewers` (`make viewers`) fetches them into `cache/viewers`; the tests that need them are
skipped without. circuit-tracer's wheel is taken without what it depends on: only its frontend and its server are used,
and it pins an older transformers than ours. Its page loads d3 and others from the network: here the same libraries of
npm stand in, at their addresses.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FOLDER = Path(__file__).parents[2] / "cache" / "viewers"
WHEEL = "circuit_tracer-0.5.0-py3-none-any.whl"
# File: the SHA-256 that it was looked at with.
HASHES = {
    WHEEL: "e457e6558e1c9eb0d3d7c54ce2298492b4e919a4f7f2b8b7e217427284fdc802",
    "d3-7.9.0.tgz": "7e36605710a2ba54846797c8c6d888911341b215ae53257dc32a49a0b824355e",
    "d3-collection-1.0.7.tgz": "ef3384e71c5f62adf256d139c28c8addbcbce6a3db9dec0e14286f70ebb7a3bf",
    "d3-jetpack-2.3.0.tgz": "53cbbca823b17c4b796ef9735d244af16d3578e79b428c6801d6ddb714bb80e7",
    "dagre-0.8.5.tgz": "ffaf576ea24546aed65aa2bed174d77fe4fbfe7985aa6c4a7cd0293c1994c4ed",
    "mermaid-11.17.2.tgz": "6ad2f42c3fc26bbf9e45cbb6d11898972573ea52b33a5f4ff51952899f950ffd",
    "pako-2.1.0.tgz": "49fedc8866b4abfc8e71dc7fe75ad4ef1ff1ac9601b0642cff88ee5bf2338709",
}
# What the last part of a script's address is answered with: a file of a package. Empty: it reloads the page of a
# developer, or reads arrays, which no graph has.
SCRIPTS = {
    "d3.js": ("d3-7.9.0.tgz", "package/dist/d3.min.js"),
    "jetpack_2024-07-20.js": ("d3-jetpack-2.3.0.tgz", "package/build/d3-jetpack.cjs"),
    "dagre.min.js": ("dagre-0.8.5.tgz", "package/dist/dagre.min.js"),
    "pako.min.js": ("pako-2.1.0.tgz", "package/dist/pako.min.js"),
    "hotserver-client-ws.js": None,
    "npy_v0.js": None,
}
MERMAID = ("mermaid-11.17.2.tgz", "package/dist/mermaid.min.js")


def is_there(name: str) -> bool:
    """Whether a file was fetched, and is the one that was looked at."""
    path = FOLDER / name
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == HASHES[name]


def read_script(package: str, member: str) -> bytes:
    """A file of a package of npm."""
    with tarfile.open(FOLDER / package) as archive:
        found = archive.extractfile(member)
        assert found is not None, f"{package} has no {member}"
        return found.read()


def load_script(name: str) -> bytes:
    """What a script's address is answered with, ready for a page.

    d3-jetpack is published for Node: here its d3 is the page's, and what it adds goes into the page's.
    """
    script = SCRIPTS[name]
    data = b"" if script is None else read_script(*script)
    if not name.startswith("jetpack"):
        return data
    needed = read_script("d3-collection-1.0.7.tgz", "package/dist/d3-collection.min.js")
    head = b"\n(() => { const module = {exports: {}}, exports = module.exports, require = () => window.d3;\n"
    # The page's own fork of it gives its drawings a method for axes.
    axes = b"drawAxis: svg => exports.drawAxis({...made, svg})"
    more = (
        b"conventions: wanted => { const made = exports.conventions(wanted); return Object.assign(made, {%b}); }" % axes
    )
    return needed + head + data + b"\nwindow.d3 = {...window.d3, ...exports, %b}; })();" % more


def fetch() -> None:
    """Fetch what is missing by pip and npm. Raises where one of them fails or sends another file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    missing = [name for name in HASHES if not is_there(name)]
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        for name in missing:
            stem, version = name.removesuffix(".tgz").split("-py3")[0].rsplit("-", 1)
            if name == WHEEL:
                tool = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
                subprocess.run([*tool, f"{stem}=={version}"], check=True, timeout=600)
            else:
                tool = ["npm", "pack", "--silent", "--pack-destination", folder]
                subprocess.run([*tool, f"{stem}@{version}"], check=True, timeout=600)
            shutil.move(Path(folder) / name, FOLDER / name)
    wrong = [name for name in HASHES if not is_there(name)]
    if wrong:
        raise SystemExit(f"not the files that were looked at: {', '.join(wrong)}")


@contextmanager
def serve_graphs(graphs: Path, work: Path) -> Iterator[str]:
    """Address of circuit-tracer's own server of a folder of graphs, on this machine alone."""
    if not (work / "circuit_tracer").exists():
        with zipfile.ZipFile(FOLDER / WHEEL) as wheel:
            wheel.extractall(work)
    sys.path.insert(0, str(work))
    try:
        from circuit_tracer.frontend.local_server import CircuitGraphHandler, ReusableTCPServer
    finally:
        sys.path.remove(str(work))
    assets = work / "circuit_tracer" / "frontend" / "assets"
    handler = partial(CircuitGraphHandler, frontend_dir=assets, data_dir=str(graphs))
    with ReusableTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def answer_scripts(page: Any, base: str, seen: list[str]) -> None:
    """Answer the scripts that a page asks the network for; whatever else leaves this machine is noted and refused."""

    def answer(route: Any) -> None:
        url = route.request.url
        name = urlsplit(url).path.rpartition("/")[2]
        if url.startswith((base, "data:")):
            route.continue_()
        elif name in SCRIPTS:
            route.fulfill(content_type="text/javascript", body=load_script(name))
        else:
            seen.append(url)
            route.abort()

    page.route("**/*", answer)


if __name__ == "__main__":
    fetch()
