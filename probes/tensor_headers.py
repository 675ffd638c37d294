"""Headers of safetensors files: what each tensor is and where it lies, without a tensor read or torch imported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.descriptions import open_file
from probes.strict_json import parse_json

# Bytes of a number by the name that safetensors gives its type; types that are not listed have one.
WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
# Longest header that safetensors itself reads.
LONGEST_HEADER = 100_000_000
METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a header: type, shape, first byte and the one behind its last, counted from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """Numbers of the tensor."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Bytes of one of them."""
        return WIDTHS.get(self.dtype, 1)


def read_length(start: bytes, size: int) -> int:
    """Bytes of the header, from the first eight of a file of so many. Raises ValueError when it cannot have them."""
    length = int.from_bytes(start, "little")
    if not 2 <= length <= min(LONGEST_HEADER, size - 8):
        raise ValueError(f"its header says {length} bytes of a file of {size}")
    return length


def read_entry(name: str, about: Any) -> Entry:
    """Entry of its JSON object. Raises ValueError unless shape, type and offsets are such, and fit one another."""
    try:
        dtype, shape, (start, end) = about["dtype"], about["shape"], about["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"the header's entry {name[:40]!r} is not that of a tensor") from None
    sizes = [*shape, start, end] if isinstance(shape, list) else [None]
    if not isinstance(dtype, str) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError(f"the header's entry {name[:40]!r} has a shape, type or offsets that are none")
    entry = Entry(dtype, tuple(shape), start, end)
    if entry.count * entry.width != end - start:
        raise ValueError(f"the header's entry {name[:40]!r} has another size than its data")
    return entry


def parse_header(data: bytes) -> dict[str, Entry]:
    """Entries of a header by the tensors' names. Raises ValueError for what is none."""
    header = parse_json(data)
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    return {name: read_entry(name, about) for name, about in header.items() if name != METADATA}


def read_header(path: Path) -> dict[str, Entry]:
    """Entries of a file by the tensors' names.

    Raises OSError when it cannot be read, ValueError when the header cannot be that of this file.
    """
    size = path.stat().st_size
    with open_file(path) as file:
        length = read_length(file.read(8), size)
        entries = parse_header(file.read(length))
    if sum(entry.end - entry.start for entry in entries.values()) != size - 8 - length:
        raise ValueError("the header tells of other tensors than the file has room for")
    return entries
