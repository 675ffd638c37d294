"""JSON from files that others may have written: what the parser cannot take is one kind of error."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def refuse_constant(name: str) -> NoReturn:
    """NaN and Infinity are no JSON."""
    raise ValueError(f"{name} is not a JSON number")


def parse_json(data: bytes | str) -> Any:
    """Value of a JSON text. Raises ValueError for what is not JSON, holds NaN or infinity, or is endlessly deep."""
    try:
        return json.loads(data, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def dump_json(value: Any, **layout: Any) -> bytes:
    """UTF-8 of a JSON value, letters as they are; all as escapes where half a character, which UTF-8 lacks, is in it.

    Raises ValueError for numbers that are not finite. `layout` is `json.dumps`'s.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **layout).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, **layout).encode()
