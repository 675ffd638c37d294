"""A circuit without the run that it came from: read from a file of ours, or of another tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from circuits.circuit import Circuit
from circuits.parts import KeptParts
from workbench.runs import Run, list_tokens, name_question


@dataclass(frozen=True, slots=True)
class CircuitFile:
    """A circuit read from a file; `about` holds the document's keys that `exports_json.COPIED` names.

    `parts` are the strongest FFN units, slots and attention edges, None where the run kept none.
    """

    about: dict[str, Any]
    circuit: Circuit
    parts: KeptParts | None = None

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """The prompt pairs it was traced over, at least one."""
        return list(self.about["pairs"])

    @property
    def pair(self) -> dict[str, Any]:
        """The first pair, which stands for all where one is shown."""
        return dict(self.about["pairs"][0])

    @property
    def tokens(self) -> list[str]:
        """Text at each position of the circuit."""
        return list_tokens(self.about)

    @property
    def title(self) -> str:
        """Short human-readable name, as of a run."""
        return name_question(self.pairs)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from workbench.formats.notebook import show_run

        return show_run(self)


# What can be drawn and exported: a run, or the circuit alone.
Traced = Run | CircuitFile
