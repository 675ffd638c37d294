"""The router of a trained bank: sentence vectors, nested clusters of the corpus, and the way from a text to its blocks.

Sentence vectors are whitened within documents if so chosen: directions in which the sentences of one document differ
(wording, what is said) are shrunk, those that tell documents apart remain, so that a short question goes where the
document went. The paper routes by the plain vectors.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from probes.bank_format import ROUTER, read_bank_head
from probes.errors import UserError
from probes.progress import Tick, quiet
from workbench.demo.clusters import ENCODER, Tree, Vectors, grow_tree
from workbench.demo.whitening import Whitening, fit_whitening
from workbench.memory.chunks import BORDERS
from workbench.memory.search import DEFAULT_ENCODER, TEXTS, Encoder

# Share of the mean variance that is added in every direction before whitening.
SHRINKAGE = 0.01


@dataclass(frozen=True, slots=True)
class Router:
    """From texts to cluster paths; `whitening` is None for plain vectors."""

    tree: Tree
    whitening: Whitening | None
    encoder: Encoder = DEFAULT_ENCODER

    def place(self, vectors: Vectors) -> NDArray[np.int64]:
        """Cluster paths of sentence vectors, `[text, level]`, the nearest child at every level."""
        return self.tree.route(vectors if self.whitening is None else self.whitening.apply(vectors))

    def route(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Cluster paths of texts, `[text, level]`."""
        return self.place(self.encoder.encode(texts))

    def list_tensors(self) -> dict[str, Tensor]:
        """Centroids and whitening, as a bank keeps them."""
        tensors = {
            f"level{level}.centroids": torch.from_numpy(centroids)
            for level, centroids in enumerate(self.tree.centroids, start=1)
        }
        if self.whitening is not None:
            tensors["whitening.mean"] = torch.from_numpy(self.whitening.mean)
            tensors["whitening.transform"] = torch.from_numpy(self.whitening.transform)
        return tensors

    def describe(self) -> dict[str, Any]:
        """How texts are routed, in words, as a bank keeps it."""
        about: dict[str, Any] = {"encoder": self.encoder.name, "normalised": True, "distance": "euclidean"}
        if self.whitening is not None:
            about["transform"] = "normalise((embedding - whitening.mean) @ whitening.transform)"
            about["deviation"] = "whitening within documents; the paper has none"
        return about


def parse_router(tensors: Mapping[str, Tensor], about: Mapping[str, Any], branching: int) -> Router:
    """Router from what a bank keeps. Raises KeyError or UserError when it is none that this release knows."""
    if about.get("encoder") != ENCODER:
        raise UserError(f"the bank is routed by {str(about.get('encoder'))[:60]!r}, and this release has {ENCODER}")
    levels = sum(name.endswith(".centroids") for name in tensors)
    centroids = tuple(tensors[f"level{level}.centroids"].float().numpy() for level in range(1, levels + 1))
    whitening = None
    if "whitening.mean" in tensors:
        whitening = Whitening(tensors["whitening.mean"].numpy(), tensors["whitening.transform"].numpy())
    return Router(Tree(centroids, branching), whitening)


@lru_cache(maxsize=4)
def load_router(folder: Path, sha256: str, branching: int) -> Router:
    """Router of a bank's folder, whose contents have this hash. Raises UserError when it is missing or damaged."""
    try:
        return parse_router(load_file(folder / ROUTER), read_bank_head(folder).router, branching)
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{folder / ROUTER} is missing or damaged ({error}): the bank cannot route prompts") from None


def grow_router(
    windows: Sequence[str],
    documents: Sequence[int],
    branching: int,
    depth: int,
    seed: int,
    whiten: bool,
    tick: Tick = quiet,
    encoder: Encoder = DEFAULT_ENCODER,
) -> tuple[Router, NDArray[np.int64], float]:
    """Router of windows of text (`documents` numbers the one each is of), their paths, and a measure of the router.

    The measure is the share of single sentences that reach the deepest cluster of their own window.
    """
    vectors = encode_texts(windows, encoder, "embedding windows", tick)
    owners, sentences = list_sentences(windows)
    spoken = encode_texts(sentences, encoder, "embedding sentences", tick)
    whitening = None
    if whiten:
        labels = [str(documents[owner]) for owner in owners]
        whitening = fit_whitening(spoken, labels, SHRINKAGE)
    tick("clusters", 0, depth)
    moved = vectors if whitening is None else whitening.apply(vectors)
    with warnings.catch_warnings():
        # Of clusters with fewer different texts than children; the children left over stay empty.
        warnings.simplefilter("ignore")
        tree = grow_tree(moved, branching, depth, seed, lambda done, total: tick("clusters", done, total))
    router = Router(tree, whitening, encoder)
    paths = router.place(vectors)
    reached = float((router.place(spoken)[:, -1] == paths[owners, -1]).mean())
    return router, paths, reached


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
    border: re.Pattern[str] = BORDERS[0]
    ends = [0, *(match.end() for match in border.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]
