"""Memory that loading a checkpoint takes at its peak, and its estimate: `PYTHONPATH=. python benchmarks/loading.py`.

Random checkpoints of several shapes are written to disk in two dtypes, and each is loaded on the CPU in both, in a
child process that has loaded another before. *Peak* is the largest memory that loading added (Linux): where the dtype
stays, the weights remain pages of the mapped file and work needs them there, so it is the whole resident set; where
it changes, the pages of the file are the system's to take back, so it is what the process holds for itself (pages
that no file backs, sampled every millisecond). *Factor* is the peak over the weights' bytes as loaded, *estimate* the
factor that `probes/memory_needs.py` tells before loading, its constant included. Exit code 1 where a peak exceeds it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from processes import read_status
from shapes import format_table

from probes.memory_needs import estimate_need
from probes.models import DTYPES, load_model, quieten_libraries

MEBIBYTE = 1 << 20
EVERY = 0.001
SHAPES = ("gpt2", "pythia", "phi", "llama", "gemma2", "mixtral", "qwen3-moe")
TYPES = ("float32", "bfloat16")


class Watch(threading.Thread):
    """Keeps the largest memory that this process held for itself until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._end = 0, threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self._end.is_set():
            self.peak = max(self.peak, read_status("RssAnon"))
            time.sleep(EVERY)

    def stop(self) -> int:
        """The largest so far, the present included."""
        self._end.set()
        self.join()
        return max(self.peak, read_status("RssAnon"))


def measure_here(options: argparse.Namespace) -> None:
    """Load in this process and print what it took, as JSON."""
    load_model(options.warm, dtype=options.dtype, device="cpu")
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    own, whole, watch = read_status("RssAnon"), read_status("VmRSS"), Watch()
    watch.start()
    load_model(options.folder, dtype=options.dtype, device="cpu")
    print(json.dumps({"own": watch.stop() - own, "whole": read_status("VmHWM") - whole}))


def measure_apart(folder: Path, warm: Path, dtype: str) -> dict[str, int]:
    """The same in a child process."""
    command = [sys.executable, __file__, "--folder", str(folder), "--warm", str(warm), "--dtype", dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def build_config(shape: str) -> Any:
    """Configuration of a shape with some 40 million parameters."""
    import transformers as t

    sizes: dict[str, Any] = {"vocab_size": 8000, "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 512}
    sizes |= {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 5, "num_attention_heads": 12}
    few = sizes | {"hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8}
    grouped = {"num_key_value_heads": 4}
    match shape:
        case "gpt2":
            return t.GPT2Config(vocab_size=8000, bos_token_id=0, eos_token_id=1, n_layer=5)
        case "llama":
            return t.LlamaConfig(**sizes, **grouped)
        case "gemma2":
            return t.Gemma2Config(**sizes, **grouped, head_dim=64)
        case "pythia":
            return t.GPTNeoXConfig(**sizes, use_parallel_residual=True)
        case "phi":
            return t.PhiConfig(**sizes)
        case "mixtral":
            return t.MixtralConfig(**few, **grouped, num_local_experts=4, num_experts_per_tok=2)
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
    return t.Qwen3MoeConfig(**few, **grouped, head_dim=64, **experts)


def write(shape: str, dtype: str, folder: Path) -> Path:
    """A random checkpoint of a shape, with a tokenizer of letters."""
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    quieten_libraries()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(build_config(shape)).to(DTYPES[dtype]).save_pretrained(folder)
    vocabulary = {"<s>": 0, "</s>": 1} | {chr(97 + i): 2 + i for i in range(26)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


def compare(shape: str, stored: str, dtype: str, folder: Path, warm: Path) -> dict[str, object]:
    """The row of one shape, stored in one dtype and loaded in another."""
    need = estimate_need(folder, dtype)
    assert need is not None
    found = measure_apart(folder, warm, dtype)
    peak = found["whole" if stored == dtype else "own"]
    return {
        "shape": shape,
        "stored": stored,
        "loaded": dtype,
        "weights, MiB": round(need.weights / MEBIBYTE),
        "peak, MiB": round(peak / MEBIBYTE),
        "factor": peak / need.weights,
        "estimate": need.peak / need.weights,
    }


def main() -> int:
    """Print one row a shape, stored dtype and loaded dtype; 1 when a peak exceeds its estimate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    for name in ("--folder", "--warm", "--dtype"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        measure_here(options)
        return 0
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        warm = write("llama", "float32", Path(temporary) / "warm")
        for shape, stored in itertools.product(options.shapes, TYPES):
            folder = write(shape, stored, Path(temporary) / f"{shape}-{stored}")
            rows += [compare(shape, stored, dtype, folder, warm) for dtype in TYPES]
            shutil.rmtree(folder)
    print(format_table(rows))
    return int(any(float(str(row["factor"])) > float(str(row["estimate"])) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
