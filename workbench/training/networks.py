"""Models that can be trained here: opened from a folder with their weights in float32, and saved as they came."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probes.errors import UserError
from probes.models import BOOT_ERRORS, check_folder, choose_device, hash_weights, quieten_libraries
from workbench.training.attention import ATTENTION, attend

# Llama's plan: rotary attention behind `self_attn`, a feed-forward network `mlp`, blocks at `model.layers`.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
# Their angles depend on how long the text is, so a key that was written once could not be read in another.
CHANGING_ROTARY = ("dynamic", "longrope")
# Files of a checkpoint that training leaves as they are.
KEPT_FILES = (
    "config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "chat_template*", "generation_config.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Network:
    """A model to train: `model` in float32 on its device, and what was read from its folder."""

    folder: Path
    sha256: str
    dtype: torch.dtype
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return int(self.model.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """Numbers in the residual stream."""
        return int(self.model.config.hidden_size)

    @property
    def context(self) -> int:
        """Positions that the model reads."""
        return int(self.model.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device


def require_family(name: str, config: Any) -> None:
    """Raise UserError for an architecture that is not built as Llama is, with the reason."""
    kind = str(config.model_type)
    if kind in FAMILIES:
        form = getattr(config, "rope_parameters", None) or {}
        types = {str(part.get("rope_type")) for part in (form, *form.values()) if isinstance(part, dict)}
        if types.isdisjoint(CHANGING_ROTARY):
            return
        reason = f"its rotary angles change with the length of the text ({', '.join(sorted(types - {'None'}))})"
    elif getattr(config, "rope_parameters", None) or getattr(config, "rotary_dim", None):
        reason = "its blocks are not Llama's"
    else:
        reason = "it has no rotary attention (learned or other positions)"
    raise UserError(f"{name} ({kind}) cannot be trained here: {reason}; these can: {', '.join(FAMILIES)}")


def open_network(name: str, device: str, seed: int = 0, scratch: bool = False) -> Network:
    """Open a checkpoint folder for training; with `scratch` its weights are drawn anew from the seed.

    Raises UserError for a folder that is no checkpoint, and for an architecture that is not Llama's.
    """
    quieten_libraries()
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = check_folder(name)
    if folder is None:
        raise UserError(f"no model folder at {name}: training wants a folder, with config.json and .safetensors")
    AttentionInterface.register(ATTENTION, attend)
    options = {"attn_implementation": ATTENTION, "dtype": torch.float32}
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        require_family(name, config)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
        if scratch:
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, **options)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options)
    except BOOT_ERRORS as error:
        raise UserError(f"cannot load {name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    model.to(choose_device(device))
    return Network(folder, hash_weights(folder, None), dtype, model, tokenizer)


def save_network(network: Network, folder: Path) -> str:
    """Write the model as a checkpoint folder, in the precision it came in; returns the hash of its weights."""
    seen: dict[int, Tensor] = {}
    weights = {}
    for name, value in network.model.state_dict().items():
        # Tied weights stay one tensor, which is written once.
        weights[name] = seen.setdefault(value.data_ptr(), value.to("cpu", network.dtype))
    network.model.save_pretrained(folder, state_dict=weights)
    for pattern in KEPT_FILES:
        for path in network.folder.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    return hash_weights(folder, None)


def list_trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that training moves, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
