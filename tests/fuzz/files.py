"""Targets that are JSON: runs, circuit files of ours and of other tools, saved views, measurements, ledgers, tables.

What is accepted is used as the pages and commands would use it: exported, listed, drawn.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from circuits.circuit import Circuit
from tests.conftest import make_run
from tests.fuzz.cases import Attempt, Read, Target
from tests.fuzz.mutations import mutate_bytes, spell_json
from workbench.circuit_files import Traced
from workbench.exports import EXPORTS
from workbench.exports_json import encode_document
from workbench.formats.attribution_graph import OWN, encode_graph
from workbench.formats.eap import encode_eap
from workbench.importing import read_circuit
from workbench.run_index import list_entries
from workbench.runs import FILES, Run, encode_run, load_run, save_run
from workbench.view_files import FILE, SavedView, encode_view, load_view, read_views, save_view
from workbench.views.curation import Curation, Group
from workbench.views.links import read_place
from workbench.views.run_tables import tabulate_entries

# Every format but those that another program draws.
DRAWN = ("pdf", "png", "tikz", "html")
# Few bytes once packed.
BOMB = bytes(1 << 22)
WRITTEN = tuple(name for name in EXPORTS if name not in DRAWN)


def use_circuit(draw: Random, traced: Traced) -> None:
    """Export in one format, as a person would after opening."""
    assert EXPORTS[draw.choice(WRITTEN)].write(traced)
    assert traced.title is not None


def use_run(draw: Random, folder: Path) -> None:
    """Open a run, take up a link to it, export it."""
    run = load_run(folder)
    read_place({"edges": "5", "node": "m0@1"}, run.circuit)
    use_circuit(draw, run)


def put(folder: Path, name: str, data: bytes) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(data)
    return path


def write_run(folder: Path, files: dict[str, bytes]) -> None:
    """Put a run's files into a folder that has other ones."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        put(folder, name, data)


def prepare_run(workspace: Path) -> Attempt:
    """A run's folder: run.json, arrays, and both with hashes that fit."""
    files = encode_run(make_run(edges=20, parts=1))
    about, folder = json.loads(files["run.json"]), workspace / "run"

    def attempt(draw: Random) -> Read:
        changed = dict(files)
        if draw.randrange(4):
            changed["run.json"] = spell_json(draw, about)
        else:
            name = draw.choice(FILES[1:])
            changed[name] = mutate_bytes(draw, files[name])
            # Or the hash would refuse it before it is unpacked.
            sums = about["files"] | {name: hashlib.sha256(changed[name]).hexdigest()}
            changed["run.json"] = json.dumps(about | {"files": sums}).encode()
        write_run(folder, changed)
        return lambda: use_run(draw, folder)

    return attempt


