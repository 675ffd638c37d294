"""Decoding on a twin of the model without hook points: transformers' own modules over the same tensors.

Hook points cost about as much as a small model's own work on one token, so text is generated on a twin where the
architecture allows: it reads the same weights (nothing is copied) through an attention function of ours. Explicit
memories stand before the context in the twin's key-value cache, at the memory layers alone, and are exchanged there
once a chunk: a token then costs a few more keys and nothing else. Source: Yang et al. 2024, equation 4 (one softmax).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from probes.attachments import ExplicitBlocks
from probes.models import Model
from probes.reading import join_slots

ATTENTION = "memory_circuits_decoding"
# Built as Llama is: the attention function is told layer, window and cap, and sees keys after rotary.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
# Part of a parameter's name that TransformerLens adds around each of transformers' modules.
WRAPPING = "._original_component"


@dataclass(frozen=True, slots=True)
class Front:
    """Slots that stand before the context in a layer's cache; `absent` [1 head 1 slot] where some are not read."""

    count: int
    absent: Bool[Tensor, "1 head 1 slot"] | None = None


@dataclass(slots=True)
class Twin:
    """A text in progress on the twin: `read` extends it, `attach` exchanges the memories that are read from now on."""

    model: Model
    network: Any = field(repr=False)
    _cache: Any = None
    _fronts: dict[int, Front] = field(default_factory=dict)
    _length: int = 0

    def start(self) -> None:
        """Begin a new text without memories."""
        self._cache, self._fronts, self._length = self.model.start_cache(), {}, 0

    def attach(self, explicit: ExplicitBlocks | None) -> None:
        """Put these memories, of one row, in the place of those before."""
        fresh = {} if explicit is None else {layer: at for at, layer in enumerate(explicit.layers)}
        old, self._fronts = self._fronts, {}
        for layer in range(self.model.layers):
            joined = None if layer not in fresh or explicit is None else join_slots(explicit, fresh[layer])
            gone = old[layer].count if layer in old else 0
            if joined is None and not gone:
                continue
            self._exchange(layer, gone, joined)

    def _exchange(self, layer: int, gone: int, joined: tuple[Tensor, Tensor, Tensor | None] | None) -> None:
        parts: list[list[Tensor]] = [[], []]
        if joined is not None:
            dtype = self.model.final_norm.weight.dtype
            parts = [[part.to(self.model.device, dtype)] for part in joined[:2]]
            absent = joined[2]
            if absent is not None:
                absent = absent.repeat_interleave(self.model.heads // self.model.kv_heads, dim=1)[:, :, None]
            self._fronts[layer] = Front(parts[0][0].shape[2], absent)
        if layer < len(self._cache.layers) and self._cache.layers[layer].is_initialized:
            own = self._cache.layers[layer]
            own.keys, own.values = (
                torch.cat([*part, kept[:, :, gone:]], dim=2)
                for part, kept in zip(parts, (own.keys, own.values), strict=True)
            )
        else:
            self._cache.update(parts[0][0], parts[1][0], layer)

    def read(self, tokens: Sequence[int]) -> Float[Tensor, " d_vocab"]:
        """Logits after the last of these tokens, which the text is extended by."""
        ids = torch.tensor([list(tokens)], device=self.model.device)
        places = torch.arange(self._length, self._length + len(tokens), device=self.model.device)[None]
        with torch.no_grad():
            logits: Tensor = self.network(
                input_ids=ids, position_ids=places, past_key_values=self._cache, use_cache=True, logits_to_keep=1,
                fronts=self._fronts,
            ).logits  # fmt: skip
        self._length += len(tokens)
        return logits[0, -1].float()


def see_context(
    queries: int, keys: int, front: Front | None, window: int | None, device: torch.device
) -> Bool[Tensor, "1 heads queries keys"] | None:
    """Which keys each of the last positions sees: slots of the front, and the context up to itself inside the window.

    None where a single position sees everything.
    """
    slots = 0 if front is None else front.count
    context = keys - slots
    absent = None if front is None else front.absent
    if queries == 1 and absent is None and (window is None or window >= context):
        return None
    distance = torch.arange(context - queries, context, device=device)[:, None] - torch.arange(context, device=device)
    seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    if not slots:
        return seen[None, None]
    before = torch.ones(1, 1, queries, slots, dtype=torch.bool, device=device)
    if absent is not None:
        before = before & ~absent
    return torch.cat([before, seen.expand(*before.shape[:2], -1, -1)], dim=-1)


def attend(
    module: nn.Module,
    query: Float[Tensor, "row head pos d_head"],
    key: Float[Tensor, "row kv_head place d_head"],
    value: Float[Tensor, "row kv_head place d_head"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    fronts: dict[int, Front] | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "row pos head d_head"], None]:
    """Causal attention over the cache, slots before the context included, in one softmax."""
    front = None if fronts is None else fronts.get(int(module.layer_idx))  # type: ignore[arg-type]
    mask = see_context(query.shape[2], key.shape[2], front, sliding_window, query.device)
    if softcap is None:
        out = nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None
    # Gemma 2's scores, which no fused attention computes.
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * scale / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (scores.float().softmax(dim=-1).to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def build_twin(model: Model) -> Twin | None:
    """The twin of a model; None where its architecture, or the way it was loaded, allows none.

    A twin that does not give the model's own logits is none either: it is compared on a few tokens.
    """
    original = model.bridge.original_model
    if (
        original.config.model_type not in FAMILIES
        or model.attention is None
        or getattr(original, "hf_device_map", None)
    ):
        return None
    network = share_weights(original)
    if network is None:
        return None
    twin = Twin(model, network)
    tokens = torch.arange(min(8, model.context, model.d_vocab))
    twin.start()
    with torch.no_grad():
        wanted = model.run(tokens[None])[0, -1].float()
    close = 1e-4 if wanted.dtype == model.final_norm.weight.dtype else 5e-2
    difference = (twin.read(tokens.tolist()) - wanted).abs().max()
    return twin if float(difference) <= close * max(1.0, float(wanted.abs().max())) else None


def share_weights(original: Any) -> Any:
    """Transformers' own model over the tensors of a wrapped one; None where the wrapped one lacks a tensor of it."""
    from transformers import AttentionInterface, AutoModelForCausalLM

    AttentionInterface.register(ATTENTION, attend)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(copy.deepcopy(original.config), attn_implementation=ATTENTION)
    weights = {name.replace(WRAPPING, ""): weight for name, weight in original.named_parameters(remove_duplicate=False)}
    # The wrapped model has them under names of TransformerLens too.
    wanted = dict(network.named_parameters(remove_duplicate=False))
    if any(name not in weights or weights[name].shape != weight.shape for name, weight in wanted.items()):
        return None
    network.load_state_dict({name: weights[name] for name in wanted}, strict=False, assign=True)
    owners = dict(network.named_modules())
    for name, buffer in original.named_buffers():
        parent, _, leaf = name.replace(WRAPPING, "").rpartition(".")
        if parent in owners and leaf in dict(owners[parent].named_buffers(recurse=False)):
            owners[parent].register_buffer(leaf, buffer, persistent=False)
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        return None
    return network.eval()
