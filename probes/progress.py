"""How far work is: a function that long work calls between its units, and that may raise to stop it."""

from __future__ import annotations

from collections.abc import Callable

# Called with a label, how many units are done and how many there are.
Tick = Callable[[str, int, int], None]


def quiet(label: str, done: int, total: int) -> None:
    """A tick that shows nothing."""
