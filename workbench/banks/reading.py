"""Which blocks of a bank a prompt reads: none, the generic ones, its own cluster's, a wrong one's, or the next best.

Source: Pouransari et al. 2025, section 4. The generic block is the control for more parameters, a wrong cluster the
control for other blocks, and blocking takes away the subtree of level 1 that fits best, so that the router has to take
the next best.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probes.bank_format import ROUTER
from probes.errors import UserError
from probes.facts import Fact
from workbench import library
from workbench.banks.routing import Router, load_router

if TYPE_CHECKING:
    from probes.bank import Bank


@dataclass(frozen=True, slots=True)
class Route:
    """A cluster path (empty: no bank is read) and how it was found."""

    path: tuple[int, ...]
    note: str


@functools.lru_cache(maxsize=4)
def read_router(folder: Path, branching: int, depth: int) -> Router:
    """Router of a bank's folder, read once."""
    return load_router(folder, branching, depth)


def name_path(path: Sequence[int]) -> str:
    """A path in words."""
    return f"clusters {' > '.join(str(cluster) for cluster in path)}"


def route_texts(bank: Bank, texts: Sequence[str], blocked: int | None = None) -> list[tuple[int, ...]]:
    """Paths of texts by the bank's own router and encoder, around a blocked cluster of level 1.

    Raises UserError when the bank has no router, or the encoder is not installed.
    """
    from workbench.banks.encoding import open_encoder

    router = read_router(bank.folder, bank.branching, len(bank.clusters))
    encoder = open_encoder(str(bank.router["encoder"])) if "encoder" in bank.router else open_encoder()
    taken = None if blocked is None else np.full(len(texts), blocked)
    return [tuple(int(cluster) for cluster in path) for path in router.route(encoder.encode(list(texts)), taken)]


def route_text(bank: Bank, text: str, blocked: int | None = None) -> tuple[int, ...]:
    """Path of one text (`route_texts`)."""
    return route_texts(bank, [text], blocked)[0]


def is_shipped(bank: Bank) -> bool:
    """Whether a bank is the one that the facts' paths belong to, or has no router that could say otherwise."""
    shipped = library.find_shipped() / "bank"
    return (shipped.is_dir() and shipped.samefile(bank.folder)) or not (bank.folder / ROUTER).is_file()


def find_own_route(bank: Bank, fact: Fact | None, prompt: str) -> Route:
    """The path of a prompt's own cluster: as the fact has it, else by the router, else the generic blocks, and why."""
    if fact is not None and len(fact.cluster_path) == len(bank.clusters) and is_shipped(bank):
        return Route(fact.cluster_path, name_path(fact.cluster_path))
    try:
        path = route_text(bank, prompt)
    except UserError as error:
        return Route(bank.generic_path, f"generic blocks: the prompt cannot be routed ({error})")
    return Route(path, f"{name_path(path)}, routed by the sentence encoder")


def find_wrong_path(bank: Bank, own: tuple[int, ...], facts: Sequence[Fact], key: str) -> tuple[int, ...]:
    """A path in another subtree of level 1, drawn by `key`: one that facts have, else any that the bank has.

    Raises UserError when the bank has no other subtree.
    """
    depth = len(bank.clusters)
    subtrees = [cluster for cluster in bank.list_subtrees() if cluster != own[0]]
    if not subtrees:
        raise UserError("the bank has no other subtree, so no cluster is a wrong one: choose another --reading")
    known = {fact.cluster_path for fact in facts if len(fact.cluster_path) == depth and is_shipped(bank)}
    paths = sorted(path for path in known if path[0] in subtrees)
    generator = random.Random(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
    if paths:
        return generator.choice(paths)
    path = [generator.choice(subtrees)]
    while len(path) < depth:
        path.append(path[-1] * bank.branching + generator.randrange(bank.branching))
    return tuple(path)


def choose_route(
    bank: Bank | None, reading: str, fact: Fact | None, prompt: str, facts: Sequence[Fact] = (), seed: int = 0
) -> Route:
    """The path that a prompt reads in a mode, and how it was found.

    Raises UserError for a mode that this bank does not allow (no other subtree, no router, no encoder).
    """
    if bank is None or reading == "none":
        return Route((), "no bank is read")
    if reading == "generic":
        return Route(bank.generic_path, "generic blocks")
    own = find_own_route(bank, fact, prompt)
    if reading == "fetched":
        return own
    if reading == "wrong":
        path = find_wrong_path(bank, own.path, facts, f"{seed}:{prompt}")
        return Route(path, f"{name_path(path)}, drawn from another subtree than {own.path[0]}")
    best = own.path[0] if own.path != bank.generic_path else route_text(bank, prompt)[0]
    path = route_text(bank, prompt, blocked=best)
    return Route(path, f"{name_path(path)}, the next best with subtree {best} blocked")
