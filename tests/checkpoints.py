"""Random-weight checkpoints of several architectures, written to disk once a process, and models loaded from them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from probes.attachments import BankBlocks, ExplicitBlocks
from probes.blocks import Design, measure_widths
from probes.models import Model, load_model

SHAPES = (
    "gpt2", "gptj", "pythia", "phi", "llama", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral", "qwen3-moe"
)  # fmt: skip
PARALLEL = ("gptj", "pythia", "phi")
MIXTURES = ("mixtral", "qwen3-moe")
# GPT-J turns neighbouring numbers of a query, and its angles are at no public hook.
ROTARY = tuple(shape for shape in SHAPES if shape not in ("gpt2", "gptj"))
TEXT = "The capital of France is Paris. The capital of Italy is Rome. Anna lives in Oslo and eats plums."


@cache
def make_root() -> Path:
    """Folder of this process's checkpoints, removed at exit."""
    root = Path(tempfile.mkdtemp(prefix="checkpoints-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def train_tokenizer() -> Any:
    """A byte-level BPE tokenizer that puts <s> before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([TEXT] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def build_config(shape: str, vocabulary: int) -> Any:
    """Configuration of a three-layer model of an architecture, weights wide enough to make every part matter."""
    import transformers as t

    common = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.15}
    llama = common | {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    few = {key: value for key, value in llama.items() if key != "num_key_value_heads"}
    match shape:
        case "gptj":
            return t.GPTJConfig(**common, n_embd=32, n_layer=3, n_head=4, n_positions=128, rotary_dim=4)
        case "phi":
            return t.PhiConfig(**few)
        case "gemma3":
            windows = ["sliding_attention", "full_attention", "sliding_attention"]
            return t.Gemma3TextConfig(
                **llama, head_dim=8, query_pre_attn_scalar=8, sliding_window=4, layer_types=windows
            )
        case "mixtral":
            return t.MixtralConfig(**llama, num_local_experts=4, num_experts_per_tok=2)
        case "qwen3-moe":
            return t.Qwen3MoeConfig(**llama, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
        case "granite":
            return t.GraniteConfig(**llama, residual_multiplier=0.5)
        case "gpt2":
            return t.GPT2Config(**common, n_embd=32, n_layer=3, n_head=4, n_positions=128)
        case "pythia":
            return t.GPTNeoXConfig(**few, use_parallel_residual=True)
        case "llama":
            return t.LlamaConfig(**llama, head_dim=8, tie_word_embeddings=True)
        case "qwen2":
            return t.Qwen2Config(**llama)
        case "qwen3":
            return t.Qwen3Config(**llama, head_dim=8)
        case "gemma2":
            return t.Gemma2Config(**llama, head_dim=8, query_pre_attn_scalar=8)
    raise ValueError(shape)


@cache
def write_checkpoint(shape: str) -> Path:
    """Folder of a random checkpoint with its tokenizer; biases and norms are random too, none hides at 0 or 1."""
    from transformers import AutoModelForCausalLM

    tokenizer = train_tokenizer()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(build_config(shape, len(tokenizer)))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    folder = make_root() / shape
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@cache
def load_shape(shape: str) -> Model:
    """Model of a shape, shared by the tests of a process."""
    return load_model(str(write_checkpoint(shape)), device="cpu")


def make_explicit(model: Model, layers: tuple[int, ...] = (0, 2), blocks: int = 2, seed: int = 1) -> ExplicitBlocks:
    """Random explicit memories of three slots, the last slot of the second absent in the first memory layer."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, len(layers), blocks, model.kv_heads, 3, model.d_head)
    keys, values = torch.randn(shape, generator=generator) * 2, torch.randn(shape, generator=generator)
    absent = torch.zeros(shape[:-1], dtype=torch.bool)
    absent[0, 0, -1, :, 2] = True
    return ExplicitBlocks(tuple(f"block {i}" for i in range(blocks)), layers, keys, values, absent)


def make_bank(
    model: Model, layers: tuple[int, ...] = (1, 2), units: tuple[int, ...] = (3, 2), seed: int = 2
) -> BankBlocks:
    """Random bank blocks of two levels."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> tuple[torch.Tensor, ...]:
        return tuple(torch.randn(1, len(layers), count, model.d_model, generator=generator) * 0.3 for count in units)

    return BankBlocks((1, 5), layers, {name: draw() for name in ("gate", "up", "down")})


def make_blocks(
    model: Model,
    kind: str,
    targets: tuple[str, ...] = (),
    layers: tuple[int, ...] = (1, 2),
    ranks: tuple[int, ...] = (3, 2),
    seed: int = 2,
) -> BankBlocks:
    """Random blocks of any kind, two levels; nothing that they write with is zero."""
    generator = torch.Generator().manual_seed(seed)
    design = Design(kind, measure_widths(model), layers, ranks, branching=2, targets=targets)
    levels = [design.shape_tensors(level) for level in range(1, len(ranks) + 1)]
    weights = {
        name: tuple(torch.randn(1, *level[name], generator=generator) * 0.3 for level in levels) for name in levels[0]
    }
    return BankBlocks((1, 3), layers, weights, kind, 2.0)
