"""A sweep's table written by hand: two facts measured by ledger and EAP, one that was not, and hostile names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench.sweeps.parts import encode_rows, name_part
from workbench.sweeps.plans import COLUMNS, HEAD

HOSTILE = "<b>capital</b> of 'x'; DROP"


def list_rows(fact: str, relation: str, scale: float) -> list[dict[str, Any]]:
    """Rows of one fact, whose values are multiples of `scale`."""
    shared = {"fact": fact, "relation": relation, "condition": "given", "metric": "logit-diff", "unit": "logits"}
    edges = {**shared, "method": "eap", "ablation": "counterfactual"}
    ledger = {**shared, "method": "ledger"}
    return [
        {**edges, "row": "node", "component": "a1.h0", "value": 2.0 * scale},
        {**edges, "row": "node", "component": "m0", "value": -1.0 * scale},
        {**edges, "row": "edge", "component": "a1.h0", "reader": "logits", "value": 1.5 * scale},
        {**ledger, "row": "format", "format": "anchor", "value": 0.5 * scale},
        {**ledger, "row": "format", "format": "memory 1", "value": 3.0 * scale},
        {**ledger, "row": "component", "format": "memory 1", "component": "x1.h0.b0.s2", "value": 2.5 * scale},
    ]


def write_table(folder: Path) -> Path:
    """A sweep of two parts in a new folder."""
    folder.mkdir(parents=True)
    (folder / HEAD).write_text(json.dumps({"question": {}}))
    lost = {"fact": "c", "relation": "colour", "condition": "given", "method": "eap", "row": "reason"}
    parts = [
        list_rows("a", "capital", 1.0),
        [*list_rows("b", HOSTILE, 3.0), {**lost, "reason": "too long: 700 tokens"}],
    ]
    for number, rows in enumerate(parts):
        (folder / name_part(number)).write_bytes(encode_rows(rows, COLUMNS))
    return folder
