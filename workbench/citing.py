"""A run as something to cite: checked against its schema and hashes, and bundled into one archive.

An archive has the same bytes for the same run: fixed time stamps, sorted names, no path of a machine.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

from circuits.circuit import mask_edges
from circuits.graph import wire
from probes.errors import UserError
from workbench.exports import EXPORTS
from workbench.exports_json import find_fault, write_json
from workbench.figures.captions import describe_circuit, write_caption
from workbench.figures.vector import write_scene
from workbench.provenance import PACKAGES, read_version
from workbench.runs import FILES, Run, encode_run, load_run, read_about
from workbench.storage import read_bytes

# Where a file's contents stand in an archive besides what the run's folder holds.
FIGURE, TABLE, CIRCUIT, CAPTION = "figure.svg", "edges.csv", "circuit.json", "caption.txt"
ENVIRONMENT, MANIFEST, README = "environment.txt", "SHA256SUMS", "README.txt"
_STAMP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked: its name, whether it holds, and what was found."""

    name: str
    holds: bool
    found: str = ""


@functools.cache
def load_run_schema() -> dict[str, Any]:
    """JSON Schema of run.json."""
    schema: dict[str, Any] = json.loads(
        resources.files("workbench").joinpath("run.schema.json").read_text(encoding="utf-8")
    )
    return schema


def verify_run(folder: Path) -> list[Check]:
    """Every check of a run's folder, in order; those that rest on a broken one are left out.

    Raises UserError when there is no run.json.
    """
    raw = read_bytes(folder / "run.json")
    try:
        about = read_about(folder)
    except UserError as error:
        return [Check("format and version", False, str(error))]
    checks = [Check("format and version", True, f"{about['format']} {about['version']}")]
    fault = find_run_fault(about)
    checks.append(Check("schema of run.json", not fault, fault))
    for name in FILES[1:]:
        checks.append(check_hash(folder, name, about))
    if not all(check.holds for check in checks):
        return checks
    try:
        run = load_run(folder)
    except UserError as error:
        return [*checks, Check("whole run", False, str(error))]
    checks += [check_scores(run), check_circuit_file(run)]
    if json.loads(raw).get("version") == about["version"]:
        same = encode_run(run)["run.json"] == raw
        checks.append(Check("canonical bytes", same, "" if same else "run.json is not as this release writes it"))
    return checks


def find_run_fault(about: dict[str, Any]) -> str:
    """Where run.json departs from its schema; nothing when it obeys it."""
    return find_fault(about, load_run_schema())


def check_hash(folder: Path, name: str, about: dict[str, Any]) -> Check:
    """Whether a file has the SHA-256 that run.json tells."""
    files = about.get("files")
    wanted = files.get(name) if isinstance(files, dict) else None
    if wanted is None:
        return Check(f"SHA-256 of {name}", False, "run.json does not tell it")
    try:
        found = hashlib.sha256(read_bytes(folder / name)).hexdigest()
    except UserError as error:
        return Check(f"SHA-256 of {name}", False, str(error))
    return Check(f"SHA-256 of {name}", found == wanted, found if found == wanted else f"{found}, told: {wanted}")


def check_scores(run: Run) -> Check:
    """Whether the circuit's edges score as the whole graph says, and arrays are of the graph's shape and finite."""
    name, wiring = "scores of the circuit", wire(run.circuit.plan)
    shape = (len(run.tokens), len(wiring.writers), len(wiring.readers))
    if run.scores.edges.shape != shape:
        return Check(name, False, f"scores have the shape {run.scores.edges.shape}, the graph {shape}")
    if not (np.isfinite(run.scores.edges).all() and np.isfinite(run.scores.nodes).all()):
        return Check(name, False, "scores are not all finite")
    try:
        mask = mask_edges(run.circuit, wiring, shape[0])
    except (KeyError, IndexError) as error:
        return Check(name, False, f"an edge is none of the graph: {error}")
    told = sorted(float(np.float32(edge.score)) for edge in run.circuit.edges)
    same = told == sorted(run.scores.edges[mask].astype(float).tolist())
    return Check(name, same, "" if same else "edges of run.json and scores.npz differ")


def check_circuit_file(run: Run) -> Check:
    """Whether the circuit can be exported and read back."""
    from workbench.exports_json import read_json

    try:
        same = read_json(write_json(run)).circuit == run.circuit
    except UserError as error:
        return Check("circuit file", False, str(error))
    return Check("circuit file", same, "" if same else "what is read back is another circuit")


def list_environment() -> str:
    """Installed distributions with their versions, one a line as pip takes it."""
    found = {str(one.metadata["Name"]).lower(): one.version for one in distributions() if one.metadata["Name"]}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def bundle_run(folder: Path, environment: bool = True) -> bytes:
    """A ZIP of the run's folder with figure, table, circuit file, caption and the environment it was bundled in.

    `environment` off leaves the list of installed packages out. Raises UserError when the run does not verify.
    """
    broken = [check for check in verify_run(folder) if not check.holds]
    if broken:
        raise UserError(f"{folder} does not verify, so it is not bundled: {broken[0].name}: {broken[0].found}")
    run = load_run(folder)
    files = {f"run/{path.name}": read_bytes(path) for path in sorted(folder.iterdir()) if is_kept(path)}
    command = f"memory-circuits figure circuit run --out {FIGURE}"
    caption = write_caption(describe_circuit(run, len(run.circuit.edges)), run, command)
    files |= {FIGURE: draw_figure(run, caption), TABLE: EXPORTS["csv"].write(run), CIRCUIT: write_json(run)}
    files |= {CAPTION: caption.encode("utf-8", "backslashreplace") + b"\n"}
    files |= {ENVIRONMENT: list_environment().encode()} if environment else {}
    files[README] = describe_bundle(run).encode("utf-8", "backslashreplace")
    sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return pack({**files, MANIFEST: sums.encode()})


def is_kept(path: Path) -> bool:
    """Whether a file of the folder belongs to the run: what this workbench writes there."""
    return path.is_file() and not path.is_symlink() and (path.name in FILES or path.suffix == ".json")


def draw_figure(run: Run, caption: str) -> bytes:
    """The picture of the circuit at the width of two columns."""
    from workbench.figures.axes import COLUMNS
    from workbench.figures.circuits import draw_circuit

    return write_scene(draw_circuit(run, COLUMNS[2]), caption).encode("utf-8", "backslashreplace")


def describe_bundle(run: Run) -> str:
    """What is in the archive and what to do with it."""
    versions = ", ".join(f"{name} {run.about['versions'].get(name, read_version(name))}" for name in PACKAGES)
    listed = {
        "run/": "the run; `memory-circuits verify run` checks it, `memory-circuits replay run` repeats it",
        FIGURE: "the circuit",
        CAPTION: "what belongs under the figure",
        TABLE: "its edges",
        CIRCUIT: "the circuit as one file",
        ENVIRONMENT: "packages that were installed where the archive was made",
        MANIFEST: f"`sha256sum -c {MANIFEST}` checks all files",
    }
    files = "".join(f"{name:<16} {text}\n" for name, text in listed.items())
    return (
        f"A run of memory-circuits: {run.title}\n\n{files}\nTraced with {versions} by\n\n    {run.about['command']}\n"
    )


def pack(files: dict[str, bytes]) -> bytes:
    """A ZIP with sorted names and fixed time stamps."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=_STAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()
