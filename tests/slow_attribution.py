"""Edge attribution patching the slow way: Hugging Face modules, loops over heads, inputs split one reader at a time.

Written from the papers alone (EAP: Syed et al. 2023, section 3; EAP-IG: Hanna et al. 2024, equation 4; one softmax over
[memory; context]: Yang et al. 2024, equation 4; memory units: Pouransari et al. 2025, appendix I). It shares no code
with `circuits/` and `probes/`: every reader gets a copy of the stream of its own, to which a tensor of zeros is added;
autograd gives the gradient at that tensor, and an edge's score is (clean - ablated write) . gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[[Tensor], Tensor]


@dataclass
class Memories:
    """What is attached: keys and values [layer][block][kv_head, slot, d_head], units (gate, up, down) [layer][level].

    `absent` [layer][block] is true [kv_head, slot] where there is no slot.
    """

    keys: dict[int, list[Tensor]] = field(default_factory=dict)
    values: dict[int, list[Tensor]] = field(default_factory=dict)
    absent: dict[int, list[Tensor]] = field(default_factory=dict)
    units: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=dict)


@dataclass
class Layer:
    """One layer in equations; every function takes [pos, d_model] unless it says otherwise."""

    attention_norm: Function
    mlp_norm: Function
    query: list[Function]
    key: list[Function]
    value: list[Function]
    output: list[Function]
    output_bias: Tensor | None
    mlp: Function
    post_attention: Any = None
    post_mlp: Any = None


@dataclass
class Network:
    """A whole model in equations; `turn` applies rotary positions to [pos, d_head], `unembed` gives logits."""

    layers: list[Layer]
    embed: Function
    turn: Function
    scale: float
    cap: float | None
    final_norm: Function
    unembed: Function
    parallel: bool = False


@dataclass
class Trace:
    """One run: what every writer wrote, every reader's zeros, and which writers had written when it read."""

    writes: dict[str, Tensor] = field(default_factory=dict)
    zeros: dict[str, Tensor] = field(default_factory=dict)
    seen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constant: Tensor | float = 0.0

    def write(self, name: str, value: Tensor) -> None:
        self.writes[name] = value

    def read(self, name: str) -> Tensor:
        """A reader's own copy of the stream: the sum of all that was written, plus its zeros."""
        stream = sum(self.writes.values()) + self.constant
        zeros = torch.zeros_like(self.writes["embed"], requires_grad=True)
        self.zeros[name], self.seen[name] = zeros, tuple(self.writes)
        return stream + zeros


def slice_linear(weight: Tensor, bias: Tensor | None) -> Function:
    """`x @ weight.T + bias` for one head's rows of a projection."""
    return lambda x: F.linear(x, weight, bias)


def cut(weight: Tensor, bias: Tensor | None, count: int) -> list[Function]:
    """A projection [count * d_head, d_model] as one function a head."""
    rows = weight.view(count, -1, weight.shape[-1])
    biases = [None] * count if bias is None else list(bias.view(count, -1))
    return [slice_linear(rows[i], biases[i]) for i in range(count)]


def cut_output(weight: Tensor, count: int) -> list[Function]:
    """An output projection [d_model, count * d_head] as one function of [pos, d_head] a head, without its bias."""
    columns = weight.view(weight.shape[0], count, -1)
    return [slice_linear(columns[:, i], None) for i in range(count)]


def build_rotary(base: float, d_rotary: int, positions: int) -> Function:
    """Rotary embedding (Su et al. 2021) of the first `d_rotary` numbers, number i paired with number i + d_rotary/2."""
    half = d_rotary // 2
    frequencies = torch.tensor([base ** (-2 * i / d_rotary) for i in range(half)])
    angles = torch.arange(positions)[:, None] * frequencies

    def turn(x: Tensor) -> Tensor:
        first, second, rest = x[:, :half], x[:, half:d_rotary], x[:, d_rotary:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=1)

    return turn


def read_gpt2(model: Any, positions: int) -> Network:
    """GPT-2: learned positions, one fused projection stored transposed."""
    heads, body = model.config.n_head, model.transformer
    layers = []
    for block in body.h:
        query, key, value = block.attn.c_attn.weight.T.chunk(3)
        biases = block.attn.c_attn.bias.chunk(3)
        layers.append(
            Layer(
                block.ln_1,
                block.ln_2,
                *(cut(w, b, heads) for w, b in zip((query, key, value), biases, strict=True)),
                cut_output(block.attn.c_proj.weight.T, heads),
                block.attn.c_proj.bias,
                block.mlp,
            )
        )
    places = body.wpe(torch.arange(positions))
    width = model.config.n_embd // heads
    return Network(layers, lambda t: body.wte(t) + places, lambda x: x, width**-0.5, None, body.ln_f, model.lm_head)


