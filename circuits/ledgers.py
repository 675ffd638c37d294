"""Ledgers of a batch of prompts: the answer's margin divided over the formats, and each format's share over its parts.

1. Every combination of formats is run (`circuits/coalitions.py`); a format's share is its Shapley value over them, so
   the anchor (the value with nothing attached) and all shares add up to the margin.
2. Within a format, a Shapley value is a weighted mean over combinations of what switching the format on brings. What
   each part of it brings there is taken to first order at both ends, off and on, and averaged (the trapezoid rule of
   an integrated gradient along the format's strength). An explicit memory's parts are its slots as each head reads
   them, a bank level's its units (of learned key-values a layer's read), a text's the attention edges from its
   positions, renormalised. Where a slot or edge competes in a softmax, what a head loses with the whole memory or text
   is exact and divided exactly: `weight . (value - what the head would read without all of them)`.
3. What is then missing of the share is the format's residual: effects beyond the two gradients, and what has no part
   (the shift of positions by a text, LoRA blocks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.activity import sum_reads
from circuits.anchors import Anchor, run_anchor
from circuits.attention import SMALLEST_REST, weigh_sources
from circuits.coalitions import Asked, Chunk, Format, expand_rows, judge, run_side
from circuits.graph import Component, Kind
from circuits.parts import Removal
from circuits.shapley import share_value, weigh_coalitions
from probes.errors import UserError
from probes.models import Model


@dataclass(frozen=True, slots=True)
class Division:
    """Shares of one format's parts, summed over the positions of the question: `values[row, part]`."""

    components: tuple[str, ...]
    values: Float[np.ndarray, "row part"]


@dataclass(frozen=True, slots=True)
class Ledgers:
    """Ledgers of a batch, in the metric's unit; positive helps the answer.

    `values` is the metric of every combination of `formats`, by its number (`circuits/shapley.py`); `shares` the
    Shapley values; `divisions` those of their parts. `anchor` is the run with nothing attached. `known` says of each
    row whether the model, with everything on, predicts every token of the answer; `best` is the token that it predicts
    where it first does not (else the answer's first).
    """

    formats: tuple[Format, ...]
    removal: Removal
    metric: str
    values: Float[np.ndarray, "coalition row"]
    shares: Float[np.ndarray, "format row"]
    divisions: tuple[Division, ...]
    anchor: Anchor
    known: Bool[np.ndarray, " row"]
    best: Int[np.ndarray, " row"]


# Gradients at what heads read, by combination and layer.
Heads = dict[int, dict[int, Tensor]]


def split_rows(tensor: Tensor, rows: int) -> Float[Tensor, "coalition row *any"]:
    """Rows of a pass as combinations times prompts."""
    return tensor.reshape(-1, rows, *tensor.shape[1:])


def average_heads(heads: Heads, number: int, bit: int, layer: int) -> Float[Tensor, "row pos head d_head"]:
    """Mean of the gradients of a combination with a format and of the same without it."""
    return (heads[number][layer] + heads[number & ~bit][layer]) / 2


def share_slots(
    chunk: Chunk, asked: Asked, heads: Heads, block: int, weights: np.ndarray, removal: Removal
) -> Float[Tensor, "row layer head slot"]:
    """What one pass adds to the shares of an explicit memory's slots."""
    explicit = asked.attachment.explicit
    assert explicit is not None
    rows, bit = asked.plain.shape[0], 1 << block
    layers = []
    for index, layer in enumerate(explicit.layers):
        group = chunk.record.slot_weights[layer].shape[2] // explicit.values.shape[3]
        value = expand_rows(explicit.values[:, index, block].float(), rows).repeat_interleave(group, dim=1)
        weight = split_rows(chunk.record.slot_weights[layer].detach(), rows)[:, :, :, :, block]
        read = split_rows(sum_reads(chunk.record, layer).detach(), rows)
        total = value.new_zeros(rows, value.shape[1], value.shape[2])
        for place, number in enumerate(map(int, chunk.numbers)):
            factor = float(weights[number & ~bit])
            if removal == "contribution":
                slope = torch.einsum("rphd,rhsd->rphs", heads[number][layer], value)
                total += factor / 2 * (weight[place] * slope).sum(dim=1)
            elif number & bit:
                mean = average_heads(heads, number, bit, layer)
                rest = (1 - weight[place].sum(dim=-1, keepdim=True)).clamp_min(SMALLEST_REST)
                without = (read[place] - torch.einsum("rphs,rhsd->rphd", weight[place], value)) / rest
                slope = torch.einsum("rphd,rhsd->rphs", mean, value) - (mean * without).sum(dim=-1, keepdim=True)
                total += factor * (weight[place] * slope).sum(dim=1)
        layers.append(total)
    return torch.stack(layers, dim=1)


