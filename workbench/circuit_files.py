"""A circuit without the run that it came from: read from a file of ours, or of another tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from circuits.circuit import Circuit
from circuits.parts import KeptParts
from workbench.runs import Document, Run


@dataclass(frozen=True, slots=True)
class CircuitFile(Document):
    """A circuit read from a file; `about` holds the document's keys that `exports_json.COPIED` names.

    `parts` are the strongest FFN units, slots and attention edges, None where the run kept none.
    """

    about: dict[str, Any]
    circuit: Circuit
    parts: KeptParts | None = None

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from workbench.formats.notebook import show_run

        return show_run(self)


# What can be drawn and exported: a run, or the circuit alone.
Traced = Run | CircuitFile
