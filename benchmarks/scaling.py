"""Cost of EAP over all edges against length, layers and batch: `python benchmarks/scaling.py`.

Random weights, logit difference, positions summed; one of the three is changed at a time, the others stay at 32 tokens,
the shape's own layers and one pair. *Bare* as in `benchmarks/attribution.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from options import describe, read_options
from shapes import (
    LENGTH,
    build_config,
    build_shape,
    draw_inputs,
    measure,
    measure_peak,
    print_table,
    run_backward,
    run_forward,
)

from circuits.attribution import attribute
from circuits.problem import pose_problem
from probes.models import Model
from probes.progress import quiet

LENGTHS = (32, 128, 512, 1024, 2048)
LAYERS = (2, 4, 8, 16)
BATCHES = (1, 2, 4, 8, 16)


def compare(model: Model, length: int, batch: int, repeats: int, clock: str) -> dict[str, object]:
    """Edges, seconds of the bare passes and of EAP, their ratio, and that of peak memory."""
    inputs = draw_inputs(model, batch, length)
    problem = pose_problem(model, inputs, summed=True)
    work = {
        "forward": lambda: run_forward(model, inputs.counterfactual),
        "backward": lambda: run_backward(model, inputs.clean),
        "EAP": lambda: attribute(pose_problem(model, inputs, summed=True, differentiable=True), quiet),
    }
    edges = problem.wiring.edges
    del problem
    seconds = measure(work, repeats, clock)
    bare = seconds["forward"] + seconds["backward"]
    peak = measure_peak(work["backward"]), measure_peak(work["EAP"])
    return {
        "tokens": length,
        "layers": model.layers,
        "batch": batch,
        "edges": edges,
        "bare, s": bare,
        "EAP, s": seconds["EAP"],
        "EAP / bare": seconds["EAP"] / bare,
        "EAP peak / bare": peak[1] / peak[0],
    }


def main() -> None:
    """Print one row a length, number of layers and batch size of each shape."""
    options = read_options(__doc__, ("llama",))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for shape in options.shapes:
            own = build_config(shape).num_hidden_layers
            for layers in sorted({own, *LAYERS}):
                folder = Path(temporary) / f"{shape}-{layers}"
                model = build_shape(shape, folder, options.dtype, options.device, layers)
                sizes = [(LENGTH, 1)]
                if layers == own:
                    sizes = [*((length, 1) for length in LENGTHS), *((LENGTH, batch) for batch in BATCHES[1:])]
                for length, batch in sizes:
                    rows.append({"shape": shape} | compare(model, length, batch, options.repeats, options.clock))
                    print(rows[-1], file=sys.stderr, flush=True)
    print(describe(options))
    print_table(rows)


if __name__ == "__main__":
    main()
