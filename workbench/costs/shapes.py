"""The shape of a model, as far as costs depend on it, and its parameters counted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder.

    `gated` FFNs have three matrices (SwiGLU), others two. `tied` embeddings are counted once. `query_key_norms` are
    learned norms over all of a layer's query (and key) numbers.
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

    @property
    def d_attention(self) -> int:
        """Numbers of all heads together; the paper's formulas write d for it, as there heads x d_head = d."""
        return self.heads * self.d_head

    @property
    def attention_weights(self) -> int:
        """Numbers in the four attention matrices of a layer."""
        return 2 * self.d_model * self.d_attention + 2 * self.d_model * self.kv_heads * self.d_head

    @property
    def ffn_weights(self) -> int:
        """Numbers in the FFN matrices of a layer."""
        return (3 if self.gated else 2) * self.d_model * self.d_ffn

    @property
    def block_weights(self) -> int:
        """Numbers in the matrices of all layers; embedding, norms and biases left out."""
        return self.layers * (self.attention_weights + self.ffn_weights)

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
        config = json.loads(path.read_text())
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
    width = config.get("intermediate_size") or config.get("n_inner") or 4 * sizes["d_model"]
    return Shape(
        **sizes,
        kv_heads=int(config.get("num_key_value_heads") or sizes["heads"]),
        d_head=int(config.get("head_dim") or sizes["d_model"] // sizes["heads"]),
        d_ffn=int(width),
        gated=kind not in UNGATED,
        tied=bool(config.get("tie_word_embeddings", kind == "gpt2")),
        query_key_norms=kind in ("qwen3", "gemma3", "gemma3_text"),
    )


def find_size(config: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first of these keys that is there. Raises `UserError` when none is."""
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    raise UserError(f"the model's configuration has no {' or '.join(names)}")
