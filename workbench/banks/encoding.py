"""The sentence encoder of a tree or router, by its name."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from probes.errors import UserError
from probes.models import quieten_libraries
from workbench.banks.routing import Vectors
from workbench.demo.clusters import ENCODER
from workbench.memory.search import DEFAULT_ENCODER, Encoder


@functools.cache
def open_encoder(name: str = ENCODER) -> Encoder:
    """Encoder of a name: the shipped one, or any folder or hub name that sentence-transformers loads.

    Raises UserError when the extra is not installed, or there is no such encoder.
    """
    quieten_libraries()
    if name == ENCODER:
        return DEFAULT_ENCODER
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise UserError("a sentence encoder needs the extra: pip install 'memory-circuits[encoder]'") from None
    try:
        model = SentenceTransformer(name, device="cpu")
    except Exception as error:  # The library raises whatever its own readers raise.
        line = " ".join(str(error).split())[:160]
        raise UserError(f"cannot load the sentence encoder {name[:80]!r} ({type(error).__name__}: {line})") from None

    def encode(texts: Sequence[str]) -> Vectors:
        vectors = model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    return Encoder(name, encode)
