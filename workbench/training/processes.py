"""Several processes that train one model on shares of every step (`torchrun`); one process where there is no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from probes.models import choose_device


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's number among how many, and its device; the first one writes and shows progress."""

    rank: int = 0
    count: int = 1
    device: str = "auto"

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            distributed.barrier()

    def share(self, rows: Tensor) -> Tensor:
        """This process's share of the rows of a step."""
        return rows[self.rank :: self.count]


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """The processes that `torchrun` started with this one, NCCL between GPUs and gloo between processors."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=device)
        return
    kind = choose_device(device)
    if kind == "cuda":
        kind = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(kind)
    distributed.init_process_group("nccl" if kind.startswith("cuda") else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, kind)
    finally:
        distributed.destroy_process_group()
