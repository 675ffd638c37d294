"""Memory that loading a checkpoint takes, told before a tensor is read: from headers, else from the configuration.

Nothing here imports torch or asks the network. `benchmarks/loading.py` prints the peaks that `FACTORS` come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.memory_limits import find_available
from probes.strict_json import parse_json
from probes.tensor_headers import read_header

SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIBIBYTE = 1 << 30
# A configuration's number that is larger is no size of a model, and is not believed.
LARGEST = 10**9

# Largest measured peak over the weights' bytes as loaded, rounded up: TransformerLens holds no second copy of plain
# weights, one of queries, keys and values that are stored joined, and one of a mixture's experts.
FACTORS = {"plain": 1.15, "joined": 1.5, "experts": 2.0}
JOINED = ("c_attn", "query_key_value", "qkv_proj", "wqkv", "in_proj")
# What loading takes whatever the size: a configuration, a tokenizer, one pass.
ALWAYS = 16 << 20


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that loading takes at its peak, those of the weights alone, and what the estimate was read from."""

    peak: int
    weights: int
    source: str


def list_weights(folder: Path) -> list[Path]:
    """The weight files that are loaded: the one file, else those that the index names, else all."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    try:
        index = parse_json((folder / "model.safetensors.index.json").read_bytes())
        names = sorted({str(name) for name in index["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return sorted(folder.glob("*.safetensors"))
    return [folder / name for name in names if Path(name).name == name and (folder / name).is_file()]


def read_config(folder: Path) -> dict[str, Any]:
    """Configuration of a checkpoint; empty when it cannot be read."""
    try:
        config = parse_json((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def count_parameters(config: Mapping[str, Any]) -> int:
    """Parameters that a configuration makes, biases and norms left out; 0 when it does not say its sizes."""

    def find(*names: str, default: int = 0) -> int:
        return next((n for name in names if type(n := config.get(name)) is int and 0 < n <= LARGEST), default)

    width, layers = find("hidden_size", "n_embd"), find("num_hidden_layers", "n_layer")
    heads = find("num_attention_heads", "n_head", default=1)
    size = find("head_dim", default=width // heads)
    attention = 2 * width * size * (heads + find("num_key_value_heads", default=heads))
    inner = find("moe_intermediate_size", "intermediate_size", "n_inner", default=4 * width)
    experts = find("num_local_experts", "num_experts", default=1)
    products = 3 if config.get("hidden_act") in ("silu", "gelu_pytorch_tanh") else 2
    tied = config.get("tie_word_embeddings", "n_embd" in config)
    return find("vocab_size") * width * (1 if tied else 2) + layers * (
        attention + experts * products * width * inner
    )  # fmt: skip


def choose_factor(names: Iterable[str]) -> float:
    """Factor of the peak by the tensors' names."""
    text = "\n".join(names).lower()
    if "experts" in text:
        return FACTORS["experts"]
    return FACTORS["joined" if any(word in text for word in JOINED) else "plain"]


def estimate_need(folder: Path, dtype: str) -> Need | None:
    """What loading a folder in a dtype takes, or None where neither headers nor configuration tell.

    A header that does not fit its file is not believed: the configuration is read instead, and what is wrong with the
    file is said when it is loaded.
    """
    try:
        tensors: dict[str, int] = {}
        for path in list_weights(folder):
            tensors |= {name: entry.count for name, entry in read_header(path).items()}
        count, factor, source = sum(tensors.values()), choose_factor(tensors), "the weights' headers"
    except (OSError, ValueError, RecursionError):
        tensors = {}
    if not tensors:
        config = read_config(folder)
        mixed = config.get("num_local_experts") or config.get("num_experts")
        count, source = count_parameters(config), "config.json"
        factor = FACTORS["experts" if mixed else "joined"]
    if not count:
        return None
    weights = count * SIZES[dtype]
    return Need(math.ceil(weights * factor) + ALWAYS, weights, source)


def find_cached(name: str) -> Path | None:
    """Folder in which a hub model's configuration was kept by an earlier download; None when it was not fetched."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def tell_gibibytes(count: int) -> str:
    """Bytes as GiB, to a tenth; small ones to a thousandth."""
    return f"{count / GIBIBYTE:.1f} GiB" if count >= GIBIBYTE else f"{count / GIBIBYTE:.3f} GiB"


def explain_shortage(name: str, need: int, available: int, dtype: str, where: str) -> str:
    """What is too little and what to choose instead."""
    choices = ["--dtype bfloat16"] if dtype == "float32" else []
    choices += ["a smaller model", "another device (--device, --device-map auto)"]
    return (
        f"{name} needs about {tell_gibibytes(need)} to be loaded as {dtype}, and {tell_gibibytes(available)} of "
        f"{where} are available: choose {', or '.join(choices)}"
    )


def require_room(name: str, folder: Path | None, dtype: str, device: str) -> None:
    """Raise UserError when a checkpoint will not fit where it is loaded to; what cannot be told is let through.

    On its way to another device a model is held by the CPU once, without second copies.
    """
    place = folder if folder is not None else find_cached(name)
    need = estimate_need(place, dtype) if place is not None else None
    if need is None:
        return
    here = need.peak if device == "cpu" else need.weights
    available = find_available()
    if available is not None and here > available:
        raise UserError(explain_shortage(name, here, available, dtype, "memory"))
    if device.startswith("cuda"):
        import torch

        free = int(torch.cuda.mem_get_info(device)[0])
        if need.peak > free:
            raise UserError(explain_shortage(name, need.peak, free, dtype, f"{device}'s memory"))
