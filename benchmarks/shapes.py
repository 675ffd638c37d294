"""Random models of known shapes, prompt pairs for them, and how work on them is timed; shared by the benchmarks.

Nothing here depends on weights or text: scores are random, only their cost is measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from circuits.metrics import build_readout
from circuits.problem import Inputs
from probes.attachments import NOTHING
from probes.models import DTYPES, Model, load_model
from workbench.documents import render_table

LENGTH = 32
Work = dict[str, Callable[[], object]]


def build_config(shape: str, layers: int | None = None) -> Any:
    """Configuration of a shape: GPT-2 small, an eight-layer Llama with grouped key-value heads, or Llama 3.2 1B.

    `layers` replaces the shape's own number; contexts are 2,048 tokens.
    """
    from transformers import GPT2Config, LlamaConfig

    if shape == "gpt2":
        return GPT2Config(bos_token_id=0, eos_token_id=1, n_positions=2048, n_layer=layers or 12)
    sizes = {"llama": (512, 1376, 8, 8, 2, 32_000), "llama-1b": (2048, 8192, 16, 32, 8, 128_256)}
    width, hidden, depth, heads, kv_heads, vocabulary = sizes[shape]
    return LlamaConfig(
        vocab_size=vocabulary,
        tie_word_embeddings=shape == "llama-1b",
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers or depth,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
    )


def write_shape(shape: str, folder: Path, dtype: str, layers: int | None = None) -> None:
    """Checkpoint of a shape with random weights and a tokenizer of letters (no text is read)."""
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(build_config(shape, layers)).to(DTYPES[dtype]).save_pretrained(folder)
    vocabulary = {"<s>": 0, "</s>": 1} | {chr(97 + i): 2 + i for i in range(26)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def build_shape(shape: str, folder: Path, dtype: str, device: str, layers: int | None = None) -> Model:
    """A model of a shape, written and loaded."""
    write_shape(shape, folder, dtype, layers)
    return load_model(str(folder), dtype=dtype, device=device)


def draw_inputs(model: Model, batch: int, length: int = LENGTH) -> Inputs:
    """Pairs of random prompts that differ in a few tokens, without memories."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(2, 2000, (batch, length), generator=generator)
    other = clean.clone()
    changed = slice(length // 6, length // 6 + max(1, length // 5))
    other[:, changed] = torch.randint(2, 2000, other[:, changed].shape, generator=generator)
    readout = build_readout([length] * batch, [[5]] * batch, [[9]] * batch, str(model.device))
    return Inputs(clean.to(model.device), other.to(model.device), NOTHING, NOTHING, readout)


def run_forward(model: Model, tokens: torch.Tensor) -> None:
    """The bare forward pass."""
    with torch.no_grad():
        model.run(tokens)


def run_backward(model: Model, tokens: torch.Tensor) -> None:
    """The bare forward and backward pass, to the embedding alone."""
    kept: list[torch.Tensor] = []

    def start(stream: torch.Tensor, hook: object) -> torch.Tensor:
        kept.append(stream.detach().requires_grad_(True))
        return kept[0]

    logits = model.run(tokens, [("blocks.0.hook_in", start)])
    torch.autograd.grad((logits[:, -1, 5] - logits[:, -1, 9]).mean(), kept)


def read_clock(clock: str) -> float:
    """Seconds of the wall clock, or of this process's own processor time (steadier on a busy machine)."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time() if clock == "cpu" else time.perf_counter()


def measure(work: Work, repeats: int, clock: str) -> dict[str, float]:
    """Median seconds of each piece of work, run in turn after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for round_number in range(repeats + 1):
        for name, function in work.items():
            start = read_clock(clock)
            function()
            if round_number:
                seconds[name].append(read_clock(clock) - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_table(rows: Sequence[dict[str, object]]) -> None:
    """Rows as a Markdown table, numbers to three digits."""
    print(format_table(rows))


def format_table(rows: Sequence[dict[str, object]]) -> str:
    """Rows as a Markdown table, numbers to three digits."""
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    return render_table(list(rows[0]), cells)
