"""What a bank trains on: windows of documents, packed into rows with others of the same deepest cluster.

Source: Pouransari et al. 2025, appendices A and C. In a row every document sees itself alone and begins at position 0,
so that packing saves padding and changes nothing else. Unlike the paper no cluster id stands before the text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from safetensors.numpy import save
from safetensors.torch import load_file, save_file
from torch import Tensor

from probes.bank_format import ROUTER
from probes.errors import UserError
from probes.progress import Tick
from workbench.banks.routing import list_tensors, load_router
from workbench.storage import fresh_folder
from workbench.training.corpus import Files, find_head, read_tokens, require_documents
from workbench.training.routing import Routing, place_windows, require_shape


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows of tokens with the document and the position of each token (-1: filled up), and the path of each row."""

    ids: Int[Tensor, "row pos"]
    segments: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row pos"]
    paths: Int[Tensor, "row level"]

    def select(self, rows: Sequence[int] | Tensor) -> Packed:
        """Some rows, without the filling that they do not need."""
        width = max(2, int((self.segments[rows] >= 0).sum(1).max()))
        ids, segments, positions = (part[rows, :width].long() for part in (self.ids, self.segments, self.positions))
        return Packed(ids, segments, positions, self.paths[rows].long())

    def move(self, device: torch.device) -> Packed:
        """The same on another device."""
        return Packed(*(getattr(self, part.name).to(device) for part in fields(Packed)))

    def count_targets(self) -> int:
        """Tokens that are predicted: all but the first of each document."""
        same = (self.segments[:, 1:] == self.segments[:, :-1]) & (self.segments[:, 1:] >= 0)
        return int(same.sum())


@dataclass(frozen=True, slots=True)
class BankMaterial:
    """Packed rows, the router that was grown with them, and the share of sentences that reach their own cluster."""

    packed: Packed
    routing: Routing
    reached: float


def list_windows(
    files: Files, characters: int, tokenizer: Any, length: int, tick: Tick
) -> tuple[list[list[int]], list[str], list[int]]:
    """Windows of at most `length` tokens with what begins a document: token ids, text, and number of the document."""
    head = find_head(tokenizer)
    rows, texts, owners = [], [], []
    for number, (_, ids) in enumerate(read_tokens(files, tokenizer, characters, tick)):
        for start in range(0, len(ids), length - len(head)):
            own = ids[start : start + length - len(head)].tolist()
            rows.append([*head, *own])
            texts.append(tokenizer.decode(own, skip_special_tokens=True))
            owners.append(number)
    return rows, texts, owners


def pack_windows(windows: Sequence[Sequence[int]], paths: NDArray[np.int64], length: int) -> Packed:
    """Windows of one deepest cluster side by side, in order, as many to a row as fit whole."""
    rows: list[list[int]] = []
    order = np.lexsort((np.arange(len(windows)), paths[:, -1]))
    filled, leaf = 0, -1
    for number in order.tolist():
        if not rows or paths[number, -1] != leaf or filled + len(windows[number]) > length:
            rows.append([])
            filled, leaf = 0, int(paths[number, -1])
        rows[-1].append(number)
        filled += len(windows[number])
    width = max(sum(len(windows[number]) for number in row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int32)
    segments, positions = torch.full_like(ids, -1), torch.zeros_like(ids)
    for place, row in enumerate(rows):
        start = 0
        for segment, number in enumerate(row):
            end = start + len(windows[number])
            ids[place, start:end] = torch.tensor(windows[number], dtype=torch.int32)
            segments[place, start:end] = segment
            positions[place, start:end] = torch.arange(end - start)
            start = end
    return Packed(ids, segments, positions, torch.from_numpy(paths[[row[0] for row in rows]]))


def build_bank_material(
    files: Files,
    characters: int,
    tokenizer: Any,
    length: int,
    branching: int,
    depth: int,
    seed: int,
    whiten: bool,
    routing: Routing | None,
    tick: Tick,
) -> BankMaterial:
    """Windows of the corpus, clustered (or placed by a router that is there) and packed.

    Raises UserError for a corpus of a single document, which leaves nothing to tell apart.
    """
    if routing is not None:
        require_shape(routing, branching, depth)
    windows, texts, owners = list_windows(files, characters, tokenizer, length, tick)
    require_documents(len(set(owners)), 2, "a bank of clusters")
    routing, paths, reached = place_windows(texts, owners, branching, depth, seed, whiten, routing, tick)
    return BankMaterial(pack_windows(windows, paths, length), routing, reached)


def save_bank_material(material: BankMaterial, folder: Path) -> None:
    """Keep material, so that a training that goes on, and other processes, need not embed again."""
    tensors = {part.name: getattr(material.packed, part.name) for part in fields(Packed)}
    tensors["reached"] = torch.tensor(material.reached, dtype=torch.float64)
    with fresh_folder(folder, replace=True) as fresh:
        save_file(tensors, fresh / "packed.safetensors")
        (fresh / ROUTER).write_bytes(save(dict(list_tensors(material.routing.router))))
        (fresh / "routing.json").write_text(json.dumps({"encoder": material.routing.encoder}))


def load_bank_material(folder: Path, branching: int, depth: int) -> BankMaterial | None:
    """Material that was kept, or None."""
    if not (folder / "packed.safetensors").is_file():
        return None
    tensors = load_file(folder / "packed.safetensors")
    reached = float(tensors.pop("reached"))
    encoder = json.loads((folder / "routing.json").read_text())["encoder"]
    return BankMaterial(Packed(**tensors), Routing(load_router(folder, branching, depth), encoder), reached)


def choose_subtree(packed: Packed, subtree: int | str | None) -> Packed:
    """Rows that a training of one subtree sees; all where none, or the generic blocks, are trained.

    Raises UserError when no document lies in the subtree.
    """
    if subtree is None or subtree == "generic":
        return packed
    rows = torch.nonzero(packed.paths[:, 0] == int(subtree))[:, 0]
    if not len(rows):
        held = sorted(set(packed.paths[:, 0].tolist()))
        raise UserError(f"no document lies in subtree {subtree}: those with documents are {shorten(held)}")
    return Packed(*(getattr(packed, part.name)[rows] for part in fields(Packed)))


def shorten(numbers: Sequence[int], most: int = 20) -> str:
    """Numbers with commas, cut where they are many."""
    listed: Iterator[str] = map(str, numbers[:most])
    return ", ".join(listed) + (" ..." if len(numbers) > most else "")
