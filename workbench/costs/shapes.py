"""The shape of a model, as far as costs depend on it, and its parameters counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError
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
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a model configuration: it holds no JSON object")
    return parse_shape(config.get("text_config", config))


# Names of each size in the configurations of GPT-2, Pythia (GPT-NeoX), GPT-J, and Llama-like models.
NAMES = {
    "layers": ("num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "d_model": ("hidden_size", "n_embd"),
    "vocabulary": ("vocab_size",),
}
UNGATED = ("gpt2", "gpt_neox", "gptj", "phi")


def parse_shape(config: dict[str, Any]) -> Shape:
    """Shape from the keys of a Hugging Face configuration. Raises `UserError` for the first size that is missing."""
    sizes = {size: find_size(config, names) for size, names in NAMES.items()}
    kind = str(config.get("model_type", ""))
    experts = int(config.get("num_local_experts") or config.get("num_experts") or 1)
    width = (config.get("moe_intermediate_size") if experts > 1 else None) or config.get("intermediate_size")
    width = width or config.get("n_inner") or 4 * sizes["d_model"]
    return Shape(
        **sizes,
        kv_heads=int(config.get("num_key_value_heads") or sizes["heads"]),
        d_head=int(config.get("head_dim") or sizes["d_model"] // sizes["heads"]),
        d_ffn=int(width),
        gated=kind not in UNGATED,
        tied=bool(config.get("tie_word_embeddings", kind == "gpt2")),
        query_key_norms=kind in ("qwen3", "qwen3_moe", "gemma3", "gemma3_text"),
        experts=experts,
        active=int(config.get("num_experts_per_tok") or 1) if experts > 1 else 1,
    )


def find_size(config: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first of these keys that is there. Raises `UserError` when none is."""
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    raise UserError(f"the model's configuration has no {' or '.join(names)}")
