"""The shape of a model, as far as costs depend on it, and its parameters counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.memory_needs import LARGEST
from probes.strict_json import parse_json


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder.

    `gated` FFNs have three matrices (SwiGLU), others two. `tied` embeddings are counted once. `query_key_norms` are
    learned norms over all of a layer's query (and key) numbers. A layer has `experts` FFNs of width `d_ffn`, of which a
    token passes through `active` ones, chosen by a router where there are several.
    """

    layers: int
    heads: int
    kv_heads: int
    d_head: int
    d_model: int
    d_ffn: int
    vocabulary: int
    gated: bool = True
    tied: bool = False
    query_key_norms: bool = False
    experts: int = 1
    active: int = 1

    @property
    def d_attention(self) -> int:
        """Numbers of all heads together; the paper's formulas write d for it, as there heads x d_head = d."""
        return self.heads * self.d_head

    @property
    def attention_weights(self) -> int:
        """Numbers in the four attention matrices of a layer."""
        return 2 * self.d_model * self.d_attention + 2 * self.d_model * self.kv_heads * self.d_head

    @property
    def router_weights(self) -> int:
        """Numbers in the matrix of a layer that chooses experts."""
        return self.d_model * self.experts if self.experts > 1 else 0

    @property
    def ffn_weights(self) -> int:
        """Numbers in the FFN matrices of a layer (and its router) that one token passes through."""
        return self.active * self.expert_weights + self.router_weights

    @property
    def expert_weights(self) -> int:
        """Numbers in the matrices of one FFN."""
        return (3 if self.gated else 2) * self.d_model * self.d_ffn

    @property
    def layer_weights(self) -> int:
        """Numbers in all matrices of a layer."""
        return self.attention_weights + self.experts * self.expert_weights + self.router_weights

    @property
    def block_weights(self) -> int:
        """Numbers in the matrices of all layers; embedding, norms and biases left out."""
        return self.layers * self.layer_weights

    @property
    def parameters(self) -> int:
        """All parameters: matrices, embedding (twice when not tied), two norms a layer and a last one; no biases."""
        norms = 2 * self.d_model + (2 * self.d_attention if self.query_key_norms else 0)
        embeddings = self.vocabulary * self.d_model * (1 if self.tied else 2)
        return self.block_weights + self.layers * norms + self.d_model + embeddings


def read_shape(folder: Path) -> Shape:
    """Shape of a Hugging Face checkpoint, from its config.json.

    Raises `UserError` for a missing file, one that is not JSON, or one that lacks a size.
    """
    path = folder / "config.json"
    try:
        config = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    inner = config.get("text_config", config) if isinstance(config, dict) else None
    if not isinstance(inner, dict):
        raise UserError(f"{path} is not a model configuration: it holds no JSON object")
    return parse_shape(inner)


# Names of each size in the configurations of GPT-2, Pythia (GPT-NeoX), GPT-J, and Llama-like models.
NAMES = {
    "layers": ("num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "d_model": ("hidden_size", "n_embd"),
    "vocabulary": ("vocab_size",),
}
UNGATED = ("gpt2", "gpt_neox", "gptj", "phi")


def parse_shape(config: dict[str, Any]) -> Shape:
    """Shape from the keys of a Hugging Face configuration. Raises `UserError` for a missing or impossible size."""
    sizes = {size: find_size(config, names) for size, names in NAMES.items()}
    kind = str(config.get("model_type", ""))
    experts = find_size(config, ("num_local_experts", "num_experts"), 1)
    widths = (*(("moe_intermediate_size",) if experts > 1 else ()), "intermediate_size", "n_inner")
    return Shape(
        **sizes,
        kv_heads=find_size(config, ("num_key_value_heads",), sizes["heads"]),
        d_head=find_size(config, ("head_dim",), max(1, sizes["d_model"] // sizes["heads"])),
        d_ffn=find_size(config, widths, 4 * sizes["d_model"]),
        gated=kind not in UNGATED,
        tied=bool(config.get("tie_word_embeddings", kind == "gpt2")),
        query_key_norms=kind in ("qwen3", "qwen3_moe", "gemma3", "gemma3_text"),
        experts=experts,
        active=find_size(config, ("num_experts_per_tok",), 1) if experts > 1 else 1,
    )


def find_size(config: dict[str, Any], names: tuple[str, ...], default: int = 0) -> int:
    """The first of these keys that says something, else the default.

    Raises `UserError` for what is no size of a model, and where there is neither key nor default.
    """
    for value in (config[name] for name in names if config.get(name)):
        if type(value) is not int or not 0 < value <= LARGEST:
            raise UserError(f"the model's configuration has {str(value)[:40]!r} for {' or '.join(names)}: no size")
        return value
    if default:
        return default
    raise UserError(f"the model's configuration has no {' or '.join(names)}")
