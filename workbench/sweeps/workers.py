"""Who does a sweep's jobs on this machine: this process alone, or several that map the same weights.

The first process loads the model and moves its weights into shared memory; the others put those in the place of their
own, so that the weights are held once however many processes there are. On CUDA each process has a device of its own,
in turn, with its own copy. Jobs go through a `ProcessPoolExecutor` and come back as the bytes of a part.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.progress import Tick, quiet
from workbench.engine import open_engine
from workbench.ledgers.measuring import describe_source
from workbench.sweeps.measuring import prepare_measurer
from workbench.sweeps.parts import encode_blocks
from workbench.sweeps.plans import COLUMNS, Job, Order, pool_facts

if TYPE_CHECKING:
    from torch import Tensor

Done = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers that are ready: what they run on (for the head of the table), and how jobs become parts."""

    source: dict[str, Any]
    run: Callable[[Sequence[Job]], Iterator[Done]]


class Worker:
    """A loaded model that measures jobs. Raises UserError as `open_engine`."""

    def __init__(self, order: Order, weights: Mapping[str, Tensor] | None = None, tick: Tick = quiet) -> None:
        import torch

        torch.set_num_threads(order.threads)
        self.order = order
        self.engine = open_engine(order.settings, tick, weights)
        facts = {fact.id: fact for fact in (*self.engine.facts, *order.own)}
        self._facts = facts
        self._pools = pool_facts(self.engine.model, tuple(facts.values()), order.settings.seed)

    def describe(self) -> dict[str, Any]:
        """What is measured on: model, memories' hashes, settings, versions."""
        return describe_source(self.engine, self.order.settings)

    def measure(self, job: Job) -> Done:
        """A job's number and its part."""
        measurer = prepare_measurer(self.engine, self.order, job.condition, self._pools)
        blocks = measurer.measure([self._facts[fact] for fact in job.facts])
        return job.number, encode_blocks(blocks, COLUMNS)


@contextmanager
def keep_threads(chosen: int = 0) -> Iterator[None]:
    """Give this process its number of threads back at the end; 0 chooses no other now."""
    import torch

    threads = torch.get_num_threads()
    try:
        if chosen:
            torch.set_num_threads(chosen)
        yield
    finally:
        torch.set_num_threads(threads)


# The worker of a process of the pool, which hands its tasks nothing but their arguments.
_HELD: list[Worker] = []


def start_worker(order: Order, weights: Mapping[str, Tensor] | None, devices: Any) -> None:
    """Begin a process of the pool: end with the process that started it, take a device, load."""
    threading.Thread(target=follow_parent, daemon=True).start()
    device = devices.get()
    order = replace(order, settings=replace(order.settings, device=device)) if device else order
    _HELD.append(Worker(order, weights))


def follow_parent() -> None:
    """End this process when the one that started it is gone, even killed: nobody would take its parts."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def measure_held(job: Job) -> Done:
    """Do a job in a process of the pool."""
    return _HELD[0].measure(job)


@contextmanager
def gather_processes(order: Order, processes: int, tick: Tick = quiet) -> Iterator[Crew]:
    """Workers in this process (one) or in several. Raises UserError for what cannot be loaded."""
    with keep_threads():
        first = Worker(order, None, tick)
        from probes.models import share_weights

        # One process too: sums depend on how weights lie in memory, and bytes must not depend on the processes.
        weights = share_weights(first.engine.model) if first.engine.model.device.type == "cpu" else None
        if processes == 1:
            yield Crew(first.describe(), lambda jobs: map(first.measure, jobs))
            return
        source, devices = first.describe(), list_devices(str(first.engine.model.device), processes)
        del first
        with open_pool(order, weights, devices) as pool:
            yield Crew(source, lambda jobs: run_pool(pool, jobs))


def list_devices(device: str, processes: int) -> list[str]:
    """Device of each process: CUDA devices in turn, where the model is on one of them; else what the settings say."""
    import torch

    count = torch.cuda.device_count() if device.startswith("cuda") else 0
    return [f"cuda:{number % count}" if count else "" for number in range(processes)]


@contextmanager
def open_pool(
    order: Order, weights: Mapping[str, Tensor] | None, devices: Sequence[str]
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each with a worker; what has not begun at the end is not done."""
    # torch's own multiprocessing, as it knows how to hand over shared tensors. Forked processes would inherit locks.
    import torch.multiprocessing

    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    for device in devices:
        queue.put(device)
    pool = ProcessPoolExecutor(len(devices), context, start_worker, (order, weights, queue))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def run_pool(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> Iterator[Done]:
    """Parts as they become ready. Raises UserError when a process ended early: what is done is kept."""
    try:
        for future in as_completed([pool.submit(measure_held, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker ended before its work was done (killed, or out of memory?): what is whole is kept; run the same "
            "command again, perhaps with fewer --processes"
        ) from None
