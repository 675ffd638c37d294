"""Sweeps of EAP and ledgers beside the bare passes that they need, and two processes beside one.

Run `python benchmarks/sweep.py`. *Bare* is what no implementation can avoid, by the model itself without hooks or
memories, in the same batches: for EAP a forward pass of the counterfactual and a forward and backward pass of the clean
prompt, for a ledger a forward and backward pass of every combination of formats. *Sweep* is ours with one
process: counterfactuals chosen, memories read, scores, ledgers, rows, Parquet bytes. *One process / 2* has the same
jobs done by two processes that are ready. Loading is in neither. Wanted: sweep / bare at most 1.5, one
process / 2 at least 1.7 (on two cores with nothing else to do). Read the ratios: seconds depend on the machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from bulk import list_bare, spread
from options import describe, read_options
from shapes import measure, print_table, run_backward, run_forward

from circuits.problem import pad_tokens
from probes.facts import Fact
from workbench.ledgers.prompts import build_asked
from workbench.settings import Settings
from workbench.sweeps.measuring import Measurer, prepare_measurer
from workbench.sweeps.plans import GIVEN, Job, Order, pool_facts
from workbench.sweeps.workers import Worker, gather_processes


def list_passes(measurer: Measurer, facts: Sequence[Fact]) -> Iterator[tuple[torch.Tensor, bool]]:
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


def main() -> None:
    """Print one row: seconds and ratios."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--facts", type=int, default=512)
    own.add_argument("--chunk", type=int, default=128)
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
    worker = Worker(order)
    facts = spread(worker.engine.facts, options.facts)
    ids = [fact.id for fact in facts]
    starts = range(0, len(ids), options.chunk)
    jobs = [Job(number, GIVEN, tuple(ids[start : start + options.chunk])) for number, start in enumerate(starts)]
    measurer = prepare_measurer(
        worker.engine, order, GIVEN, pool_facts(worker.engine.model, worker.engine.facts, settings.seed)
    )
    passes = [one for start in starts for one in list_passes(measurer, facts[start : start + options.chunk])]

    def run_bare() -> None:
        for tokens, backward in passes:
            (run_backward if backward else run_forward)(worker.engine.model, tokens)

    work = {"bare": run_bare, "sweep": lambda: [worker.measure(job) for job in jobs]}
    seconds = measure(work, options.repeats, options.clock)
    row: dict[str, object] = {
        "facts": len(facts),
        "rows of bare passes": sum(len(tokens) for tokens, _ in passes),
        "bare, s": seconds["bare"],
        "sweep / bare": seconds["sweep"] / seconds["bare"],
    }
    if options.processes > 1 and options.clock == "wall":
        with gather_processes(order, options.processes) as crew:
            several = measure({"several": lambda: list(crew.run(jobs))}, options.repeats, options.clock)["several"]
        row[f"one process / {options.processes}"] = seconds["sweep"] / several
    print(describe(options))
    print_table([row])


if __name__ == "__main__":
    main()
