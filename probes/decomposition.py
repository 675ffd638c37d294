"""The check at load: is the residual stream the sum that attribution will list, and are the scores plain attention?

A short random text runs through the model once. Embedding, heads, output biases and MLPs must add up to the stream
before the last norm; every norm and projection, computed from the weights that were read, must give what the model
gave. Otherwise the model is refused with the part that differs: no score of it could be trusted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from probes.errors import UserError
from probes.forward import Pass, Record, project, write_heads, write_mlp
from probes.models import AttentionForm, LayerWeights, Model, name_hook
from probes.norms import Norm
from probes.parts import PartsPass
from probes.slots import rotate

# Relative error allowed between the model's own numbers and ours, by dtype.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}


def pick_tokens(model: Model, length: int = 12) -> Tensor:
    """A fixed random text of the model's vocabulary, [1, length]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, model.d_vocab, (1, min(length, model.context)), generator=generator)


def compare(what: str, model: Model, got: Tensor, wanted: Tensor) -> None:
    """Raise UserError when two tensors differ by more than the dtype's tolerance of their size.

    Another one when the model's own is not finite, which says nothing of its architecture.
    """
    if not bool(torch.isfinite(wanted).all()):
        raise UserError(
            f"{model.name}: {what} is not finite on a text of random tokens: the weights hold NaN or infinity, or are "
            f"too large for {str(wanted.dtype).removeprefix('torch.')}; try --dtype float32, or another copy of the "
            "checkpoint"
        )
    error = (got.float() - wanted.float()).abs().max().item()
    size = wanted.float().abs().max().item() + 1e-6
    if not error <= TOLERANCES[wanted.dtype] * size:
        raise UserError(
            f"{model.name} ({model.architecture}) is not supported: {what} differs from the model by "
            f"{error / size:.1e} of its size, so its residual stream is not the sum that attribution would list"
        )


def check_decomposition(model: Model) -> None:
    """Run the check. Raises UserError naming the first part that does not add up."""
    whole = Pass(model)
    whole.run(pick_tokens(model))
    record = whole.record
    assert record.embedding is not None and record.final_stream is not None
    stream = record.embedding
    for layer, weights in enumerate(model.weights):
        where = f"in layer {layer}"
        normed = weights.attention_norm.apply(record.attention_stream[layer])
        parts = (
            ("query", weights.query, weights.query_bias, record.query),
            ("key", weights.key, weights.key_bias, record.key),
            ("value", weights.value, weights.value_bias, record.value),
        )
        for name, weight, bias, recorded in parts:
            compare(f"the {name} {where}", model, project(normed, weight, bias), recorded[layer])
        mlp_input = weights.mlp_norm.apply(record.mlp_stream[layer])
        compare(f"the MLP's input {where}", model, mlp_input, record.mlp_input[layer])
        heads, _, _ = write_heads(weights, record.context_read[layer], None)
        stream = stream + heads.sum(dim=2) + sum(write_mlp(weights, record, layer))
        if weights.output_bias is not None:
            stream = stream + weights.output_bias
    compare("the sum of embedding, heads, MLPs and biases", model, stream, record.final_stream)


def find_parts(model: Model) -> tuple[LayerWeights, ...]:
    """Layers' weights, without the units (or experts) of an MLP that is not their sum: it stays one writer."""
    whole = PartsPass(model)
    with torch.no_grad():
        whole.run(pick_tokens(model))
    kept = []
    for layer, weights in enumerate(model.weights):
        if not sums_units(weights, whole.record, layer):
            weights = replace(weights, down=None, down_bias=None)
        experts = whole.record.expert_output.get(layer)
        if experts is not None and not agrees(torch.stack(experts).sum(dim=0), whole.record.mlp_output[layer]):
            weights = replace(weights, experts=None)
        kept.append(weights)
    return tuple(kept)