def read_pythia(model: Any, positions: int) -> Network:
    """GPT-NeoX: attention and MLP in parallel, query, key and value of a head side by side, partial rotary."""
    config, body = model.config, model.gpt_neox
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    layers = []
    for block in body.layers:
        fused = block.attention.query_key_value
        weight, bias = fused.weight.view(heads, 3, width, -1), fused.bias.view(heads, 3, width)
        parts = [[slice_linear(weight[h, part], bias[h, part]) for h in range(heads)] for part in range(3)]
        output = block.attention.dense
        layers.append(
            Layer(
                block.input_layernorm,
                block.post_attention_layernorm,
                *parts,
                cut_output(output.weight, heads),
                output.bias,
                block.mlp,
            )
        )
    rope = config.rope_parameters
    turn = build_rotary(rope["rope_theta"], int(width * rope["partial_rotary_factor"]), positions)
    return Network(
        layers, body.embed_in, turn, width**-0.5, None, body.final_layer_norm, model.get_output_embeddings(), True
    )


def read_llama(model: Any, positions: int) -> Network:
    """Llama with grouped queries; Gemma 2 likewise, with norms after attention and MLP and soft caps."""
    config, body = model.config, model.model
    gemma = config.model_type == "gemma2"
    layers = []
    for block in body.layers:
        attention = block.self_attn
        layers.append(
            Layer(
                block.input_layernorm,
                block.pre_feedforward_layernorm if gemma else block.post_attention_layernorm,
                cut(attention.q_proj.weight, attention.q_proj.bias, config.num_attention_heads),
                cut(attention.k_proj.weight, attention.k_proj.bias, config.num_key_value_heads),
                cut(attention.v_proj.weight, attention.v_proj.bias, config.num_key_value_heads),
                cut_output(attention.o_proj.weight, config.num_attention_heads),
                attention.o_proj.bias,
                block.mlp,
                block.post_attention_layernorm if gemma else None,
                block.post_feedforward_layernorm if gemma else None,
            )
        )
    size = math.sqrt(config.hidden_size) if gemma else 1.0
    final_cap = config.final_logit_softcapping if gemma else None

    def unembed(x: Tensor) -> Tensor:
        logits = model.lm_head(x)
        return final_cap * torch.tanh(logits / final_cap) if final_cap else logits

    return Network(
        layers,
        lambda t: F.embedding(t, body.embed_tokens.weight) * size,
        build_rotary(config.rope_parameters["rope_theta"], config.head_dim, positions),
        (config.query_pre_attn_scalar if gemma else config.head_dim) ** -0.5,
        config.attn_logit_softcapping if gemma else None,
        body.norm,
        unembed,
    )


READERS: dict[str, Callable[[Any, int], Network]] = {
    "gpt2": read_gpt2,
    "gpt_neox": read_pythia,
    "llama": read_llama,
    "gemma2": read_llama,
}


