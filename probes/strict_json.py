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
