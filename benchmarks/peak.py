"""Peak memory of EAP beside that of the bare forward and backward pass: `python benchmarks/peak.py`.

Each piece of work runs once in a child process of its own, which loads the model, forgets the peak of loading and reads
the peak of the work: resident memory of the process on a CPU (Linux), memory allocated by torch on CUDA. *Bare* keeps
what its own backward pass needs; EAP keeps besides two recorded runs, their difference [writer batch pos d_model],
the gradients at the readers of one layer [reader batch pos d_model] and the scores. The ratio is of whole peaks, the
model included; the last row says what is wanted at most.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from options import describe, read_options
from processes import read_status
from shapes import draw_inputs, print_table, run_backward, write_shape

from circuits.attribution import attribute, attribute_along_path
from circuits.problem import Inputs, pose_problem
from probes.models import Model, choose_device, load_model
from probes.progress import quiet

WORK = ("bare", "EAP", "EAP-IG")
MEBIBYTE = 1 << 20


def run(work: str, model: Model, inputs: Inputs) -> None:
    """One piece of work, positions summed as in the other benchmarks."""
    if work == "bare":
        run_backward(model, inputs.clean)
    elif work == "EAP":
        attribute(pose_problem(model, inputs, summed=True, differentiable=True), quiet)
    else:
        attribute_along_path(pose_problem(model, inputs, summed=True), 2, quiet)


def read_peak(device: str) -> int:
    """Largest memory in use since the last `forget_peak`, in bytes."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return read_status("VmHWM")


def forget_peak(device: str) -> None:
    """Give freed memory back to the system and start the peak anew at what is in use now."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    else:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def measure_here(options: argparse.Namespace) -> None:
    """Run one piece of work in this process and print what it took, as JSON."""
    device = choose_device(options.device)
    model = load_model(options.folder, dtype=options.dtype, device=device)
    inputs = draw_inputs(model, options.batches[0], options.lengths[0])
    forget_peak(device)
    before = read_peak(device)
    run(options.work, model, inputs)
    print(json.dumps({"model": before, "peak": read_peak(device)}))


def measure_apart(options: argparse.Namespace, work: str, folder: Path, batch: int, length: int) -> dict[str, int]:
    """The same in a child process."""
    chosen = {"work": work, "folder": folder, "batches": batch, "lengths": length}
    kept = {name: getattr(options, name) for name in ("dtype", "device", "threads")}
    command = [sys.executable, __file__]
    for name, value in {**chosen, **kept}.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(options: argparse.Namespace, shape: str, folder: Path, batch: int, length: int) -> dict[str, object]:
    """MiB of the model alone and of each piece of work at its peak, model included, and ratios."""
    found = {work: measure_apart(options, work, folder, batch, length) for work in WORK}
    peaks = {work: found[work]["peak"] / MEBIBYTE for work in WORK}
    row: dict[str, object] = {"shape": shape, "batch": batch, "tokens": length}
    row["model, MiB"] = round(found["bare"]["model"] / MEBIBYTE)
    row |= {f"{work}, MiB": round(peak) for work, peak in peaks.items()}
    return row | {f"{work} / bare": peaks[work] / peaks["bare"] for work in WORK[1:]}


def main() -> None:
    """Print one row a shape, batch size and length."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--lengths", type=int, nargs="+", default=[32], help="tokens of the prompts")
    own.add_argument("--work", choices=WORK, help="measure one piece of work in this process (with --folder)")
    own.add_argument("--folder", help="checkpoint for --work")
    options = read_options(__doc__, own=own)
    if options.work:
        measure_here(options)
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            folder = Path(temporary) / shape
            write_shape(shape, folder, options.dtype)
            rows += [compare(options, shape, folder, b, n) for b in options.batches for n in options.lengths]
    print(describe(options, timed=False))
    print_table([*rows, dict.fromkeys(rows[0], "") | {"shape": "at most", "EAP / bare": 1.5}])


if __name__ == "__main__":
    main()
