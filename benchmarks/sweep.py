"""Sweeps of EAP and ledgers beside the bare passes that they need, and two processes beside one.

Run `python benchmarks/sweep.py --processes 2`. *Bare* is what no implementation can avoid, by the model itself without
memories or hooks (but the one that starts the graph), the same tokens in the same batches: for EAP a forward pass of
the counterfactual and a forward and backward pass of the clean prompt, for a ledger a forward and backward pass of
every combination of formats. Not counted: a pass of its own for the answer with nothing attached (it is one of the
combinations), a repetition of the clean pass by the ledger's last combination (it is the same only where both have the
same foil), choosing, reading and writing. *Sweep* is ours with one process: counterfactuals chosen, memories read,
scores, ledgers, rows, Parquet bytes. *One process / 2* has the same jobs done by two processes that are ready, one
thread each. Loading is in neither.

The model itself computes logits at every position; ours at those that are read alone, which spares much of a small
model's work. *Strict* is sweep over bare passes that do the same.

Every round has facts that no round had before, so that nothing is remembered; ratios are medians over rounds, the
first of which warms up. Wanted: sweep / bare at most 1.5, one process / 2 at least 1.7 (on two cores with nothing else
to do). Read the ratios: seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import torch
from bulk import list_bare, spread
from options import describe, read_options
from shapes import print_table, read_clock, run_backward, run_forward

from circuits.problem import pad_tokens
from probes.facts import Fact
from probes.models import Model
from workbench.ledgers.prompts import build_asked
from workbench.settings import Settings
from workbench.sweeps.measuring import Measurer, prepare_measurer
from workbench.sweeps.plans import GIVEN, Job, Order, pool_facts
from workbench.sweeps.workers import Crew, Worker, gather_processes

# Tokens of a pass, and whether it is run backwards too.
Pass = tuple[torch.Tensor, bool]


def list_passes(measurer: Measurer, facts: Sequence[Fact]) -> Iterator[Pass]:
    """Tokens of every bare pass, and whether it has a backward pass."""
    size = measurer.settings.rows
    cases = [case for case in measurer.prepare(facts, measurer.pair).values() if not isinstance(case, str)]
    cases.sort(key=lambda case: len(case.pair.clean_ids))
    for start in range(0, len(cases), size):
        for side in (0, 1):
            yield pad_tokens([case.pair.fed_ids[side] for case in cases[start : start + size]]), side == 0
    laid = [one for one in measurer.prepare(facts, measurer.lay).values() if not isinstance(one, str)]
    laid.sort(key=lambda one: (one.condition, len(one.behind), len(one.plain)))
    for condition in sorted({one.condition for one in laid}):
        group = [one for one in laid if one.condition == condition]
        for start in range(0, len(group), size):
            for tokens in list_bare(build_asked(measurer.engine, group[start : start + size])):
                yield tokens, True


def run_passes(model: Model, passes: Sequence[Pass], ends: bool) -> None:
    """The bare passes; with `ends` logits are computed at the last position alone."""
    for tokens, backward in passes:
        with model.attach([("unembed.hook_in", keep_last)] if ends else []):
            (run_backward if backward else run_forward)(model, tokens)


def keep_last(stream: torch.Tensor, hook: object) -> torch.Tensor:
    """The last position alone."""
    return stream[:, -1:]


def cut(facts: Sequence[Fact], size: int) -> list[Job]:
    """Jobs of so many facts."""
    ids = [fact.id for fact in facts]
    starts = range(0, len(ids), size)
    return [Job(number, GIVEN, tuple(ids[start : start + size])) for number, start in enumerate(starts)]


def take_seconds(work: Callable[[], object], clock: str) -> float:
    """Seconds of a piece of work."""
    start = read_clock(clock)
    work()
    return read_clock(clock) - start


def time_round(worker: Worker, crew: Crew | None, facts: Sequence[Fact], size: int, clock: str) -> dict[str, float]:
    """Seconds of one round, all of the same facts; the sweep first, as what follows would find them remembered."""
    engine, order, jobs = worker.engine, worker.order, cut(facts, size)
    seconds = {"sweep": take_seconds(lambda: [worker.measure(job) for job in jobs], clock)}
    pools = pool_facts(engine.model, engine.facts, order.settings.seed)
    measurer = prepare_measurer(engine, order, GIVEN, pools)
    passes = [one for start in range(0, len(facts), size) for one in list_passes(measurer, facts[start : start + size])]
    seconds["bare"] = take_seconds(lambda: run_passes(engine.model, passes, False), clock)
    seconds["ends"] = take_seconds(lambda: run_passes(engine.model, passes, True), clock)
    seconds["rows"] = sum(len(tokens) for tokens, _ in passes)
    if crew is not None:
        seconds["several"] = take_seconds(lambda: list(crew.run(jobs)), clock)
    return seconds


def main() -> None:
    """Print one row: seconds and ratios."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--facts", type=int, default=512, help="facts of a round")
    own.add_argument("--chunk", type=int, default=64, help="facts of a job")
    own.add_argument("--rows", type=int, default=32)
    own.add_argument("--memory", default="own")
    own.add_argument("--text", default="none")
    own.add_argument("--processes", type=int, default=2)
    options = read_options(__doc__, own=own)
    options.threads = 1
    settings = Settings(
        device=options.device, dtype=options.dtype, rows=options.rows, memory=options.memory, text=options.text
    )
    order = Order(settings, (GIVEN,), ("eap", "ledger"), chunk=options.chunk)
    worker, rounds = Worker(order), options.repeats + 1
    facts = spread(worker.engine.facts, options.facts * rounds)
    several = options.processes > 1 and options.clock == "wall"
    with ExitStack() as stack:
        crew = stack.enter_context(gather_processes(order, options.processes)) if several else None
        torch.set_num_threads(1)
        found = [time_round(worker, crew, facts[one::rounds], options.chunk, options.clock) for one in range(rounds)]

    def divide(over: str, under: str) -> float:
        return statistics.median(one[over] / one[under] for one in found[1:])

    row: dict[str, object] = {
        "facts": len(facts[::rounds]),
        "rows of bare passes": round(statistics.median(one["rows"] for one in found[1:])),
        "bare, s": statistics.median(one["bare"] for one in found[1:]),
        "sweep / bare": divide("sweep", "bare"),
        "strict": divide("sweep", "ends"),
    }
    if several:
        row[f"one process / {options.processes}"] = divide("sweep", "several")
    print(describe(options))
    print_table([row])


if __name__ == "__main__":
    main()
