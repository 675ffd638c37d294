"""What a run says of its explicit memories: the blocks, their kept tokens, and the attention these received."""

from __future__ import annotations

from typing import Any

import numpy as np

from circuits.graph import Component, Kind
from workbench.circuit_files import Traced
from workbench.runs import Run


def read_block(run: Traced, block: int) -> dict[str, Any] | None:
    """Entry of an explicit-memory block in the run, None when the run does not tell."""
    explicit = (run.about.get("memories") or {}).get("explicit") or {}
    blocks = explicit.get("blocks") or []
    return blocks[block] if block < len(blocks) else None


def list_slots(run: Traced, component: Component) -> list[int]:
    """Kept token of each slot that a memory read uses (-1: absent); empty when the run does not tell."""
    block = read_block(run, component.block)
    explicit = (run.about.get("memories") or {}).get("explicit") or {}
    layers = list(explicit.get("layers") or run.circuit.plan.explicit_layers)
    if block is None or "kept" not in block or component.layer not in layers:
        return []
    heads = block["kept"][layers.index(component.layer) :][:1] or [[]]
    slots = heads[0][component.head // run.circuit.plan.group :][:1] or [[]]
    return [int(token) for token in slots[0]]


def find_source(run: Traced, part: Component) -> str:
    """Token that a part brings: that of a memory slot, or of an attention edge's source; nothing for a unit."""
    tokens: list[str] = []
    place = -1
    if part.kind is Kind.HEAD:
        tokens, place = run.tokens, part.part
    elif part.kind is Kind.EXPLICIT:
        slots, block = list_slots(run, part), read_block(run, part.block) or {}
        tokens = [str(token) for token in block.get("tokens", [])]
        place = slots[part.part] if part.part < len(slots) else -1
    return tokens[place] if 0 <= place < len(tokens) else ""


def find_kept(run: Run, component: Component, position: int) -> dict[int, float]:
    """Kept tokens of the block that a memory read uses, with the attention (0..1) each got at a reading position.

    A token kept in several slots counts once, with their sum. Empty when the run does not tell.
    """
    slots = list_slots(run, component)
    if not slots:
        return {}
    weights: Any = np.zeros(len(slots))
    if run.recording.memory.size:
        place = run.circuit.plan.explicit_layers.index(component.layer)
        weights = run.recording.memory[place, component.head, position, component.block]
    kept: dict[int, float] = {}
    for slot, token in enumerate(slots):
        if token >= 0:
            kept[token] = kept.get(token, 0.0) + float(weights[slot] if slot < len(weights) else 0.0)
    return kept
