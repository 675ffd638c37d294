"""Who does a sweep's jobs on a Ray cluster: actors that each load the model, which Ray starts again where one is lost.

Ray schedules, retries and restarts; nothing of that is ours. Every node needs this package, the model and the memories
under the same names. Parts come back as bytes, so that the process that was asked writes all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from probes.errors import UserError
from workbench.sweeps.plans import Job, Order
from workbench.sweeps.workers import Crew, Done, Worker


def import_ray() -> Any:
    """Ray. Raises UserError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "Ray is not installed: `pip install 'memory-circuits[ray]'`, or choose --engine local"
        ) from None
    return ray


@contextmanager
def gather_actors(order: Order, workers: int, address: str = "", gpus: float = 0.0) -> Iterator[Crew]:
    """Actors on the cluster at an address, or on a cluster of this machine alone where it is empty.

    Each takes `order.threads` CPUs and `gpus` GPUs. Raises UserError when the cluster is not there, or the model cannot
    be loaded.
    """
    ray = import_ray()
    # Ray tells of lost workers on standard output, where a command's answer alone belongs.
    with redirect_stdout(sys.stderr):
        join_cluster(ray, address, max(1, workers * order.threads))
        try:
            kind = ray.remote(num_cpus=order.threads, num_gpus=gpus, max_restarts=-1, max_task_retries=-1)(Worker)
            told = ray.put(order)
            actors = [kind.remote(told) for _ in range(workers)]
            yield Crew(fetch(ray, actors[0].describe.remote()), lambda jobs: run_actors(ray, actors, jobs))
        finally:
            ray.shutdown()


def join_cluster(ray: Any, address: str, cpus: int) -> None:
    """Join the cluster at an address, or start one of this machine. Raises UserError when it is not there."""
    options: dict[str, Any] = {"address": address or "local"}
    if not address:
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(**options, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {str(error)[:200]}") from None


def fetch(ray: Any, reference: Any) -> Any:
    """A result. Raises UserError where the worker did."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        raise explain(error) from None


def explain(error: Any) -> UserError:
    """What went wrong on the cluster, in the worker's own words where it has any."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return UserError(str(cause))
    return UserError(f"the Ray cluster gave up: {' '.join(str(error).split())[-300:]}")


def run_actors(ray: Any, actors: Sequence[Any], jobs: Sequence[Job]) -> Iterator[Done]:
    """Parts as they become ready."""
    from ray.util import ActorPool

    pool = ActorPool(actors)
    try:
        yield from pool.map_unordered(lambda actor, job: actor.measure.remote(job), jobs)
    except ray.exceptions.RayError as error:
        raise explain(error) from None
