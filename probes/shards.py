"""Single rows of tensors in a safetensors file, read from exactly the bytes in which they lie.

A memory map would read ahead: a fault brings in up to a hundred kilobytes around the page that was asked for, which
for small blocks is more than the blocks themselves. So the ranges are read by position, with reading ahead switched
off; the header, a few hundred bytes, is all that is read beside them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from probes.errors import UserError
from probes.tensor_headers import parse_header, read_length

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in its file: type, shape, first byte."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, the first axis taken off."""
        return prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Shard:
    """An open file and where its tensors lie."""

    path: Path
    handle: int
    places: dict[str, Place]

    def read_row(self, name: str, row: int) -> Tensor:
        """One row of a tensor, as it is stored; only its own bytes are read. Raises UserError when it is not there."""
        place = self.places.get(name)
        if place is None or not place.shape or not 0 <= row < place.shape[0]:
            raise UserError(f"{self.path} lacks row {row} of {name}: the bank is not whole")
        if not place.row_bytes:
            return torch.empty(place.shape[1:], dtype=place.dtype)
        data = read_range(self.path, self.handle, place.start + row * place.row_bytes, place.row_bytes)
        return torch.frombuffer(data, dtype=place.dtype).view(place.shape[1:])


def read_range(path: Path, handle: int, start: int, size: int) -> bytearray:
    """Bytes of a range. Raises UserError when the file ends before."""
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        got = os.preadv(handle, [view[done:]], start + done)
        if not got:
            raise UserError(f"{path} is truncated: it ends before byte {start + size}")
        done += got
    return data


def read_places(path: Path, handle: int) -> dict[str, Place]:
    """Places of all tensors, from the header. Raises UserError for a file that is none, or shorter than it says."""
    size = os.fstat(handle).st_size
    try:
        length = read_length(bytes(read_range(path, handle, 0, 8)), size)
    except ValueError as error:
        raise UserError(f"{path} is damaged or truncated: {error}") from None
    try:
        entries = parse_header(bytes(read_range(path, handle, 8, length)))
        places = {
            name: Place(DTYPES[entry.dtype], entry.shape, 8 + length + entry.start) for name, entry in entries.items()
        }
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {str(error)[:120]})") from None
    end = max((entry.end for entry in entries.values()), default=0)
    if 8 + length + end > size:
        raise UserError(f"{path} is truncated: it has {size} bytes and its header promises {8 + length + end}")
    return places


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """A shard, open for a `with` block. Raises UserError when it is missing or damaged."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; the bank lacks blocks") from None
    try:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        yield Shard(path, handle, read_places(path, handle))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    finally:
        os.close(handle)
