"""Running out of memory, told in one sentence that says what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from probes.errors import UserError

# What the allocators of CPU and of devices without an error class of their own say in a RuntimeError.
SIGNS = ("not enough memory", "can't allocate memory", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


@contextmanager
def explain_memory(work: str) -> Iterator[None]:
    """Turn running out of memory inside a `with` block into a UserError that names the work; nothing else is caught."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory while {work}: use a shorter prompt, fewer pairs at once (--rows), --dtype bfloat16, a "
            "method without edges (--method atp), or --device-map auto"
        ) from error
