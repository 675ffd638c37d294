"""A sweep's table written by hand: two facts measured by ledger and EAP, one that was not, and hostile names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench.sweeps.parts import encode_rows, name_part
from workbench.sweeps.plans import COLUMNS, HEAD

HOSTILE = "<b>capital</b> of 'x'; DROP"


LOST = {"fact": "c", "relation": "colour", "condition": "given", "method": "eap", "row": "reason"}


def list_rows(fact: str, relation: str, scale: float, method: str) -> list[dict[str, Any]]:
    """Rows of one fact, whose values are multiples of `scale`."""
    shared = {"fact": fact, "relation": relation, "condition": "given", "metric": "logit-diff", "unit": "logits"}
    edges = {**shared, "method": "eap", "ablation": "counterfactual"}
    ledger = {**shared, "method": method}
    return [
        {**edges, "row": "node", "component": "a1.h0", "value": 2.0 * scale},
        {**edges, "row": "node", "component": "m0", "value": -1.0 * scale},
        {**edges, "row": "edge", "component": "a1.h0", "reader": "logits", "value": 1.5 * scale},
        {**ledger, "row": "format", "format": "anchor", "value": 0.5 * scale},
        {**ledger, "row": "format", "format": "memory 1", "value": 3.0 * scale},
        {**ledger, "row": "component", "format": "memory 1", "component": "x1.h0.b0.s2", "value": 2.5 * scale},
    ]


def write_table(folder: Path, ledger: str = "ledger") -> Path:
    """A sweep of two parts in a new folder; `ledger` is what its ledgers call their method."""
    parts = [
        list_rows("a", "capital", 1.0, ledger),
        [*list_rows("b", HOSTILE, 3.0, ledger), {**LOST, "reason": "too long: 700 tokens"}],
    ]
    return write_parts(folder, parts)


def write_lost(folder: Path) -> Path:
    """A sweep whose only fact could not be measured."""
    return write_parts(folder, [[{**LOST, "reason": "too long: 700 tokens"}]])


def write_parts(folder: Path, parts: list[list[dict[str, Any]]]) -> Path:
    """A sweep of these parts."""
    folder.mkdir(parents=True)
    (folder / HEAD).write_text(json.dumps({"question": {}}))
    for number, rows in enumerate(parts):
        (folder / name_part(number)).write_bytes(encode_rows(rows, COLUMNS))
    return folder
