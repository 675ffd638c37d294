"""What a run says of its explicit memories: the blocks, their kept tokens, and the attention these received."""

from __future__ import annotations

from typing import Any

import numpy as np

from circuits.graph import Component
from workbench.runs import Run


def read_block(run: Run, block: int) -> dict[str, Any] | None:
    """Entry of an explicit-memory block in the run, None when the run does not tell."""
    explicit = (run.about.get("memories") or {}).get("explicit") or {}
    blocks = explicit.get("blocks") or []
    return blocks[block] if block < len(blocks) else None


def find_kept(run: Run, component: Component, position: int) -> dict[int, float]:
    """Kept tokens of the block that a memory read uses, with the attention (0..1) each got at a reading position.

    A token kept in several slots counts once, with their sum. Empty when the run does not tell.
    """
    block = read_block(run, component.block)
    explicit = (run.about.get("memories") or {}).get("explicit") or {}
    layers = list(explicit.get("layers") or run.circuit.plan.explicit_layers)
    if block is None or "kept" not in block or component.layer not in layers:
        return {}
    place = layers.index(component.layer)
    slots = block["kept"][place][component.head // run.circuit.plan.group]
    weights: Any = np.zeros(len(slots))
    if run.recording.memory.size:
        weights = run.recording.memory[place, component.head, position, component.block]
    kept: dict[int, float] = {}
    for slot, token in enumerate(slots):
        if token >= 0:
            kept[int(token)] = kept.get(int(token), 0.0) + float(weights[slot] if slot < len(weights) else 0.0)
    return kept
