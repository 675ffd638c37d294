"""Explicit memories: written from texts by the model itself, kept on disk, fetched for a prompt.

A reference of up to 128 tokens is encoded alone behind a prefix; at each memory layer every key-value head keeps the
few tokens that receive most attention (`probes/slots.py`). Keys are kept after rotary, at the positions of the
reference, and turned at fetching so that the reference lies `offset` positions before the context: all memories share
the same interval of positions (Yang et al. 2024, section 3.2). Unlike the paper, the prefix's own key-values are not
put before the context.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from probes.attachments import ExplicitBlocks
from probes.errors import UserError
from probes.models import Model, name_hook
from probes.slots import (
    Pooling,
    Scoring,
    gather_slots,
    keep_slots,
    measure_received_attention,
    rotate,
    shift_keys,
)

FORMAT = "memory-circuits/explicit-memory"
VERSION = 1
REFERENCE_LENGTH = 128


@dataclass(frozen=True, slots=True)
class ExplicitMemories:
    """Memories of one model: `ids` in row order, keys after rotary, kept token indices in `positions` (-1: absent)."""

    ids: tuple[str, ...]
    layers: tuple[int, ...]
    offset: int
    prefix: str
    sha256: str
    keys: Float[Tensor, "memory layer kv_head slot d_head"]
    values: Float[Tensor, "memory layer kv_head slot d_head"]
    positions: Int[Tensor, "memory layer kv_head slot"]

    @property
    def slots(self) -> int:
        """Tokens kept per key-value head."""
        return int(self.positions.shape[-1])

    def find(self, memory_id: str) -> int:
        """Row of a memory. Raises UserError when there is none of that id."""
        if memory_id not in self.ids:
            raise UserError(f"no explicit memory {memory_id[:80]!r} in this bank of {len(self.ids)}")
        return self.ids.index(memory_id)


def encode_reference(tokenizer: Any, prefix: str, text: str, limit: int = REFERENCE_LENGTH) -> tuple[list[int], int]:
    """Token ids of a reference behind its prefix, cut at `limit`, and the index of the text's first token."""
    head = list(tokenizer(prefix)["input_ids"])
    body = list(tokenizer(" " + text.strip(), add_special_tokens=False)["input_ids"])
    return (head + body)[:limit], len(head)


def require_rotary(model: Model) -> None:
    """Raise UserError for a model whose attention scores are not plain rotary attention."""
    if model.attention is None:
        raise UserError(
            f"{model.name} ({model.architecture}) has no plain rotary attention (learned or other positions), so an "
            "explicit memory cannot be read at parallel positions: use --memory none, or put the text in the prompt"
        )


def record_states(
    model: Model, tokens: Int[Tensor, "1 pos"], layer_set: tuple[int, ...]
) -> dict[int, dict[str, Tensor]]:
    """Queries, keys, values (before rotary) and rotary angles of the memory layers on one text."""
    seen: dict[int, dict[str, Tensor]] = {layer: {} for layer in layer_set}

    def keep(tensor: Tensor, hook: object, layer: int, point: str) -> None:
        seen[layer][point] = tensor

    points = ("hook_q", "hook_k", "hook_v", "hook_cos", "hook_sin")
    hooks = [
        (name_hook(layer, f"attn.{point}"), partial(keep, layer=layer, point=point))
        for layer in layer_set
        for point in points
    ]
    with torch.no_grad():
        model.run(tokens, hooks)
    return seen