def write_member(draw: Random, shape: tuple[int, ...], kind: str, body: bytes) -> bytes:
    """An .npy whose header says this shape and type, whatever follows."""
    said = f"{{'descr': {kind!r}, 'fortran_order': {draw.choice((True, False))}, 'shape': {shape!r}}}".encode()
    version = draw.choice((*[b"\x01\x00"] * 9, b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    length = len(said).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + length + said + body


def draw_arrays(draw: Random, names: Sequence[str]) -> bytes:
    """An .npz that is none of a run: shapes without end, zeros without end, pickles, odd types, names and methods."""
    buffer, methods = io.BytesIO(), (zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2)
    with zipfile.ZipFile(buffer, "w", draw.choice(methods)) as archive:
        for name in draw.sample([*names, "more", "../up", "", "a/b"], draw.randrange(1, 4)):
            sides = [draw.choice((0, 1, 5, 1 << 20, 1 << 40, 1 << 62, -1)) for _ in range(draw.randrange(7))]
            kind = draw.choice(
                ("<f4", "<f2", "<f8", "|O", "<M8[s]", "|V1099511627776", "<U99999999", "<c16", "x", "|b1")
            )
            body = draw.choice((b"", b"\0" * 64, BOMB, b"cposix\nsystem\n(S'touch hostile'\ntR.", draw.randbytes(40)))
            archive.writestr(f"{name}.npy", write_member(draw, tuple(sides), kind, body))
    data = buffer.getvalue()
    return data if draw.randrange(4) else mutate_bytes(draw, data)


def prepare_arrays(workspace: Path) -> Attempt:
    """A run whose arrays are a bomb, a pickle, or none of a run; the hash is right."""
    files, folder = encode_run(make_run(edges=8)), workspace / "run"
    about = json.loads(files["run.json"])
    members = {"scores.npz": ("edges", "nodes"), "recording.npz": ("context", "memory")}

    def attempt(draw: Random) -> Read:
        name = draw.choice(FILES[1:])
        data = draw_arrays(draw, members[name])
        sums = about["files"] | {name: hashlib.sha256(data).hexdigest()}
        write_run(folder, files | {name: data, "run.json": json.dumps(about | {"files": sums}).encode()})
        return lambda: use_run(draw, folder)

    return attempt


def prepare_list(workspace: Path) -> Attempt:
    """A folder of runs whose run.json or index is wrong: the list shows the others."""
    runs = workspace / "runs"
    for name in ("good", "wrong"):
        save_run(make_run(edges=5), runs / name)
    about = json.loads((runs / "wrong" / "run.json").read_bytes())
    list_entries(runs)
    index = json.loads((runs / ".runs.json").read_bytes())

    def attempt(draw: Random) -> Read:
        if draw.randrange(3):
            put(runs / "wrong", "run.json", spell_json(draw, about))
        else:
            put(runs, ".runs.json", spell_json(draw, index))
        return read

    def read() -> None:
        entries = list_entries(runs)
        assert "good" in [entry.name for entry in entries]
        tabulate_entries(entries)

    return attempt


def prepare_imports(encode: Callable[[Run], Any]) -> Callable[[Path], Attempt]:
    """A circuit's file in one format."""

    def prepare(workspace: Path) -> Attempt:
        document = json.loads(json.dumps(encode(make_run(edges=20, parts=1))))

        def attempt(draw: Random) -> Read:
            data = spell_json(draw, document)
            return lambda: use_circuit(draw, read_circuit(data).circuit)

        return attempt

    return prepare


def encode_foreign(run: Run) -> dict[str, Any]:
    """An attribution graph as other tools write it: transcoder features, nothing of ours inside."""
    graph = encode_graph(run, "question", groups={"a": [run.circuit.nodes[0].id]})
    del graph["metadata"]["generation_settings"]
    for node in graph["nodes"]:
        if node["feature_type"] not in ("embedding", "logit"):
            node["feature_type"] = "cross layer transcoder"
    return graph


def encode_own(run: Run) -> dict[str, Any]:
    """An attribution graph of ours, which carries our document."""
    graph = encode_graph(run, "question", pinned=[run.circuit.nodes[0].id])
    assert OWN in graph["metadata"]["generation_settings"]
    return graph


def make_view(circuit: Circuit) -> SavedView:
    """A view with something of everything."""
    ids = [node.id for node in circuit.nodes]
    curation = Curation(
        pinned=(ids[0],),
        groups=(Group("group:1", "group", tuple(ids[1:3])),),
        names=((ids[0], "name"),),
        notes=((ids[1], "note"),),
        hidden=(ids[4],),
    )
    return SavedView(10, ids[0], curation, "title")


def prepare_view(workspace: Path) -> Attempt:
    """A run's view.json."""
    run, folder = make_run(edges=20), workspace / "run"
    save_run(run, folder)
    number = save_view(folder, make_view(run.circuit))
    document = json.loads((folder / FILE).read_bytes())

    def attempt(draw: Random) -> Read:
        put(folder, FILE, spell_json(draw, document))
        return read

    def read() -> None:
        views = read_views(folder)
        view, _ = load_view(folder, next(iter(views), number), run.circuit)
        encode_view(replace(view, edges=view.edges + 1))
        save_view(folder, view)

    return attempt


TARGETS = (
    Target("run folder", prepare_run),
    Target("arrays of a run", prepare_arrays),
    Target("list of runs", prepare_list),
    Target("our circuit JSON", prepare_imports(encode_document)),
    Target("our attribution graph", prepare_imports(encode_own)),
    Target("circuit-tracer graph", prepare_imports(encode_foreign)),
    Target("EAP-IG JSON", prepare_imports(lambda run: encode_eap(run)[0])),
    Target("view.json", prepare_view),
)
