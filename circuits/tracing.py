"""From a forward pass to tensors in the order of the graph: every writer's output, every reader's gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Plan
from probes.attachments import Attachment
from probes.forward import Record, list_mlp_outputs, write_heads, write_mlp
from probes.models import Model


def plan_model(model: Model, attachment: Attachment) -> Plan:
    """Plan of a model with memories attached."""
    explicit, bank = attachment.explicit, attachment.bank
    units, learned = (bank if bank is not None and bank.kind == kind else None for kind in ("ffn", "key-value"))
    return Plan(
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.kv_heads,
        parallel=model.parallel,
        explicit_layers=explicit.layers if explicit else (),
        blocks=len(explicit) if explicit else 0,
        bank_layers=units.layers if units else (),
        levels=len(units) if units else 0,
        expert_layers=tuple(i for i, weights in enumerate(model.weights) if weights.experts is not None),
        experts=max(len(weights.experts) if weights.experts is not None else 0 for weights in model.weights),
        learned_layers=learned.layers if learned else (),
        learned=len(learned) if learned else 0,
    )


def list_attention_writes(model: Model, record: Record, layer: int) -> Float[Tensor, "writer batch pos d_model"]:
    """What a layer's heads, its memory reads (head by head, block by block) and its blocks of learned key-values wrote,
    in the graph's order.
    """
    memory, learned = record.memory_read.get(layer), record.learned_read.get(layer)
    heads, blocks, own = write_heads(model.weights[layer], record.context_read[layer], memory, learned)
    writes = [heads.permute(2, 0, 1, 3)]
    if blocks is not None:
        writes.append(blocks.permute(2, 3, 0, 1, 4).flatten(0, 1))
    if own is not None:
        writes.append(own.permute(2, 0, 1, 3))
    return writes[0] if len(writes) == 1 else torch.cat(writes)


def list_mlp_writes(model: Model, record: Record, layer: int) -> Float[Tensor, "writer batch pos d_model"]:
    """What a layer's MLP (or its experts) and then its bank blocks wrote."""
    return torch.stack(write_mlp(model.weights[layer], record, layer))


def list_writes(model: Model, record: Record) -> Iterator[Float[Tensor, "_ batch pos d_model"]]:
    """What every writer wrote, a few at a time, in the order of `circuits.graph.list_writers`."""
    assert record.embedding is not None
    yield record.embedding.unsqueeze(0)
    for layer in range(model.layers):
        yield list_attention_writes(model, record, layer)
        yield list_mlp_writes(model, record, layer)


def make_room(model: Model, record: Record) -> Float[Tensor, "writer batch pos d_model"]:
    """Uninitialised memory for what every writer writes; behind a norm after attention or MLP that is float32."""
    assert record.embedding is not None
    layers = range(model.layers)
    counts = [sum(r.shape[2] for r in list_reads(record, i)) + len(list_mlp_outputs(record, i)) for i in layers]
    counts += [read.shape[3] for read in record.learned_read.values()]
    dtype = torch.float32 if has_norms_after(model) else record.embedding.dtype
    return record.embedding.new_empty(1 + sum(counts), *record.embedding.shape, dtype=dtype)


def has_norms_after(model: Model) -> bool:
    """Whether the model norms what attention or MLP write (Gemma 2 and 3)."""
    return any(weights.post_attention_norm or weights.post_mlp_norm for weights in model.weights)


def stack_writes(model: Model, record: Record) -> Float[Tensor, "writer batch pos d_model"]:
    """What every writer wrote, in the order of `circuits.graph.list_writers`."""
    stacked, position = make_room(model, record), 0
    for writes in list_writes(model, record):
        stacked[position : position + len(writes)] = writes
        position += len(writes)
    return stacked