def write_layer(
    model: Model,
    layer: int,
    states: dict[str, Tensor],
    valid: Bool[Tensor, "1 pos"],
    slots: int,
    scoring: Scoring,
    pooling: Pooling,
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys after rotary, values and positions of the kept tokens of one layer, [kv_head, slot, ...]."""
    assert model.attention is not None
    weights = model.weights[layer]
    query = states["hook_q"] if weights.query_norm is None else weights.query_norm.apply(states["hook_q"])
    key = states["hook_k"] if weights.key_norm is None else weights.key_norm.apply(states["hook_k"])
    received = measure_received_attention(query, key, valid, model.attention.scale, scoring, pooling)
    positions = keep_slots(received, slots)
    absent = received.gather(-1, positions).isinf()
    turned = rotate(key, states["hook_cos"], states["hook_sin"])
    kept = positions.masked_fill(absent, -1)[0].to(torch.int32)
    return gather_slots(turned, positions)[0], gather_slots(states["hook_v"], positions)[0], kept


def pad_slots(tensor: Tensor, slots: int, fill: float) -> Tensor:
    """Tensor with its second axis filled up to `slots`."""
    missing = slots - tensor.shape[1]
    if missing <= 0:
        return tensor
    padding = tensor.new_full((tensor.shape[0], missing, *tensor.shape[2:]), fill)
    return torch.cat([tensor, padding], dim=1)


def write_memories(
    model: Model,
    texts: dict[str, str],
    layers: tuple[int, ...] | None = None,
    slots: int = 8,
    offset: int = REFERENCE_LENGTH,
    prefix: str = "Reference:",
    scoring: Scoring = "softmax",
    pooling: Pooling = "sum",
) -> ExplicitMemories:
    """Write one memory a text; `layers` defaults to the first half of the model (the paper's choice).

    Raises UserError for a model without plain rotary attention, an empty text, or a layer that is not there.
    """
    require_rotary(model)
    layers = layers if layers is not None else tuple(range(max(1, model.layers // 2)))
    if any(not 0 <= layer < model.layers for layer in layers):
        raise UserError(f"memory layers {layers} are not all in 0..{model.layers - 1}")
    keys, values, positions = [], [], []
    for name, text in texts.items():
        ids, first = encode_reference(model.tokenizer, prefix, text, min(REFERENCE_LENGTH, offset))
        if len(ids) <= first:
            raise UserError(f"the reference {name[:80]!r} is empty: give it some text")
        valid = torch.arange(len(ids))[None] >= first
        states = record_states(model, torch.tensor([ids]), layers)
        rows = [
            write_layer(model, layer, states[layer], valid.to(model.device), slots, scoring, pooling)
            for layer in layers
        ]
        keys.append(torch.stack([pad_slots(row[0], slots, 0.0) for row in rows]))
        values.append(torch.stack([pad_slots(row[1], slots, 0.0) for row in rows]))
        positions.append(torch.stack([pad_slots(row[2], slots, -1.0) for row in rows]))
    return ExplicitMemories(
        ids=tuple(texts),
        layers=layers,
        offset=offset,
        prefix=prefix,
        sha256=hash_memories(keys),
        keys=torch.stack(keys),
        values=torch.stack(values),
        positions=torch.stack(positions),
    )


def hash_memories(keys: list[Tensor]) -> str:
    """SHA-256 of the keys of memories that were written here and not loaded."""
    digest = hashlib.sha256()
    for tensor in keys:
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_description(path: Path, file_format: str, model_sha256: str) -> dict[str, Any]:
    """JSON object that describes a store, checked for format, version and model. Raises UserError."""
    try:
        about = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(about, dict) or about.get("format") != file_format or about.get("version") != VERSION:
        raise UserError(f"{path} is not {file_format} version {VERSION}")
    if about.get("model_sha256") != model_sha256:
        raise UserError(
            f"{path.parent} was made for another model (its model hash is {str(about.get('model_sha256'))[:12]}, the "
            f"loaded model's {model_sha256[:12]}): use the model it was made for, or none"
        )
    return about


def load_memories(folder: Path, model: Model) -> ExplicitMemories:
    """Memories of a folder with memory.json and memories.safetensors.

    Raises UserError when a file is missing or damaged, or when the memories were written by another model.
    """
    require_rotary(model)
    about = read_description(folder / "memory.json", FORMAT, model.sha256)
    path = folder / "memories.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            keys, values, positions = (file.get_tensor(name) for name in ("keys", "values", "positions"))
        layers, ids = tuple(int(layer) for layer in about["layers"]), tuple(str(name) for name in about["ids"])
        wanted = (len(ids), len(layers), model.kv_heads, positions.shape[-1], model.d_head)
        if tuple(keys.shape) != wanted or tuple(values.shape) != wanted or tuple(positions.shape) != wanted[:-1]:
            raise UserError(f"{path} holds keys of shape {tuple(keys.shape)} and memory.json promises {wanted}")
        return ExplicitMemories(
            ids=ids,
            layers=layers,
            offset=int(about["offset"]),
            prefix=str(about["prefix"]),
            sha256=hash_file(path),
            keys=keys.float(),
            values=values.float(),
            positions=positions,
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{folder} is not a whole bank of explicit memories ({type(error).__name__}: {error})"
        ) from None


def fetch_memories(memories: ExplicitMemories, model: Model, ids: tuple[str, ...]) -> ExplicitBlocks:
    """Memories of these ids, keys turned to lie `offset` positions before the context, ready to attach."""
    require_rotary(model)
    assert model.attention is not None
    rows = torch.tensor([memories.find(name) for name in ids])
    keys = memories.keys[rows].to(model.device)
    turned = [
        shift_keys(keys[:, index], model.attention.frequencies[layer].to(model.device), -float(memories.offset))
        for index, layer in enumerate(memories.layers)
    ]
    return ExplicitBlocks(
        ids=ids,
        layers=memories.layers,
        keys=torch.stack(turned)[None],
        values=memories.values[rows].to(model.device).transpose(0, 1)[None],
        absent=(memories.positions[rows].to(model.device) < 0).transpose(0, 1)[None],
    )
