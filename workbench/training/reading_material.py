"""What a reader of explicit memories trains on: sequences of the corpus, its references, and who reads which.

Each 64-token chunk of a sequence gets the reference that is nearest in meaning among the corpus's own, those left out
that the sequence already holds in good part. Source: Yang et al. 2024, sections 3.6 and 4.4, equation 6.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from probes.errors import UserError
from probes.explicit import REFERENCE_LENGTH
from probes.progress import Tick
from workbench.memory.chunks import cut_chunks
from workbench.memory.documents import read_documents
from workbench.memory.indexes import load_faiss
from workbench.memory.overlap import measure_overlap
from workbench.memory.search import DEFAULT_ENCODER, TEXTS, Encoder
from workbench.storage import fresh_folder
from workbench.training.corpus import Files, find_head, read_tokens
from workbench.training.live import CHUNK
from workbench.training.routing import encode_texts

# Nearest references that are looked at for one that the sequence does not hold already.
CANDIDATES = 16


@dataclass(frozen=True, slots=True)
class Material:
    """`chosen` names the reference of each chunk of each sequence (-1: none passed the filter).

    References are filled up on the right; their text is tokens `first` up to their length.
    """

    sequences: Int[Tensor, "sequence pos"]
    chosen: Int[Tensor, "sequence chunk"]
    references: Int[Tensor, "reference place"]
    lengths: Int[Tensor, " reference"]
    first: Int[Tensor, ""]

    @property
    def share_read(self) -> float:
        """Share of the chunks that have a reference."""
        return float((self.chosen >= 0).float().mean())


def build_material(
    files: Files,
    characters: int,
    tokenizer: Any,
    length: int,
    prefix: str,
    limit: int,
    overlap: float,
    tick: Tick,
    encoder: Encoder = DEFAULT_ENCODER,
) -> Material:
    """Sequences of `length` tokens, references of at most `limit` with their prefix, and who reads which.

    Raises UserError when the corpus is shorter than one sequence, or leaves nothing to retrieve.
    """
    load_faiss()
    sequences = pack_sequences(files, characters, tokenizer, length, tick)
    head = list(tokenizer(prefix)["input_ids"])
    rows, texts = list_references(files, tokenizer, head, limit, tick)
    if len(rows) < 2:
        raise UserError("the corpus is one reference long, which leaves nothing to retrieve: give more documents")
    chunks = sequences.reshape(-1, CHUNK)
    spoken = [tokenizer.decode(ids, skip_special_tokens=True) for ids in chunks.tolist()]
    found = search_references(texts, spoken, encoder, tick)
    chosen = choose_references(sequences, rows, found, len(head), overlap, tick)
    if not (chosen >= 0).any():
        raise UserError(
            f"every reference near a sequence overlaps it by more than {overlap:g}, as in a corpus of one short "
            "document: give more documents"
        )
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32)
    references = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int32)
    for place, row in enumerate(rows):
        references[place, : len(row)] = torch.tensor(row, dtype=torch.int32)
    return Material(torch.from_numpy(sequences), chosen, references, lengths, torch.tensor(len(head)))


def pack_sequences(
    files: Files, characters: int, tokenizer: Any, length: int, tick: Tick
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The corpus end to end in rows of `length` tokens; the last row overlaps the one before it."""
    head, stream = find_head(tokenizer), array("i")
    for _, ids in read_tokens(files, tokenizer, characters, tick):
        stream.extend(head)
        stream.extend(ids)
    tokens = np.asarray(stream, dtype=np.int32)
    if len(tokens) < length:
        raise UserError(
            f"the corpus has {len(tokens)} tokens and a sequence takes {length}: give more text, or a smaller --length"
        )
    whole = len(tokens) // length
    rows = tokens[: whole * length].reshape(whole, length)
    return rows if whole * length == len(tokens) else np.concatenate([rows, tokens[None, -length:]])


def list_references(
    files: Files, tokenizer: Any, head: Sequence[int], limit: int, tick: Tick
) -> tuple[list[list[int]], list[str]]:
    """Token ids (prefix first) and texts of the corpus's references, cut as `memory write` cuts them."""
    budget = min(limit, REFERENCE_LENGTH) - len(head)
    if budget < 1:
        raise UserError(f"the prefix alone has {len(head)} tokens: choose a shorter one, or a larger --offset")
    rows, texts = [], []
    for document in read_documents(files):
        for chunk in cut_chunks(document.blocks, tokenizer, budget):
            rows.append([*head, *chunk.ids])
            texts.append(chunk.text)
        tick("cutting references", len(rows), 0)
    return rows, texts


def search_references(
    references: Sequence[str], chunks: Sequence[str], encoder: Encoder, tick: Tick
) -> Iterator[list[int]]:
    """The references nearest to each chunk, best first."""
    faiss = load_faiss()
    known = encode_texts(references, encoder, "embedding references", tick)
    queries = encode_texts(chunks, encoder, "embedding chunks", tick)
    for start in range(0, len(queries), TEXTS):
        some, count = queries[start : start + TEXTS], min(CANDIDATES, len(references))
        yield from faiss.knn(some, known, count, metric=faiss.METRIC_INNER_PRODUCT)[1].tolist()


def choose_references(
    sequences: np.ndarray[Any, np.dtype[np.int32]],
    references: Sequence[Sequence[int]],
    found: Iterator[list[int]],
    first: int,
    overlap: float,
    tick: Tick,
) -> Int[Tensor, "sequence chunk"]:
    """For each chunk the nearest reference of which its sequence holds no more than `overlap`."""
    chosen = torch.full((len(sequences), sequences.shape[1] // CHUNK), -1, dtype=torch.int32)
    for row, sequence in enumerate(sequences.tolist()):
        tick("choosing references", row, len(sequences))
        there, held = Counter(sequence), dict[int, bool]()
        for chunk in range(chosen.shape[1]):
            for place in next(found):
                if place < 0:
                    continue
                if place not in held:
                    held[place] = holds(sequence, there, references[place][first:], overlap)
                if not held[place]:
                    chosen[row, chunk] = place
                    break
    return chosen


def holds(sequence: list[int], there: Counter[int], reference: Sequence[int], overlap: float) -> bool:
    """Whether a sequence (and its tokens counted) holds more than this share of a reference, in order."""
    # Tokens in common, whatever their order, are at least as many as in order, and quicker to count.
    if (there & Counter(reference)).total() <= overlap * len(reference):
        return False
    return measure_overlap(sequence, reference) > overlap


def save_material(material: Material, folder: Path) -> None:
    """Keep material, so that a training that goes on need not embed again."""
    with fresh_folder(folder, replace=True) as fresh:
        save_file(
            {part.name: getattr(material, part.name) for part in fields(Material)}, fresh / "material.safetensors"
        )


def load_material(folder: Path) -> Material | None:
    """Material that was kept, or None."""
    path = folder / "material.safetensors"
    return Material(**load_file(path)) if path.is_file() else None
