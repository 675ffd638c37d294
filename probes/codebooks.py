"""Codebooks of a compressed bank: bytes of a code back to keys and values, in plain tensors, without FAISS.

There is one codebook for the keys and one for the values of each memory layer, shared by its key-value heads. They
lie in the bank's `codebooks.safetensors`, for `keys` and `values` each: `rotation` [layer d d], `coarse` [layer half
centroid d/2] and `fine` [layer piece centroid d/piece]. A vector is (coarse centroids + fine centroids) @ rotation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from probes.codes import Code
from probes.errors import UserError

CODEBOOKS = "codebooks.safetensors"
SIDES = ("keys", "values")


def unpack(packed: UInt8[Tensor, "*any byte"], width: int, count: int) -> Int[Tensor, "*any count"]:
    """`count` numbers of `width` bits each, lowest bits first, as FAISS packs them into bytes."""
    bits = (packed.unsqueeze(-1).long() >> torch.arange(8, device=packed.device)) & 1
    bits = bits.flatten(-2)[..., : width * count].reshape(*packed.shape[:-1], count, width)
    numbers: Tensor = (bits << torch.arange(width, device=packed.device)).sum(dim=-1)
    return numbers


@dataclass(frozen=True, slots=True)
class Codebook:
    """Codebook of one side of one layer."""

    code: Code
    rotation: Float[Tensor, "d_head d_head"] | None
    coarse: Float[Tensor, "half coarse_centroid half_width"] | None
    fine: Float[Tensor, "piece fine_centroid piece_width"]

    def decode(self, packed: UInt8[Tensor, "*any byte"]) -> Float[Tensor, "*any d_head"]:
        """Vectors of packed codes."""
        code = self.code
        chosen = unpack(packed[..., code.coarse_bytes :], code.fine, code.pieces)
        vectors = self.fine[torch.arange(code.pieces), chosen].flatten(-2)
        if self.coarse is not None:
            halves = unpack(packed[..., : code.coarse_bytes], code.coarse, 2)
            vectors = vectors + self.coarse[torch.arange(2), halves].flatten(-2)
        return vectors if self.rotation is None else vectors @ self.rotation


@dataclass(frozen=True, slots=True)
class Codebooks:
    """All codebooks of a bank, tensors as in its file."""

    code: Code
    tensors: Mapping[str, Tensor]

    def find(self, side: str, layer: int) -> Codebook:
        """Codebook of `keys` or `values` of the memory layer at a place in the head's order."""
        rotation, coarse, fine = (self.tensors.get(f"{side}.{part}") for part in ("rotation", "coarse", "fine"))
        assert fine is not None
        return Codebook(
            self.code,
            None if rotation is None else rotation[layer],
            None if coarse is None else coarse[layer],
            fine[layer],
        )

    def decode(
        self, side: str, packed: UInt8[Tensor, "layer *any byte"], present: Tensor
    ) -> Float[Tensor, "layer *any d_head"]:
        """Keys or values of memories, layer by layer; zeros where a slot is not `present` [layer *any]."""
        layers = [self.find(side, layer).decode(part) for layer, part in enumerate(packed)]
        return torch.stack(layers).masked_fill(~present.unsqueeze(-1), 0.0)


def list_shapes(code: Code, layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of codebooks."""
    shapes: dict[str, tuple[int, ...]] = {}
    for side in SIDES:
        if code.turns:
            shapes[f"{side}.rotation"] = (layers, code.width, code.width)
        if code.coarse:
            shapes[f"{side}.coarse"] = (layers, 2, 2**code.coarse, code.width // 2)
        shapes[f"{side}.fine"] = (layers, code.pieces, 2**code.fine, code.width // code.pieces)
    return shapes


def open_codebooks(folder: Path, code: Code, layers: int) -> Codebooks:
    """Codebooks of a bank, memory-mapped. Raises UserError when they are missing, damaged or not the code's."""
    path, wanted = folder / CODEBOOKS, list_shapes(code, layers)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if shapes != wanted:
                raise UserError(f"{path} does not hold the codebooks of {code.name} for {layers} layers")
            tensors = {name: file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path} is damaged or missing ({error}): compress the bank again") from None
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise UserError(f"{path} holds other numbers than float32")
    return Codebooks(code, tensors)
