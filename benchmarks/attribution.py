"""Edge attribution patching beside the bare passes of the same model: `python benchmarks/attribution.py`.

Random weights, 32 tokens, logit difference, float32. *Bare* is what an ideal implementation cannot avoid: a forward
pass of the counterfactual, a forward and backward pass of the clean prompts (gradients to activations only). Both
sides run in this process in turn; medians of `--repeats`. Read the ratios: seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from circuits.attribution import attribute, attribute_along_path
from circuits.metrics import build_readout
from circuits.problem import Inputs, pose_problem
from probes.attachments import NOTHING
from probes.models import Model, load_model

LENGTH = 32
STEPS = 5


def build_config(shape: str) -> Any:
    """Configuration of a shape: GPT-2 small, or an eight-layer Llama with grouped key-value heads."""
    from transformers import GPT2Config, LlamaConfig

    if shape == "gpt2":
        return GPT2Config(bos_token_id=0, eos_token_id=1)
    return LlamaConfig(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )


def write_checkpoint(shape: str, folder: Path) -> None:
    """Random weights of a shape, with a tokenizer of single bytes (no text is read here)."""
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(build_config(shape)).save_pretrained(folder)
    vocabulary = {"<s>": 0, "</s>": 1} | {chr(97 + i): 2 + i for i in range(26)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def measure(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each piece of work, run in turn after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for round_number in range(repeats + 1):
        for name, function in work.items():
            start = time.perf_counter()
            function()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def run_bare(model: Model, tokens: torch.Tensor) -> None:
    """Forward and backward pass of the clean prompts, to the embedding alone."""
    kept: list[torch.Tensor] = []

    def start(stream: torch.Tensor, hook: object) -> torch.Tensor:
        kept.append(stream.detach().requires_grad_(True))
        return kept[0]

    logits = model.run(tokens, [("blocks.0.hook_in", start)])
    torch.autograd.grad((logits[:, -1, 5] - logits[:, -1, 9]).mean(), kept)


def compare(model: Model, batch: int, repeats: int) -> dict[str, float]:
    """Seconds of the bare passes and of EAP and EAP-IG over all edges, and their ratios."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(2, 2000, (batch, LENGTH), generator=generator)
    other = clean.clone()
    other[:, 5:12] = torch.randint(2, 2000, (batch, 7), generator=generator)
    readout = build_readout([LENGTH] * batch, [[5]] * batch, [[9]] * batch)
    inputs = Inputs(clean, other, NOTHING, NOTHING, readout)

    def quiet(label: str, done: int, total: int) -> None:
        """No progress here."""

    def run_forward() -> None:
        with torch.no_grad():
            model.run(other)

    work = {
        "forward": run_forward,
        "forward and backward": lambda: run_bare(model, clean),
        "EAP": lambda: attribute(pose_problem(model, inputs, summed=True, differentiable=True), quiet),
        "EAP-IG": lambda: attribute_along_path(pose_problem(model, inputs, summed=True), STEPS, quiet),
    }
    row = measure(work, repeats)
    row["EAP / bare"] = row["EAP"] / (row["forward"] + row["forward and backward"])
    row["EAP-IG / bare"] = row["EAP-IG"] / (2 * row["forward"] + STEPS * row["forward and backward"])
    return row


def main() -> None:
    """Print one row a shape and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for shape in ("gpt2", "llama"):
            folder = Path(temporary) / shape
            write_checkpoint(shape, folder)
            model = load_model(str(folder), device="cpu")
            for batch in options.batches:
                rows.append({"shape": shape, "batch": batch, **compare(model, batch, options.repeats)})
                if not options.json:
                    print(
                        "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items())
                    )
    if options.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
