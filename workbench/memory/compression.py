"""Compressing a bank of explicit memories: codes trained and applied by FAISS, kept as plain tensors.

A code (`probes/codes.py`) is trained once for the keys and once for the values of each memory layer, on the slots of
all its key-value heads. FAISS trains and encodes; its trained tables go into safetensors, so that no FAISS file is ever
read (its native format is parsed by C++ code that trusts it) and reading needs no FAISS. The bank that is compressed
stays as it is. Source: Yang et al. 2024, section 3.3 and appendix B.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from probes.codebooks import CODEBOOKS, SIDES
from probes.codes import Code, choose_code, read_code, require_vectors
from probes.errors import UserError
from probes.memory_bank import MemoryBank, check_shard
from probes.memory_format import ENTRIES, HEAD, VERSION, Head, Part, read_entries
from probes.progress import Tick
from workbench.memory.indexes import load_faiss
from workbench.memory.store import lock_folder, prepare_folder, remove_leftovers, write_tables
from workbench.storage import write_file

# Most vectors a codebook is trained on: the paper's code has 2^14 centroids, and 16 vectors each are enough.
MOST_VECTORS = 2**18
# Rounds of fitting the rotation: on the shipped bank three times as many change what is lost by 2 % of it, and FAISS's
# own 50 take ten times as long.
ROTATION_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Compressed:
    """What compression did: the code, vectors each codebook was trained on, and bytes of tensors before and after.

    `error` is what is lost of keys and values on the vectors that it was trained on: squared error over squared length.
    """

    code: str
    memories: int
    vectors: int
    bytes_a_vector: int
    bytes_before: int
    bytes_after: int
    codebook_bytes: int
    error: dict[str, float]

    @property
    def ratio(self) -> float:
        """How many times smaller the keys and values are, codebooks not counted."""
        return self.bytes_before / self.bytes_after


class Quantiser:
    """A FAISS index of one code, trained on vectors [vector d_head]."""

    def __init__(self, code: Code, vectors: NDArray[np.float32], seed: int) -> None:
        faiss = load_faiss()
        self.code = code
        self.index = faiss.index_factory(code.width, code.factory)
        inner = self.index
        if code.turns:
            inner = faiss.downcast_index(self.index.index)
            self.rotation = faiss.downcast_VectorTransform(self.index.chain.at(0))
            self.rotation.niter = ROTATION_ROUNDS
            bits = min(8, int(np.log2(len(vectors))))
            # The index does not own it: it must live as long as the training.
            self.pieces = faiss.ProductQuantizer(code.width, code.turns, bits)
            self.rotation.pq = self.pieces
            quieten(self.pieces.cp, seed)
        self.fine = inner.pq
        quieten(self.fine.cp, seed)
        if code.coarse:
            self.coarse = faiss.downcast_index(inner.q1.quantizer).pq
            quieten(self.coarse.cp, seed)
        self.index.train(vectors)
        if code.turns:
            self.rotation.pq = None

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Codes of vectors, [vector byte]."""
        codes: NDArray[np.uint8] = self.index.sa_encode(vectors)
        return codes

    def list_tables(self) -> dict[str, Tensor]:
        """The trained tables, shaped as `probes/codebooks.py` has them."""
        faiss, code = load_faiss(), self.code

        def read(vector: Any, *shape: int) -> Tensor:
            return torch.from_numpy(faiss.vector_to_array(vector).reshape(shape).copy())

        tables = {"fine": read(self.fine.centroids, code.pieces, 2**code.fine, code.width // code.pieces)}
        if code.coarse:
            tables["coarse"] = read(self.coarse.centroids, 2, 2**code.coarse, code.width // 2)
        if code.turns:
            tables["rotation"] = read(self.rotation.A, code.width, code.width)
        return tables


def quieten(clustering: Any, seed: int) -> None:
    """Seed a clustering, and keep its warnings about few vectors off the terminal: we say what was trained on what."""
    clustering.seed = (seed + 1) % 2**31
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = MOST_VECTORS


def list_rows(part: Part) -> list[int]:
    """Rows of a part that were not deleted."""
    gone = set(part.deleted)
    return [row for row in range(part.rows) if row not in gone]


def draw_rows(head: Head, count: int, seed: int) -> list[tuple[Part, int]]:
    """At most `count` memories of a bank, in order, drawn by the seed."""
    places = [(part, row) for part in head.parts for row in list_rows(part)]
    if len(places) <= count:
        return places
    chosen = np.random.default_rng(seed).choice(len(places), count, replace=False)
    return [places[place] for place in sorted(chosen.tolist())]


def read_vectors(
    folder: Path, head: Head, rows: Sequence[tuple[Part, int]], side: str, layer: int
) -> NDArray[np.float32]:
    """Keys or values of one memory layer of these rows, absent slots left out, [vector d_head]."""
    found = []
    for part in dict.fromkeys(part for part, _ in rows):
        path = folder / part.shard
        try:
            with safe_open(path, framework="pt") as file:
                check_shard(path, head, part, file)
                stored, kept = file.get_slice(side), file.get_slice("positions")
                for row in (row for owner, row in rows if owner is part):
                    found.append(stored[row, layer][kept[row, layer] >= 0].float())
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path} is damaged ({error}): `memory-circuits memory verify` says what is whole"
            ) from None
    vectors: NDArray[np.float32] = torch.cat(found).numpy()
    return vectors


def count_vectors(folder: Path, head: Head, rows: Sequence[tuple[Part, int]]) -> int:
    """Fewest vectors that any codebook has to be trained on: slots of one layer that are there."""
    return min(len(read_vectors(folder, head, rows, "keys", layer)) for layer in range(len(head.layers)))


def compress_bank(bank: MemoryBank, out: Path, name: str, seed: int, tick: Tick) -> Compressed:
    """Write a compressed copy of a bank into a new folder; `name` is a code's name, or auto.

    Raises UserError, with nothing in the new folder that counts as a bank, for a bank that is compressed already or has
    too few memories for the code, for a folder that holds a bank, and when the disk refuses.
    """
    load_faiss()
    head = bank.head
    if head.code:
        raise UserError(f"{bank.folder} is compressed already ({head.code}): compress the bank that it was made of")
    if not len(bank):
        raise UserError(f"{bank.folder} holds no memory: write some first")
    if (out / HEAD).exists():
        raise UserError(f"{out} holds a bank already: choose another --out")
    rows = draw_rows(head, max(1, MOST_VECTORS // (head.kv_heads * head.slots)), seed)
    vectors = count_vectors(bank.folder, head, rows)
    code = choose_code(head.d_head, vectors) if name == "auto" else read_code(name, head.d_head)
    require_vectors(code, vectors)
    prepare_folder(out)
    with lock_folder(out):
        remove_leftovers(out, replace(head, parts=()))
        quantisers, errors = train_code(bank, code, rows, seed, tick)
        tables = save(collect_tables(quantisers))
        write_file(out / CODEBOOKS, tables)
        digest = hashlib.sha256(tables).hexdigest()
        new = replace(head, version=VERSION, code=code.name, codebooks_sha256=digest, parts=(), ids=(), next_part=0)
        for done, part in enumerate(head.parts):
            tick("compressing", done, len(head.parts))
            new = compress_part(bank, out, new, part, quantisers)
        write_file(out / HEAD, new.to_bytes())
    before = bank.describe()["bytes_a_memory"] * len(bank)
    after = before // bank.describe()["bytes_a_vector"] * code.bytes
    return Compressed(code.name, len(bank), vectors, code.bytes, before, after, len(tables), errors)


def train_code(
    bank: MemoryBank, code: Code, rows: Sequence[tuple[Part, int]], seed: int, tick: Tick
) -> tuple[dict[str, list[Quantiser]], dict[str, float]]:
    """A quantiser for each side of each memory layer, and the share of its vectors' squared length that is lost."""
    layers = len(bank.head.layers)
    quantisers: dict[str, list[Quantiser]] = {side: [] for side in SIDES}
    errors = {}
    for place, side in enumerate(SIDES):
        lost = whole = 0.0
        for layer in range(layers):
            tick(f"training {code.name}", place * layers + layer, 2 * layers)
            vectors = read_vectors(bank.folder, bank.head, rows, side, layer)
            quantiser = Quantiser(code, vectors, seed)
            decoded = quantiser.index.sa_decode(quantiser.encode(vectors))
            lost += float(np.square(vectors - decoded, dtype=np.float64).sum())
            whole += float(np.square(vectors, dtype=np.float64).sum())
            quantisers[side].append(quantiser)
        errors[side] = lost / whole if whole else 0.0
    return quantisers, errors


def collect_tables(quantisers: dict[str, list[Quantiser]]) -> dict[str, Tensor]:
    """Tables of all codebooks, layers stacked."""
    tables: dict[str, Tensor] = {}
    for side, layers in quantisers.items():
        own = [quantiser.list_tables() for quantiser in layers]
        tables |= {f"{side}.{part}": torch.stack([one[part] for one in own]).contiguous() for part in own[0]}
    return tables


def compress_part(bank: MemoryBank, out: Path, head: Head, part: Part, quantisers: dict[str, list[Quantiser]]) -> Head:
    """Write one part compressed, deleted memories left out, and return the head that names it too."""
    rows = list_rows(part)
    if not rows:
        return head
    path = bank.folder / part.shard
    try:
        with safe_open(path, framework="pt") as file:
            check_shard(path, bank.head, part, file)
            positions = file.get_tensor("positions")[rows]
            keys, values = (encode_side(file.get_tensor(side)[rows].float(), quantisers[side]) for side in SIDES)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}): `memory-circuits memory verify` says what is whole") from None
    if bank.head.version == 1:
        ids = [bank.head.ids[row] for row in rows]
        entries = pa.Table.from_pylist([{"id": name} for name in ids], schema=ENTRIES)
    else:
        entries = read_entries(bank.folder, part).take(rows).cast(ENTRIES)
    written = write_tables(out, head, entries, keys, values, positions)
    return replace(head, parts=(*head.parts, written), next_part=head.next_part + 1)


def encode_side(stored: Tensor, quantisers: Sequence[Quantiser]) -> Tensor:
    """Bytes [memory layer kv_head slot byte] of keys or values [memory layer kv_head slot d_head]."""
    layers = []
    for layer, quantiser in enumerate(quantisers):
        vectors = stored[:, layer]
        codes = quantiser.encode(np.ascontiguousarray(vectors.flatten(0, -2).numpy()))
        layers.append(torch.from_numpy(codes).view(*vectors.shape[:-1], quantiser.code.bytes))
    return torch.stack(layers, dim=1)
