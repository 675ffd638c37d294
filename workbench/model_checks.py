"""What a choice of model and memories lacks, found before anything is loaded: no torch, no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from probes.errors import UserError
from probes.memory_limits import find_available
from probes.memory_needs import SIZES, estimate_need, explain_shortage, find_cached, tell_gibibytes
from probes.strict_json import parse_json
from workbench.library import find_shipped
from workbench.places import HUB_NAME
from workbench.settings import Settings

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")
BUILT_IN = ("auto", "own", "none")
# There where a driver of NVIDIA runs.
GPU = Path("/dev/nvidiactl")


@dataclass(frozen=True, slots=True)
class Note:
    """One thing looked at. `missing` is in the way; `unknown` shows only when the model is loaded."""

    state: Literal["ok", "unknown", "missing"]
    text: str


def read_object(path: Path) -> dict[str, Any]:
    """JSON object of a file. Raises UserError when it is missing or something else."""
    try:
        value = parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path.name}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path.name} is not JSON ({str(error)[:80]})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path.name} is JSON, but no object")
    return value


def inspect_folder(folder: Path) -> Iterator[Note]:
    """A checkpoint's configuration, weights and tokenizer."""
    try:
        config = read_object(folder / "config.json")
    except UserError as error:
        yield Note("missing", f"{error}: {folder} is no checkpoint; give the folder that save_pretrained wrote")
        return
    named = config.get("architectures")
    kind = named[0] if isinstance(named, list) and named else config.get("model_type", "?")
    layers = config.get("num_hidden_layers") or config.get("n_layer") or "?"
    yield Note("ok", f"{folder.name}: {kind}, {layers} layers")
    if any(folder.glob("*.safetensors")):
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        yield Note("ok", f"weights: {size / 2**20:,.0f} MB of safetensors")
    elif any(folder.glob("*.bin")):
        yield Note("missing", "weights are pickled (.bin), which could run code: save them again as safetensors")
    else:
        yield Note("missing", "no weights (*.safetensors) in the folder: save the model into it")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        yield Note("missing", "no tokenizer in the folder: save one with tokenizer.save_pretrained")
    yield Note("unknown", "whether its architecture has the hooks is seen when it is loaded, and said then")


def inspect_hub(name: str) -> Iterator[Note]:
    """A name on the hub: whether it can be one, and whether it was fetched before."""
    if not HUB_NAME.fullmatch(name):
        yield Note("missing", f"there is no folder {name[:80]}, and no model on the hub can be called so")
        return
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        yield Note("ok", f"{name} was fetched from the hub before")
    else:
        yield Note(
            "unknown", f"no folder {name}: it is looked for on the hub when it is loaded, if that can be reached"
        )


def inspect_store(kind: str, choice: str, model: dict[str, Any]) -> Iterator[Note]:
    """A bank or an explicit memory by its folder: whether it is one, and as wide as the model."""
    folder = Path(choice).expanduser()
    if not folder.is_dir():
        yield Note("missing", f"there is no folder {choice[:80]}: the {kind} takes auto, none or a folder")
        return
    try:
        about = read_object(folder / f"{kind}.json")
    except UserError as error:
        yield Note("missing", f"{error}: {folder.name} is no {kind}")
        return
    width, wanted = about.get("d_model"), model.get("hidden_size") or model.get("n_embd")
    if width and wanted and width != wanted:
        yield Note("missing", f"the {kind} is for streams of width {width}, the model's is {wanted}: it is another's")
        return
    yield Note("ok", f"{kind}: {folder.name}")


def inspect_room(name: str, folder: Path | None, settings: Settings) -> Iterator[Note]:
    """Memory that loading takes, beside what is available; only where it must be the CPU's can it be in the way."""
    need = estimate_need(folder, settings.dtype) if folder is not None and settings.dtype in SIZES else None
    available = find_available()
    if need is None or available is None:
        return
    elsewhere = settings.device_map is not None or (settings.device != "cpu" and GPU.exists())
    if need.peak <= available or elsewhere:
        places = f"{tell_gibibytes(available)} of memory are available" + (
            "; a GPU's is seen then" if elsewhere else ""
        )
        text = f"loading takes about {tell_gibibytes(need.peak)} (from {need.source}); {places}"
        yield Note("ok" if need.peak <= available else "unknown", text)
    else:
        yield Note("missing", explain_shortage(name, need.peak, available, settings.dtype, "memory"))


def inspect_settings(settings: Settings) -> list[Note]:
    """Everything that can be said of model and memories before they are loaded."""
    notes: list[Note] = []
    folder = Path(settings.model).expanduser()
    if settings.model == "shipped":
        try:
            folder = find_shipped() / "model"
            notes.append(Note("ok", "the shipped model with its facts, bank and explicit memories"))
        except UserError as error:
            notes.append(Note("missing", str(error)))
    else:
        notes += inspect_folder(folder) if folder.is_dir() else inspect_hub(settings.model)
        for kind in ("bank", "memory"):
            if getattr(settings, kind) in ("auto", "own"):
                notes.append(Note("unknown", f"no {kind} comes with this model: give a folder to attach one"))
    place = folder if folder.is_dir() else find_cached(settings.model) if HUB_NAME.fullmatch(settings.model) else None
    notes += inspect_room(settings.model, place, settings)
    config: dict[str, Any] = {}
    if (folder / "config.json").is_file():
        try:
            config = read_object(folder / "config.json")
        except UserError:
            config = {}
    for kind in ("bank", "memory"):
        choice = str(getattr(settings, kind))
        if choice not in BUILT_IN:
            notes += inspect_store(kind, choice, config)
    if settings.text not in ("none", "auto") and not Path(settings.text).expanduser().is_file():
        notes.append(
            Note("missing", f"there is no file {settings.text[:80]}: the text takes auto, none or a text file")
        )
    return notes


def find_missing(notes: list[Note]) -> str:
    """What is in the way, in one line; empty when nothing is."""
    return "; ".join(note.text for note in notes if note.state == "missing")