def share_units(chunk: Chunk, asked: Asked, bit: int, level: int, weights: np.ndarray) -> Tensor:
    """What one pass adds to the shares of a bank level's units [row layer unit]."""
    bank = asked.attachment.bank
    assert bank is not None
    rows = asked.plain.shape[0]
    factors = torch.tensor([float(weights[int(number) & ~bit]) / 2 for number in chunk.numbers])
    layers = []
    for layer in bank.layers:
        gradient = split_rows(chunk.mlp[layer], rows)
        down = expand_rows(bank.pick("down", level, layer).to(gradient.dtype), rows)
        fired = split_rows(chunk.record.bank_units[layer][level].detach(), rows)
        slope = torch.einsum("crpm,rum->crpu", gradient, down)
        layers.append(torch.einsum("crpu,crpu,c->ru", fired, slope, factors.to(fired)))
    return torch.stack(layers, dim=1)


def share_learned(chunk: Chunk, asked: Asked, heads: Heads, bit: int, level: int, weights: np.ndarray) -> Tensor:
    """What one pass adds to the shares of a level of learned key-values [row layer]."""
    bank = asked.attachment.bank
    assert bank is not None
    rows = asked.plain.shape[0]
    layers = []
    for layer in bank.layers:
        read = split_rows(chunk.record.learned_read[layer].detach(), rows)[:, :, :, :, level]
        total = read.new_zeros(rows)
        for place, number in enumerate(map(int, chunk.numbers)):
            if number & bit:
                total += float(weights[number & ~bit]) * (average_heads(heads, number, bit, layer) * read[place]).sum(
                    dim=(1, 2, 3)
                )
        layers.append(total)
    return torch.stack(layers, dim=1)


def align(plain: Tensor, texts: Int[Tensor, "row 3"], length: int) -> Tensor:
    """Rows of the plain prompts moved to where the same tokens of the question stand behind a text; 0 elsewhere."""
    moved = plain.new_zeros(plain.shape[0], length, *plain.shape[2:])
    for row, (_, stop, start) in enumerate(texts.tolist()):
        kept = min(plain.shape[1] - start, length - stop)
        moved[row, stop : stop + kept] = plain[row, start : start + kept]
    return moved


def share_edges(chunk: Chunk, model: Model, asked: Asked, heads: Heads, weights: np.ndarray) -> Tensor:
    """What one pass adds to the shares of a text's attention edges [row layer head text_pos]: its heads' reads."""
    assert asked.with_text is not None and asked.texts is not None
    rows, length = asked.with_text.shape
    bit = 1 << (len(asked.list_formats()) - 1)
    places = torch.arange(length, device=asked.texts.device)
    inside = (places >= asked.texts[:, :1]) & (places < asked.texts[:, 1:2])
    behind = places >= asked.texts[:, 1:2]
    layers = []
    for layer in range(model.layers):
        group = model.heads // model.kv_heads
        pattern = split_rows(weigh_sources(chunk.record, layer), rows)
        value = split_rows(chunk.record.value[layer].detach().repeat_interleave(group, dim=2), rows)
        read = split_rows(sum_reads(chunk.record, layer).detach(), rows)
        total = value.new_zeros(rows, model.heads, length)
        for place, number in enumerate(map(int, chunk.numbers)):
            without = align(heads[number & ~bit][layer], asked.texts, length)
            mean = (heads[number][layer] + without) / 2
            kept = pattern[place] * inside[:, None, None].to(pattern) * behind[:, None, :, None].to(pattern)
            rest = (1 - kept.sum(dim=-1)).clamp_min(SMALLEST_REST).transpose(1, 2).unsqueeze(-1)
            without = (read[place] - torch.einsum("rhqk,rkhd->rqhd", kept, value[place])) / rest
            slope = torch.einsum("rqhd,rkhd->rhqk", mean, value[place])
            slope = slope - (mean * without).sum(dim=-1).transpose(1, 2).unsqueeze(-1)
            total += float(weights[number & ~bit]) * (kept * slope).sum(dim=2)
        layers.append(total)
    return torch.stack(layers, dim=1)


