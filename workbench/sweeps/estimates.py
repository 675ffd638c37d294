"""What a sweep would cost on GPUs: passes counted on a sample of facts, put into time by operations and assumptions.

1. A sample of facts is measured as a sweep measures it, and every pass of the model is counted: tokens through its
   layers, with and without a backward pass, and rows whose logits are read.
2. A token costs 2 operations a weight of the layers, a backward pass to activations alone as many again; logits cost 2
   a number of the unembedding, for each row. Attention between tokens and the memories' own numbers are left out:
   short prompts, small blocks.
3. Hours = operations x overhead / (GPUs in use x peak x utilisation). A model whose weights do not fit one GPU takes
   several, and facts are spread over as many copies as there is room for.

Peak and utilisation are assumptions and stand in the answer. The overhead (time of a sweep over that of its bare
passes) is measured here and now on the loaded model, or given; of a small model, whose passes are short, it is larger
than that of the models it is used for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from probes.facts import Fact
from workbench.costs.shapes import Shape
from workbench.engine import Engine
from workbench.sweeps.overhead import record_runs
from workbench.sweeps.plans import Order

# Published configurations: Llama 3.2 1B, Llama 3.1 8B and 70B.
SHAPES = {
    "1B": Shape(16, 32, 8, 64, 2048, 8192, 128_256, tied=True),
    "8B": Shape(32, 32, 8, 128, 4096, 14_336, 128_256),
    "70B": Shape(80, 64, 8, 128, 8192, 28_672, 128_256),
}


@dataclass(frozen=True, slots=True)
class Passes:
    """Mean over facts: tokens through all layers forwards and backwards, and rows of prompts."""

    forward: float
    backward: float
    rows: float


@dataclass(frozen=True, slots=True)
class Assumptions:
    """A GPU's peak in TFLOP/s, the share of it that is reached, wall time over that of the bare passes, a GPU's memory
    in GB, and the share of it that weights (of 16 bits) may take.
    """

    overhead: float
    peak: float = 989.0
    utilisation: float = 0.3
    gigabytes: float = 80.0
    weights: float = 0.8


@dataclass(frozen=True, slots=True)
class Estimate:
    """One model on so many GPUs: GPUs a copy, copies, hours and GPU-hours (None where it does not fit)."""

    model: str
    gpus: int
    each: int
    copies: int
    hours: float | None
    gpu_hours: float | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def count_passes(engine: Engine, order: Order, facts: Sequence[Fact]) -> Passes:
    """Passes that a sweep runs of these facts, as they are run, by fact."""
    runs, _ = record_runs(engine, order, facts)
    forward, backward = sum(run.tokens for run in runs), sum(run.tokens for run in runs if run.backward)
    return Passes(forward / len(facts), backward / len(facts), sum(run.rows for run in runs) / len(facts))


def count_operations(shape: Shape, passes: Passes) -> float:
    """Operations of one fact on a model of a shape."""
    layers = 2 * shape.layers * (shape.attention_weights + shape.ffn_weights)
    logits = 2 * shape.vocabulary * shape.d_model
    return layers * (passes.forward + passes.backward) + logits * passes.rows * (1 + passes.backward / passes.forward)


def estimate(name: str, shape: Shape, passes: Passes, facts: int, gpus: int, assumed: Assumptions) -> Estimate:
    """Time of so many facts on so many GPUs."""
    each = math.ceil(shape.parameters * 2 / (assumed.gigabytes * assumed.weights * 1e9))
    copies = gpus // each
    if not copies:
        return Estimate(name, gpus, each, 0, None, None)
    speed = copies * each * assumed.peak * 1e12 * assumed.utilisation
    hours = facts * count_operations(shape, passes) * assumed.overhead / speed / 3600
    return Estimate(name, gpus, each, copies, hours, hours * copies * each)
