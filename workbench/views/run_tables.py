"""Tables about runs: the list of the saved ones, and which numbers a replay moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.run_index import Entry
from workbench.views.tables import Columns
from workbench.views.text import shorten, show_line, show_token

if TYPE_CHECKING:
    from workbench.replaying import Difference


def tabulate_entries(entries: Sequence[Entry]) -> Columns:
    """One row a saved run."""
    return {
        "run": [entry.name for entry in entries],
        "saved": [entry.saved for entry in entries],
        "prompt": [shorten(show_line(entry.prompt), 200) for entry in entries],
        "answer": [show_token(entry.answer) for entry in entries],
        "foil": [show_token(entry.foil) if entry.foil else "" for entry in entries],
        "relation": [show_line(entry.relation) for entry in entries],
        "model": [shorten(show_line(entry.model), 80) for entry in entries],
        "memories": [", ".join(entry.memories) for entry in entries],
        "method": [show_line(entry.method) for entry in entries],
        "ablation": [show_line(entry.ablation) for entry in entries],
        "metric": [show_line(entry.metric) for entry in entries],
        "pairs": [entry.pairs for entry in entries],
        "edges": [entry.edges for entry in entries],
        "faithfulness": [entry.faithfulness for entry in entries],
    }


def tabulate_differences(rows: Sequence[Difference]) -> Columns:
    """One row a number that moved in a replay, those that are no numbers as text."""
    return {
        "number": [show_line(row.name) for row in rows],
        "recorded": [show_line(str(row.recorded)) for row in rows],
        "replayed": [show_line(str(row.replayed)) for row in rows],
        "difference": [row.difference for row in rows],
    }