def share_parts(
    chunk: Chunk, model: Model, asked: Asked, heads: Heads, form: Format, bit: int, removal: Removal
) -> Tensor | None:
    """What one pass adds to the shares of a format's parts; None where it adds nothing or has none."""
    weights = weigh_coalitions(len(asked.list_formats()), bit.bit_length() - 1)
    bank = asked.attachment.bank
    if form.kind == "text":
        return share_edges(chunk, model, asked, heads, weights) if chunk.text else None
    if form.kind == "explicit":
        return share_slots(chunk, asked, heads, form.index, weights, removal)
    assert bank is not None
    if bank.kind == "lora":
        return None
    if bank.kind == "key-value":
        return share_learned(chunk, asked, heads, bit, form.index, weights)
    return share_units(chunk, asked, bit, form.index, weights)


def name_parts(asked: Asked, form: Format, shape: Sequence[int]) -> Iterator[str]:
    """Names of a format's parts, in the order of an array of this shape (rows left out)."""
    if form.kind == "text":
        for layer, head, position in np.ndindex(*shape):
            yield Component(Kind.HEAD, layer, head, part=position).name
        return
    memories = asked.attachment.explicit if form.kind == "explicit" else asked.attachment.bank
    assert memories is not None
    for place in np.ndindex(*shape):
        layer = memories.layers[place[0]]
        if form.kind == "explicit":
            yield Component(Kind.EXPLICIT, layer, place[1], form.index, place[2]).name
        elif len(place) == 1:
            yield Component(Kind.LEARNED, layer, block=form.index).name
        else:
            yield Component(Kind.BANK, layer, block=form.index, part=place[1]).name


def divide(asked: Asked, form: Format, found: Tensor | None) -> Division:
    """Shares at rest of one format's parts."""
    if found is None:
        return Division((), np.zeros((asked.plain.shape[0], 0)))
    return Division(tuple(name_parts(asked, form, found.shape[1:])), found.flatten(1).double().cpu().numpy())


def measure_ledgers(model: Model, asked: Asked, removal: Removal, metric: str) -> Ledgers:
    """Ledgers of all prompts of a batch.

    Raises UserError for too many formats, KL (no margin), and values that are not finite.
    """
    if metric == "kl":
        raise UserError("a ledger divides the answer's margin, and KL is none: choose logit-diff, log-prob or prob")
    model = model.base or model
    formats = asked.list_formats()
    numbers = np.arange(2 ** len(formats))
    text = asked.with_text is not None
    values, heads = list[np.ndarray](), Heads()
    parts: list[Tensor | None] = [None] * len(formats)
    logits: Tensor | None = None
    anchor: Anchor | None = None
    for behind, some in (
        ((False, numbers[: len(numbers) // 2]), (True, numbers[len(numbers) // 2 :])) if text else ((False, numbers),)
    ):
        for chunk in run_side(model, asked, behind, some, removal, metric):
            logits, anchor = chunk.logits, anchor or chunk.anchor
            values.append(chunk.values)
            for place, number in enumerate(map(int, chunk.numbers)):
                heads[number] = {k: split_rows(v, asked.plain.shape[0])[place] for k, v in chunk.heads.items()}
            with torch.no_grad():
                for index, form in enumerate(formats):
                    found = share_parts(chunk, model, asked, heads, form, 1 << index, removal)
                    held = parts[index]
                    parts[index] = found if held is None else held if found is None else held + found
    assert logits is not None
    table, anchor = np.concatenate(values), anchor or run_anchor(model, asked.plain, asked.readout, metric)
    if not (np.isfinite(table).all() and np.isfinite(anchor.value).all()):
        raise UserError("the model's activations are not finite on these prompts: try --dtype float32")
    last = asked.text_readout if text else asked.readout
    assert last is not None
    known, best = judge(logits[-asked.plain.shape[0] :], last)
    divisions = tuple(divide(asked, form, found) for form, found in zip(formats, parts, strict=True))
    return Ledgers(formats, removal, metric, table, share_value(table), divisions, anchor, known, best)
