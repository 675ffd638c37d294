"""Patches measured by taking up the model where they act: everything before is the clean run, which is known.

Ablating a node adds (ablated - clean) of its write to the residual stream behind it: the model is taken up there, from
that stream (`probes/restarts.py`). Ablating an edge changes what its reader alone takes in: the model is taken up at
the reader's layer, from the clean stream, and only that reader's query, key, value or input is computed from a stream
of its own. Patches that act at the same place run together. Both are equal to a masked run (`circuits/masking.py`).
Taking a part of a writer away is the same with a smaller loss (`circuits/removal.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.graph import ATTENTION, Component, Kind, Reader
from circuits.problem import Problem
from probes.attachments import Attachment, repeat_rows
from probes.forward import project
from probes.models import Model
from probes.restarts import RestartedPass, Start

# Position, reader, writer: the writer ablated for one reader or (a slice) all of them, at one position or at all.
Patch = tuple[int | slice, int | slice, int]


class PatchedPass(RestartedPass):
    """A restarted pass in which each patch has one reader, of the first layer, take in a stream of its own.

    Rows are patch by patch, a row for each prompt. `own` [patch, batch, pos, d_model] is what `readers` take in where
    `hit`; elsewhere they keep the model's own numbers, bit by bit.
    """

    def __init__(
        self,
        model: Model,
        attachment: Attachment,
        start: Start,
        stream: Float[Tensor, "row pos d_model"],
        ends: Int[Tensor, "row2 step"],
        readers: Sequence[Reader],
        own: Float[Tensor, "patch batch pos d_model"],
        hit: Bool[Tensor, "patch pos"],
    ) -> None:
        super().__init__(model, attachment, start, stream, ends, listened=(start.layer,))
        self.readers = readers
        self.own = own
        self.hit = hit

    def read_queries(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Queries, those of the patches' readers from their own streams."""
        query, memory = super().read_queries(layer, query)
        weights = self.model.weights[layer]
        if memory is not None:
            memory = self._replace_heads(layer, Kind.EXPLICIT, "q", memory, weights.query, weights.query_bias)
        return self._replace_heads(layer, Kind.HEAD, "q", query, weights.query, weights.query_bias), memory

    def read_learned_queries(self, layer: int, query: Tensor) -> Tensor:
        """Queries of learned key-values, those of the patches' readers from their own streams."""
        queries, weights = super().read_learned_queries(layer, query), self.model.weights[layer]
        patches = self._find(layer, lambda reader: reader.component.kind is Kind.LEARNED)
        if not patches:
            return queries
        levels = [self.readers[patch].component.block for patch in patches]
        normed = weights.attention_norm.apply(self.own[patches]).to(weights.query.dtype)
        projected = torch.stack([project(own, weights.query, weights.query_bias) for own in normed])
        rows = queries.clone().view(len(self.readers), -1, *queries.shape[1:])
        place = (patches, slice(None), slice(None), slice(None), levels)
        rows[place] = torch.where(self._spread_hits(patches).unsqueeze(-1), projected.to(queries.dtype), rows[place])
        return rows.view_as(queries)

    def read_keys(self, layer: int, key: Tensor) -> Tensor:
        """Keys, those of the patches' readers from their own streams."""
        weights = self.model.weights[layer]
        return self._replace_heads(layer, Kind.KEY_VALUE, "k", key, weights.key, weights.key_bias)

    def read_values(self, layer: int, value: Tensor) -> Tensor:
        """Values, those of the patches' readers from their own streams."""
        weights = self.model.weights[layer]
        return self._replace_heads(layer, Kind.KEY_VALUE, "v", value, weights.value, weights.value_bias)

    def read_mlp(self, layer: int, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Inputs of the MLP and of each bank block, those of the patches' readers from their own streams."""
        own, bank = super().read_mlp(layer, x)
        bank = [self._replace_input(layer, Kind.BANK, level, part) for level, part in enumerate(bank)]
        return self._replace_input(layer, Kind.MLP, -1, own), bank

    def _replace_heads(
        self, layer: int, kind: Kind, role: str, values: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Queries, keys or values [row, pos, head, ...] with those of patched heads computed anew."""
        patches = self._find(layer, lambda reader: reader.component.kind is kind and reader.role == role)
        if not patches:
            return values
        components = [self.readers[patch].component for patch in patches]
        heads = [component.head for component in components]
        normed = self.model.weights[layer].attention_norm.apply(self.own[patches])
        projected = torch.einsum("nbpm,nmd->nbpd", normed.to(weight.dtype), weight[heads])
        if bias is not None:
            projected = projected + bias[heads][:, None, None]
        rows = values.clone().view(len(self.readers), -1, *values.shape[1:])
        blocks = ([component.block for component in components],) if kind is Kind.EXPLICIT else ()
        place = (patches, slice(None), slice(None), heads, *blocks)
        rows[place] = torch.where(self._spread_hits(patches), projected.to(values.dtype), rows[place])
        return rows.view_as(values)

    def _replace_input(self, layer: int, kind: Kind, level: int, x: Tensor) -> Tensor:
        """Inputs [row, pos, d_model] of the MLP or of one bank block, patched rows computed anew."""
        patches = self._find(layer, lambda reader: (reader.component.kind, reader.component.block) == (kind, level))
        if not patches:
            return x
        rows = x.clone().view(len(self.readers), -1, *x.shape[1:])
        normed = self.model.weights[layer].mlp_norm.apply(self.own[patches]).to(x.dtype)
        rows[patches] = torch.where(self._spread_hits(patches), normed, rows[patches])
        return rows.view_as(x)

    def _spread_hits(self, patches: list[int]) -> Bool[Tensor, "patch 1 pos 1"]:
        return self.hit[patches][:, None, :, None]

    def _find(self, layer: int, fits: Callable[[Reader], bool]) -> list[int]:
        """Patches whose reader fits, at the layer where the pass starts."""
        if layer != self.start.layer:
            return []
        return [index for index, reader in enumerate(self.readers) if fits(reader)]


def find_reading(reader: Component, parallel: bool) -> Start:
    """Where a reader takes in the stream."""
    return Start(reader.layer, reader.kind in (Kind.MLP, Kind.BANK) and not parallel)


def find_writing(writer: Component, parallel: bool) -> Start:
    """Where the stream that a writer has added to is taken in first."""
    if writer.kind in ATTENTION and not parallel:
        return Start(writer.layer, at_mlp=True)
    return Start(writer.layer + 1)


def find_start(problem: Problem, patch: Patch) -> Start:
    """Where the model is taken up to measure a patch."""
    wiring, parallel = problem.wiring, problem.model.parallel
    _, reader, writer = patch
    if isinstance(reader, slice):
        return find_writing(wiring.writers[writer], parallel)
    return find_reading(wiring.readers[reader].component, parallel)


def find_hits(problem: Problem, patches: Sequence[Patch]) -> Bool[Tensor, "patch pos"]:
    """Which positions of the prompt each patch ablates."""
    hit = torch.full((len(patches), problem.positions), False, device=problem.model.device)
    for row, (position, _, _) in enumerate(patches):
        hit[row, position] = True
    return hit.expand(-1, problem.inputs.clean.shape[1])


def measure_restarted(problem: Problem, start: Start, patches: Sequence[Patch]) -> Float[Tensor, " patch"]:
    """Drop of the metric (mean over the pairs) by each patch alone; all act at `start`, on nodes or all on edges."""
    hit = find_hits(problem, patches)
    losses = problem.difference[[writer for _, _, writer in patches]] * hit[:, None, :, None]
    readers = [problem.wiring.readers[reader] for _, reader, _ in patches if isinstance(reader, int)]
    return measure_losses(problem, start, losses, readers)


def measure_losses(
    problem: Problem, start: Start, losses: Float[Tensor, "patch batch pos d_model"], readers: Sequence[Reader] = ()
) -> Float[Tensor, " patch"]:
    """Drop of the metric (mean over the pairs) when the clean stream at `start` lacks one of the losses.

    `readers` are those that lose it, one a loss; none: all that come after. A last row that loses nothing is what the
    others are compared with: a loss without effect drops by 0.
    """
    inputs, model, count = problem.inputs, problem.model, len(losses) + 1
    clean = start.read_stream(problem.clean_record)
    losses = torch.cat([losses, torch.zeros_like(losses[:1])])
    changed = clean - losses.to(clean.dtype)
    attachment, ends = repeat_rows(inputs.attachment, count), inputs.readout.positions
    if not readers or start.layer == model.layers:
        taken_up: RestartedPass = RestartedPass(model, attachment, start, changed.flatten(0, 1), ends)
    else:
        stream = clean.expand(count, -1, -1, -1).flatten(0, 1)
        hit = losses.ne(0).any(dim=3).any(dim=1)
        readers = [*readers, readers[-1]]
        taken_up = PatchedPass(model, attachment, start, stream, ends, readers, changed, hit)
    logits = taken_up.run(inputs.clean)
    if inputs.clean.shape[0] == 1:
        measured = problem.metric_at_ends(logits)
    else:
        pairs = logits.view(count, -1, *logits.shape[1:])
        measured = torch.stack([problem.metric_at_ends(rows).mean() for rows in pairs])
    return measured[-1] - measured[:-1]
