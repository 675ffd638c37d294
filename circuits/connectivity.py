"""Paths through a set of edges: which edges lie on one from a source to the logits, across positions by attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from circuits.graph import Component, Kind, Wiring

# Kinds that bring something in: a circuit may start at them.
SOURCES = (Kind.EMBEDDING, Kind.EXPLICIT, Kind.LEARNED, Kind.BANK)

Mask = Bool[np.ndarray, "pos writer reader"]


def feed(wiring: Wiring) -> Bool[np.ndarray, "reader writer"]:
    """Which readers feed which writers' outputs: a head's query, its key-value head's k and v, or the input.

    A mixture's one input feeds all of its experts.
    """
    group = wiring.plan.group

    def belongs(reader: Component, writer: Component) -> bool:
        if reader.kind is Kind.KEY_VALUE:
            return writer.kind is Kind.HEAD and writer.layer == reader.layer and writer.head // group == reader.head
        if reader.kind is Kind.MLP:
            return writer.kind is Kind.MLP and writer.layer == reader.layer
        return reader == writer

    return np.array([[belongs(r.component, w) for w in wiring.writers] for r in wiring.readers], dtype=bool)


def crosses(wiring: Wiring) -> Bool[np.ndarray, " reader"]:
    """Which readers pass on to later positions (keys and values)."""
    return np.array([reader.component.kind is Kind.KEY_VALUE for reader in wiring.readers], dtype=bool)


def list_sources(wiring: Wiring) -> Bool[np.ndarray, " writer"]:
    """Which writers a path may start at."""
    return np.array([writer.kind in SOURCES for writer in wiring.writers], dtype=bool)


@dataclass(frozen=True, slots=True)
class Links:
    """What joins edges to paths in a graph: which readers feed which writers, which cross positions, the sources."""

    feeds: Bool[np.ndarray, "reader writer"]
    across: Bool[np.ndarray, " reader"]
    sources: Bool[np.ndarray, " writer"]


def find_links(wiring: Wiring) -> Links:
    """Links of a graph; found once where many masks of it are looked at."""
    return Links(feed(wiring), crosses(wiring), list_sources(wiring))


def drop_dead_ends(mask: Mask, wiring: Wiring, ends: Sequence[int], links: Links | None = None) -> Mask:
    """Edges that lie on some path from a source to the logits at one of the positions `ends`.

    Keys and values pass to their heads at the same and at later positions. Repeats until nothing more falls away.
    """
    links = links or find_links(wiring)
    feeds, across, source = links.feeds, links.across, links.sources
    logits = len(wiring.readers) - 1
    mask = mask.copy()
    while True:
        fed = mask.any(axis=1)
        reached = (fed & ~across) @ feeds
        reached |= np.maximum.accumulate((fed & across) @ feeds, axis=0)
        alive = mask & (reached | source)[:, :, None]
        used = alive.any(axis=2)
        wanted = used @ feeds[~across].T
        needed = np.zeros(mask.shape[::2], dtype=bool)
        needed[:, ~across] = wanted
        later = np.maximum.accumulate(used[::-1], axis=0)[::-1]
        needed[:, across] = later @ feeds[across].T
        needed[:, logits] = False
        needed[list(ends), logits] = True
        alive &= needed[:, None, :]
        if alive.sum() == mask.sum():
            return mask
        mask = alive
