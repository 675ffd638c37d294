"""A planted model: weights, memories, one pair of prompts, and the edges that carry the answer between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from circuits.graph import Wiring
from circuits.planted.weights import Sketch
from probes.attachments import NOTHING, Attachment

# One edge: position, writer, reader, by the names of `circuits/graph.py`.
PlantedEdge = tuple[int, str, str]
# One unit, slot or attention edge: position and name.
PlantedPart = tuple[int, str]


@dataclass(frozen=True)
class Planted:
    """A model with its question. `edges` are all edges over which what differs between the prompts reaches the metric.

    `unseen` are those of them whose ablation alone changes nothing, by the nature of the circuit; each stands with
    the edges without which it does matter: with those ablated, ablating it too changes the metric. `parts` are the
    units, slots and attention edges that these edges run through, where each alone changes the metric.
    """

    sketch: Sketch
    clean: str
    counterfactual: str
    answer: str
    foil: str
    edges: tuple[PlantedEdge, ...]
    unseen: Mapping[PlantedEdge, tuple[PlantedEdge, ...]] = field(default_factory=dict)
    attachment: Attachment = NOTHING
    parts: tuple[PlantedPart, ...] = ()


def mark_edges(edges: Iterable[PlantedEdge], wiring: Wiring, positions: int) -> Bool[np.ndarray, "pos writer reader"]:
    """Mask of these edges within the whole graph. Raises UserError for a name that the graph lacks."""
    mask = np.zeros((positions, *wiring.visible.shape), dtype=bool)
    for position, writer, reader in edges:
        mask[position, wiring.find_writer(writer), wiring.find_reader(reader)] = True
    assert not (mask & ~wiring.visible).any()
    return mask
