"""Of which type a value from a JSON file is: `true` is no number there, and 1e999 neither."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard


def require(holds: bool, place: str, wanted: str) -> None:
    """Raise ValueError that names a place unless what is wanted of it holds."""
    if not holds:
        raise ValueError(f"{place} is not {wanted}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a number that a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_integer(value: object) -> bool:
    """Whether a JSON value is a whole number; `true` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def are_texts(value: object) -> bool:
    """Whether a JSON value is a list of texts."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def are_integers(value: object) -> bool:
    """Whether a JSON value is a list of whole numbers."""
    return isinstance(value, list) and all(map(is_integer, value))


def are_objects(value: object) -> bool:
    """Whether a JSON value is a list of objects."""
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def require_fields(
    value: Mapping[str, Any], place: str, texts: Iterable[str] = (), numbers: Iterable[str] = ()
) -> None:
    """Raise ValueError, naming the place, unless these fields of an object are texts and finite numbers."""
    for name in texts:
        require(isinstance(value.get(name), str), f"{place}.{name}", "text")
    for name in numbers:
        require(is_number(value.get(name)), f"{place}.{name}", "a finite number")