def stack_differences(model: Model, first: Record, second: Record) -> Float[Tensor, "writer batch pos d_model"]:
    """What every writer wrote in the first run less the second, in the graph's order, filled in place.

    Head outputs are linear in what the heads read, so their difference is projected once; behind a norm after
    attention or MLP it is not, and the two runs' writes are subtracted.
    """
    position = 0
    if has_norms_after(model):
        stacked = stack_writes(model, first)
        for writes in list_writes(model, second):
            stacked[position : position + len(writes)] -= writes
            position += len(writes)
        return stacked
    assert first.embedding is not None and second.embedding is not None
    stacked = make_room(model, first)
    torch.sub(first.embedding, second.embedding, out=stacked[0])
    position = 1
    for layer, weights in enumerate(model.weights):
        for one, two in zip(list_reads(first, layer), list_reads(second, layer), strict=True):
            read = (one - two).flatten(0, 1).transpose(0, 1)
            output = weights.output.repeat_interleave(read.shape[0] // model.heads, dim=0)
            end = position + read.shape[0]
            torch.bmm(read, output, out=stacked[position:end].flatten(1, 2))
            position = end
        if layer in first.learned_read:
            learned = first.learned_read[layer] - second.learned_read[layer]
            end = position + learned.shape[3]
            stacked[position:end] = torch.einsum("bphnd,hdm->nbpm", learned, weights.output)
            position = end
        for one, two in zip(list_mlp_outputs(first, layer), list_mlp_outputs(second, layer), strict=True):
            torch.sub(one, two, out=stacked[position])
            position += 1
    return stacked


def list_reads(record: Record, layer: int) -> list[Float[Tensor, "batch pos _ d_head"]]:
    """What a layer's heads read, from the context and (head by head, block by block) from memories."""
    reads = [record.context_read[layer]]
    if layer in record.memory_read:
        reads.append(record.memory_read[layer].flatten(2, 3))
    return reads


def list_constants(model: Model) -> list[Tensor | float]:
    """What attention output biases have added before each layer's MLP: part of every stream, nobody's write.

    One entry a layer, then one for the logits; 0.0 where the model has none.
    """
    constants: list[Tensor | float] = []
    total: Tensor | float = 0.0
    for weights in model.weights:
        constants.append(total)
        if weights.output_bias is not None:
            total = total + weights.output_bias
    return [*constants, total]


def list_reader_tensors(model: Model, record: Record) -> list[Tensor]:
    """Tensors whose gradients a backward pass must give, in the order in which `pull_gradients` takes them."""
    tensors: list[Tensor] = []
    for layer in range(model.layers):
        tensors += [record.query[layer], record.key[layer], record.value[layer]]
        if layer in record.memory_query:
            tensors.append(record.memory_query[layer])
        if layer in record.learned_query:
            tensors.append(record.learned_query[layer])
        tensors += [record.mlp_input[layer], *record.bank_input[layer]]
    assert record.final_stream is not None
    return [*tensors, record.final_stream]


def list_projections(
    model: Model, record: Record, layer: int
) -> list[tuple[Float[Tensor, "batch pos reader d_head"], Float[Tensor, "reader d_model d_head"]]]:
    """What a layer's attention readers took in, less biases, and the weights of each: queries, memory queries,
    queries of learned key-values, keys, values.
    """
    weights = model.weights[layer]

    def read(output: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        return (output if bias is None else output - bias), weight

    query = read(record.query[layer], weights.query, weights.query_bias)
    memories = []
    for found in (record.memory_query, record.learned_query):
        if layer in found:
            count = found[layer].shape[3]
            bias = None if weights.query_bias is None else weights.query_bias.repeat_interleave(count, dim=0)
            queries = found[layer].flatten(2, 3)
            memories.append(read(queries, weights.query.repeat_interleave(count, dim=0), bias))
    key = read(record.key[layer], weights.key, weights.key_bias)
    return [query, *memories, key, read(record.value[layer], weights.value, weights.value_bias)]


@torch.no_grad()
def pull_attention(
    model: Model, record: Record, layer: int, gradients: Iterator[Tensor], room: Tensor
) -> Float[Tensor, "reader batch pos d_model"]:
    """Gradients at the stream for a layer's attention readers: queries, memory queries, learned key-values, keys and
    values.

    The gradient at a head's query includes the paths through its memory reads, which are taken off, so that each
    reader has only its own. A block of learned key-values reads by the queries of all heads.
    """
    query, key, value = (next(gradients) for _ in range(3))
    reads = [next(gradients) for found in (record.memory_query, record.learned_query) if layer in found]
    heads = [query - sum(read.sum(dim=3) for read in reads) if reads else query]
    heads += [read.flatten(2, 3) for read in reads]
    outputs, projections = zip(*list_projections(model, record, layer), strict=True)
    joined, output = torch.cat([*heads, key, value], dim=2), torch.cat(outputs, dim=2)
    norm, stream = model.weights[layer].attention_norm, record.attention_stream[layer]
    pulled = norm.pull_back_heads(joined, torch.cat(projections), stream, output, room)
    if layer not in record.learned_query:
        return pulled
    stop, levels = sum(part.shape[2] for part in heads), reads[-1].shape[3]
    start = stop - heads[-1].shape[2]
    learned = pulled[start:stop].view(-1, levels, *pulled.shape[1:]).sum(dim=0)
    return torch.cat([pulled[:start], learned, pulled[stop:]])


@torch.no_grad()
def pull_mlp(
    model: Model, record: Record, layer: int, gradients: Iterator[Tensor]
) -> Float[Tensor, "reader batch pos d_model"]:
    """Gradients at the stream for a layer's MLP and bank blocks; the MLP's own is without the path through the bank."""
    own = next(gradients)
    bank = [next(gradients) for _ in record.bank_input[layer]]
    if bank:
        own = own - torch.stack(bank).sum(dim=0)
    return model.weights[layer].mlp_norm.pull_back(torch.stack([own, *bank]), record.mlp_stream[layer])


def pull_gradients(
    model: Model, record: Record, gradients: Sequence[Tensor]
) -> Iterator[Float[Tensor, "_ batch pos d_model"]]:
    """Gradients at the residual stream of every reader, one stage at a time: per layer attention, MLP; last the logits.

    A stage is as large as a layer's readers times the stream; only one is held at a time, in float32: attention's
    fills the same memory in every layer, so a stage is good until the next one is asked for.
    """
    assert record.final_stream is not None
    found = (record.memory_query, record.learned_query)
    blocks = sum(max((query.shape[3] for query in queries.values()), default=0) for queries in found)
    readers = model.heads * (1 + blocks) + 2 * model.kv_heads
    room = record.final_stream.new_empty(readers, *record.final_stream.shape, dtype=torch.float32)
    pending = iter(gradients)
    for layer in range(model.layers):
        yield pull_attention(model, record, layer, pending, room)
        yield pull_mlp(model, record, layer, pending)
    yield next(pending).unsqueeze(0).float()