def share_out(norm: Any, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """What each part adds behind a norm over their sum: x -> weight * x / scale, at the scale of the whole sum."""
    if norm is None:
        return parts
    total = sum(parts.values())
    scale = torch.sqrt(total.square().mean(dim=-1, keepdim=True) + norm.eps)
    return {name: part / scale * (1 + norm.weight) for name, part in parts.items()}


def attend(network: Network, memories: Memories, number: int, trace: Trace) -> dict[str, Tensor]:
    """What each head takes from the context and from each memory block, in the stream's coordinates."""
    layer, written = network.layers[number], {}
    keys_here, values_here = memories.keys.get(number, []), memories.values.get(number, [])
    group = len(layer.query) // len(layer.key)

    def score(query: Tensor, key: Tensor) -> Tensor:
        products = query @ key.T * network.scale
        return network.cap * torch.tanh(products / network.cap) if network.cap else products

    def read_query(name: str, head: int) -> Tensor:
        return network.turn(layer.query[head](layer.attention_norm(trace.read(name))))

    keys = [
        network.turn(project(layer.attention_norm(trace.read(f"a{number}.kv{i}.k"))))
        for i, project in enumerate(layer.key)
    ]
    values = [project(layer.attention_norm(trace.read(f"a{number}.kv{i}.v"))) for i, project in enumerate(layer.value)]
    for head in range(len(layer.query)):
        own = head // group
        scores = score(read_query(f"a{number}.h{head}.q", head), keys[own])
        length = scores.shape[0]
        scores = scores.masked_fill(~torch.ones(length, length).tril().bool(), -math.inf)
        blocks = []
        for block, key in enumerate(keys_here):
            found = score(read_query(f"x{number}.h{head}.b{block}.q", head), key[own])
            blocks.append(found.masked_fill(memories.absent[number][block][own], -math.inf))
        weights = torch.cat([*blocks, scores], dim=1).softmax(dim=1)
        start = 0
        for block, value in enumerate(values_here):
            stop = start + value.shape[1]
            written[f"x{number}.h{head}.b{block}"] = layer.output[head](weights[:, start:stop] @ value[own])
            start = stop
        written[f"a{number}.h{head}"] = layer.output[head](weights[:, start:] @ values[own])
    return share_out(layer.post_attention, written)


def feed_forward(network: Network, memories: Memories, number: int, trace: Trace) -> dict[str, Tensor]:
    """What the MLP and each bank block add."""
    layer = network.layers[number]
    written = {f"m{number}": layer.mlp(layer.mlp_norm(trace.read(f"m{number}"))[None])[0]}
    for level, (gate, up, down) in enumerate(memories.units.get(number, [])):
        x = layer.mlp_norm(trace.read(f"f{number}.l{level}"))
        written[f"f{number}.l{level}"] = (F.silu(x @ gate.T) * (x @ up.T)) @ down
    return share_out(layer.post_mlp, written)


def run(network: Network, memories: Memories, embedding: Tensor) -> tuple[Trace, Tensor]:
    """One forward pass from an embedding [pos, d_model] to logits [pos, d_vocab]."""
    trace = Trace()
    trace.write("embed", embedding)
    for number, layer in enumerate(network.layers):
        written = attend(network, memories, number, trace)
        if network.parallel:
            written |= feed_forward(network, memories, number, trace)
        for name, value in written.items():
            trace.write(name, value)
        if layer.output_bias is not None:
            trace.constant = trace.constant + layer.output_bias
        if not network.parallel:
            for name, value in feed_forward(network, memories, number, trace).items():
                trace.write(name, value)
    return trace, network.unembed(network.final_norm(trace.read("logits")))


def blend(first: Memories, second: Memories, share: float) -> Memories:
    """Memories on the straight line from the first (share 0) to the second (share 1)."""

    def mix(a: Tensor, b: Tensor) -> Tensor:
        return a + share * (b - a)

    return Memories(
        {n: [mix(a, b) for a, b in zip(first.keys[n], second.keys[n], strict=True)] for n in second.keys},
        {n: [mix(a, b) for a, b in zip(first.values[n], second.values[n], strict=True)] for n in second.values},
        second.absent,
        {
            n: [tuple(mix(a, b) for a, b in zip(x, y, strict=True)) for x, y in zip(first.units[n], level, strict=True)]  # type: ignore[misc]
            for n, level in second.units.items()
        },
    )


def attribute_slowly(
    network: Network,
    tokens: tuple[Tensor, Tensor],
    memories: tuple[Memories, Memories],
    metric: Callable[[Tensor], Tensor],
    steps: int | None,
) -> dict[tuple[int, str, str], float]:
    """Score of every edge (position, writer, reader) from clean (first) and ablated (second) tokens and memories.

    `steps` None is EAP, the gradient at the clean run; a number is EAP-IG, its mean over the midpoints of as many
    pieces of the path of inputs.
    """
    with torch.no_grad():
        clean, ablated = (run(network, m, network.embed(t))[0].writes for t, m in zip(tokens, memories, strict=True))
    shares = [1.0] if steps is None else [(step + 0.5) / steps for step in range(steps)]
    totals: dict[str, Tensor] = {}
    for share in shares:
        embedding = ablated["embed"] + share * (clean["embed"] - ablated["embed"])
        trace, logits = run(network, blend(memories[1], memories[0], share), embedding)
        gradients = torch.autograd.grad(metric(logits), list(trace.zeros.values()))
        for name, gradient in zip(trace.zeros, gradients, strict=True):
            totals[name] = totals.get(name, torch.zeros_like(gradient)) + gradient / len(shares)
    scores = {}
    for reader, gradient in totals.items():
        for writer in trace.seen[reader]:
            for position in range(len(gradient)):
                difference = clean[writer][position] - ablated[writer][position]
                scores[position, writer, reader] = float(difference @ gradient[position])
    return scores
