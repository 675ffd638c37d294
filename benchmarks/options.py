"""What every benchmark can be told on its command line, and the models that it then runs on."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from shapes import build_shape

from probes.models import Model, choose_device


def read_options(
    description: str | None, shapes: tuple[str, ...] = ("gpt2", "llama"), own: argparse.ArgumentParser | None = None
) -> argparse.Namespace:
    """Options of a benchmark, with its `own`; sets the number of threads."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[] if own is None else [own],
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--shapes", nargs="+", choices=["gpt2", "llama", "llama-1b"], default=list(shapes))
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="auto", help="auto, cpu or a CUDA device")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time of this process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def build_models(options: argparse.Namespace) -> Iterator[tuple[str, Model]]:
    """Each shape asked for, with its model."""
    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            yield shape, build_shape(shape, Path(temporary) / shape, options.dtype, options.device)


def describe(options: argparse.Namespace, timed: bool = True) -> str:
    """How the numbers below were taken; those that are no times were taken once."""
    clock = "processor time" if options.clock == "cpu" else "wall clock"
    device = choose_device(options.device)
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{options.threads} threads"
    how = f", {clock}, medians of {options.repeats} in turn" if timed else ""
    return f"{options.dtype}, {where}{how}, torch {torch.__version__}\n"