def agrees(got: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors differ by no more than the dtype's tolerance of their size."""
    error = (got.float() - wanted.float()).abs().max().item()
    return error <= TOLERANCES[wanted.dtype] * (wanted.float().abs().max().item() + 1e-6)


def sums_units(weights: LayerWeights, record: Record, layer: int) -> bool:
    """Whether activations times `down`, and the bias, give what the layer's MLP wrote."""
    if weights.down is None or layer not in record.units or weights.down.shape[0] != record.units[layer].shape[2]:
        return False
    total = record.units[layer] @ weights.down
    return agrees(total if weights.down_bias is None else total + weights.down_bias, record.mlp_output[layer])


def measure_attention(model: Model) -> AttentionForm | None:
    """Form of the attention scores, or None where they are no plain products in every layer, rotary or without turning.

    The scale is fitted on one pass and every score compared with the model's own.
    """
    rotary = all(hasattr(block.attn, "hook_cos") for block in model.bridge.blocks)
    seen: dict[tuple[int, str], Tensor] = {}

    def keep(tensor: Tensor, hook: object, layer: int, point: str) -> None:
        seen[layer, point] = tensor

    points = ("hook_q", "hook_k", "hook_attn_scores", *(("hook_cos", "hook_sin") if rotary else ()))
    hooks = [
        (name_hook(layer, f"attn.{point}"), partial(keep, layer=layer, point=point))
        for layer in range(model.layers)
        for point in (*points, "hook_rot_q")
        if hasattr(model.bridge.blocks[layer].attn, point)
    ]
    with torch.no_grad():
        model.run(pick_tokens(model), hooks)
    cap = getattr(getattr(model.bridge.original_model, "config", None), "attn_logit_softcapping", None)
    scales, frequencies = [], []
    for layer in range(model.layers):
        if any((layer, point) not in seen for point in points):
            return None
        scale = fit_scale(model, layer, {point: seen[layer, point] for point in points}, cap)
        if scale is None:
            return None
        scales.append(scale)
        frequencies.append(
            read_frequencies(seen[layer, "hook_cos"], seen[layer, "hook_sin"]) if rotary else torch.zeros(0)
        )
    if max(scales) - min(scales) > 1e-3 * max(scales):
        return None
    shown = rotary and all(shows_turned(model, layer, seen) for layer in range(model.layers))
    return AttentionForm(scales[0], float(cap) if cap else None, tuple(frequencies), shown)


def shows_turned(model: Model, layer: int, seen: dict[tuple[int, str], Tensor]) -> bool:
    """Whether `hook_rot_q` was seen in a layer and holds the queries after their norm and rotary."""
    shown = seen.get((layer, "hook_rot_q"))
    query = apply_norm(model.weights[layer].query_norm, seen[layer, "hook_q"])
    turned = rotate(query, seen[layer, "hook_cos"], seen[layer, "hook_sin"])
    return shown is not None and shown.shape == turned.shape and agrees(turned, shown)


def read_frequencies(
    cos: Float[Tensor, "_ pos d_rotary"], sin: Float[Tensor, "_ pos d_rotary"]
) -> Float[Tensor, " half"]:
    """Radians a position of each rotated pair, from the angles at position 1."""
    half = cos.shape[-1] // 2
    return torch.atan2(sin[0, 1, :half].float(), cos[0, 1, :half].float())


def apply_norm(norm: Norm | None, x: Tensor) -> Tensor:
    """The norm where there is one."""
    return x if norm is None else norm.apply(x)


def fit_scale(model: Model, layer: int, seen: dict[str, Tensor], cap: float | None) -> float | None:
    """Factor between (turned) query-key products and the model's scores, or None where no factor fits them."""
    weights = model.weights[layer]
    query, key = apply_norm(weights.query_norm, seen["hook_q"]), apply_norm(weights.key_norm, seen["hook_k"])
    if "hook_cos" in seen:
        if seen["hook_cos"].shape[-1] % 2:
            return None
        query, key = (rotate(states, seen["hook_cos"], seen["hook_sin"]) for states in (query, key))
    key = key.repeat_interleave(model.heads // model.kv_heads, dim=2)
    products = torch.einsum("bihd,bjhd->bhij", query, key).float()
    scores = seen["hook_attn_scores"].float()
    # Sliding windows hide some of what a causal mask shows; hidden scores are as low as the dtype goes.
    shown = torch.ones_like(scores[0, 0]).tril().bool() & (scores > torch.finfo(seen["hook_q"].dtype).min / 2)
    products, scores = products[shown], scores[shown]
    if cap:
        scores = cap * torch.atanh((scores / cap).clamp(-0.999999, 0.999999))
    scale = float((products * scores).sum() / products.square().sum())
    error = (products * scale - scores).abs().max().item()
    tolerance = TOLERANCES[seen["hook_q"].dtype] * (scores.abs().max().item() + 1e-6)
    return scale if error <= 10 * tolerance else None
