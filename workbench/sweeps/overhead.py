"""What a sweep costs beside its passes: it is timed, and then the same passes by the model itself.

Every pass that the sweep runs is noted with its rows, positions, and whether it has a backward pass. A *bare* pass has
the same size, by the model itself: no hooks beside the one that starts the graph, no memories, random tokens, logits at
every position as the model gives them. Facts are new to the sweep each time, so nothing is remembered from before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probes.facts import Fact
from workbench.engine import Engine
from workbench.sweeps.measuring import prepare_measurer
from workbench.sweeps.parts import encode_blocks
from workbench.sweeps.plans import COLUMNS, Order, pool_facts

if TYPE_CHECKING:
    from torch import Tensor

    from probes.models import Model


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of the model: prompts at once, positions of each, and whether it is run backwards too."""

    rows: int
    positions: int
    backward: bool

    @property
    def tokens(self) -> int:
        """Tokens through the layers."""
        return self.rows * self.positions


def record_runs(engine: Engine, order: Order, facts: Sequence[Fact]) -> tuple[list[Run], float]:
    """Passes that a sweep of these facts runs, and the seconds that it takes, with its parts encoded."""
    import torch

    runs = list[Run]()

    def note(stream: Tensor, hook: Any) -> None:
        runs.append(Run(stream.shape[0], stream.shape[1], torch.is_grad_enabled()))

    pools = pool_facts(engine.model, engine.facts, order.settings.seed)
    measurers = [prepare_measurer(engine, order, condition, pools) for condition in order.conditions]
    with engine.model.attach([("blocks.0.hook_in", note)]):
        start = read_clock()
        for measurer in measurers:
            encode_blocks(measurer.measure(facts), COLUMNS)
        seconds = read_clock() - start
    return runs, seconds


def run_bare(model: Model, runs: Sequence[Run]) -> float:
    """Seconds of the same passes by the model itself."""
    import torch

    kept = list[torch.Tensor]()

    def begin(stream: Tensor, hook: Any) -> Tensor:
        kept[:] = [stream.detach().requires_grad_(True)]
        return kept[0]

    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(model.d_vocab, (run.rows, run.positions), generator=generator) for run in runs]
    start = read_clock()
    for run, tokens in zip(runs, prompts, strict=True):
        with torch.set_grad_enabled(run.backward):
            logits = model.run(tokens, [("blocks.0.hook_in", begin)] if run.backward else [])
            if run.backward:
                torch.autograd.grad((logits[:, -1, 0] - logits[:, -1, 1]).mean(), kept)
    return read_clock() - start


def read_clock() -> float:
    """Seconds, when all that was asked of a GPU is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_overhead(engine: Engine, order: Order, samples: Sequence[Sequence[Fact]]) -> float:
    """Median over samples of the time of a sweep over that of its bare passes; the first only warms up.

    At least two samples.
    """
    ratios = list[float]()
    for facts in samples:
        runs, seconds = record_runs(engine, order, facts)
        ratios.append(seconds / run_bare(engine.model, runs))
    return statistics.median(ratios[1:])
