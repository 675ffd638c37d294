"""Names of the components whose effects are measured over facts, and of which kind each is.

`a1.h2` is a head, `m3.u17` an FFN unit, `bank 1:5` a bank block (level from 1, cluster), `memory ID` an explicit
memory.
"""

from __future__ import annotations

KINDS = ("heads", "units", "bank", "memories")


def find_kind(component: str) -> str:
    """Which of `KINDS` a component is."""
    if component.startswith(("bank ", "memory ")):
        return "bank" if component.startswith("bank ") else "memories"
    return "heads" if component.startswith("a") else "units"
