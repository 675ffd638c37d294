"""The router of a bank in training: windows of the corpus clustered, and how well sentences find their own window.

Sentence vectors are whitened within documents if so chosen: directions in which the sentences of one document differ
(wording, what is said) are shrunk, those that tell documents apart remain, so that a short question goes where the
document went. The paper routes by the plain vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.bank_format import read_bank_head
from probes.errors import UserError
from probes.progress import Tick, quiet
from workbench.banks.clusters import grow_tree
from workbench.banks.corpus import HEAD as TREE_HEAD
from workbench.banks.corpus import load_tree
from workbench.banks.encoding import open_encoder
from workbench.banks.routing import Paths, Router, Vectors, load_router
from workbench.demo.clusters import ENCODER
from workbench.demo.whitening import fit_whitening
from workbench.memory.chunks import BORDERS
from workbench.memory.search import TEXTS, Encoder

# Share of the mean variance that is added in every direction before whitening.
SHRINKAGE = 0.01


@dataclass(frozen=True, slots=True)
class Routing:
    """A router with the name of its encoder."""

    router: Router
    encoder: str = ENCODER

    def describe(self) -> dict[str, Any]:
        """How texts are routed, in words, as a bank keeps it."""
        about: dict[str, Any] = {"encoder": self.encoder, "normalised": True, "distance": "euclidean"}
        if self.router.mean is not None:
            about["transform"] = "normalise((embedding - whitening.mean) @ whitening.transform)"
            about["deviation"] = "whitening within documents; the paper has none"
        return about


def read_routing(folder: Path) -> Routing:
    """Routing of a tree of clusters, or of a bank. Raises UserError when there is none."""
    if (folder / TREE_HEAD).is_file():
        router, about, _ = load_tree(folder)
        return Routing(router, str(about["encoder"]))
    head = read_bank_head(folder)
    router = load_router(folder, head.design.branching, head.design.depth)
    return Routing(router, str(head.router.get("encoder", ENCODER)))


def require_shape(routing: Routing, branching: int, depth: int) -> None:
    """Raise UserError unless a router has these levels."""
    router = routing.router
    if (router.branching, router.depth) != (branching, depth):
        raise UserError(
            f"that router has {router.depth} levels of {router.branching} children, not {depth} of {branching}: give "
            "--branching, and as many --units, as it has"
        )


def place_windows(
    windows: Sequence[str],
    documents: Sequence[int],
    branching: int,
    depth: int,
    seed: int,
    whiten: bool,
    routing: Routing | None,
    tick: Tick = quiet,
) -> tuple[Routing, Paths, float]:
    """Router of windows of text (`documents` numbers the one each is of), their paths, and a measure of the router.

    With a `routing` that is there nothing is clustered. The measure is the share of single sentences that reach the
    deepest cluster of their own window.
    """
    encoder = open_encoder(ENCODER if routing is None else routing.encoder)
    vectors = encode_texts(windows, encoder, "embedding windows", tick)
    owners, sentences = list_sentences(windows)
    spoken = encode_texts(sentences, encoder, "embedding sentences", tick)
    if routing is None:
        labels = [str(documents[owner]) for owner in owners]
        routing = Routing(grow_router(vectors, spoken, labels, branching, depth, seed, whiten, tick))
    paths = routing.router.route(vectors)
    reached = float((routing.router.route(spoken)[:, -1] == paths[owners, -1]).mean())
    return routing, paths, reached


def grow_router(
    vectors: Vectors,
    spoken: Vectors,
    labels: Sequence[str],
    branching: int,
    depth: int,
    seed: int,
    whiten: bool,
    tick: Tick,
) -> Router:
    """Nested clusters of windows; whitening is fitted on the sentences `spoken`, labelled by their documents."""
    if not whiten:
        return grow_tree(vectors, branching, depth, seed, tick).router
    whitening = fit_whitening(spoken, labels, SHRINKAGE)
    router = grow_tree(whitening.apply(vectors), branching, depth, seed, tick).router
    return replace(router, mean=whitening.mean, transform=whitening.transform)


def encode_texts(texts: Sequence[str], encoder: Encoder, label: str, tick: Tick) -> Vectors:
    """Sentence vectors of texts, `[text, width]`."""
    pieces = []
    for start in range(0, len(texts), TEXTS):
        tick(label, start, len(texts))
        pieces.append(encoder.encode(texts[start : start + TEXTS]))
    return np.concatenate(pieces)


def list_sentences(windows: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Window number and text of every sentence."""
    owners, sentences = [], []
    for number, window in enumerate(windows):
        for sentence in filter(None, map(str.strip, split_sentences(window))):
            owners.append(number)
            sentences.append(sentence)
    return np.array(owners, dtype=np.int64), sentences


def split_sentences(text: str) -> list[str]:
    """A text cut after each end of a sentence or line."""
    ends = [0, *(match.end() for match in BORDERS[0].finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]
