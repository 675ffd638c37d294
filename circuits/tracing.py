"""From a forward pass to tensors in the order of the graph: every writer's output, every reader's gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import Plan
from probes.attachments import Attachment
from probes.forward import Record, write_heads, write_mlp
from probes.models import Model


def plan_model(model: Model, attachment: Attachment) -> Plan:
    """Plan of a model with memories attached."""
    explicit, bank = attachment.explicit, attachment.bank
    return Plan(
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.kv_heads,
        parallel=model.parallel,
        explicit_layers=explicit.layers if explicit else (),
        blocks=len(explicit) if explicit else 0,
        bank_layers=bank.layers if bank else (),
        levels=len(bank) if bank else 0,
    )


def list_attention_writes(model: Model, record: Record, layer: int) -> Float[Tensor, "writer batch pos d_model"]:
    """What a layer's heads and then its memory reads (head by head, block by block) wrote, in the graph's order."""
    memory = record.memory_read.get(layer)
    heads, blocks = write_heads(model.weights[layer], record.context_read[layer], memory)
    writes = heads.permute(2, 0, 1, 3)
    if blocks is None:
        return writes
    return torch.cat([writes, blocks.permute(2, 3, 0, 1, 4).flatten(0, 1)])


def list_mlp_writes(model: Model, record: Record, layer: int) -> Float[Tensor, "writer batch pos d_model"]:
    """What a layer's MLP and then its bank blocks wrote."""
    return torch.stack(write_mlp(model.weights[layer], record.mlp_output[layer], record.bank_output[layer]))


def stack_writes(model: Model, record: Record) -> Float[Tensor, "writer batch pos d_model"]:
    """What every writer wrote, in the order of `circuits.graph.list_writers`."""
    assert record.embedding is not None
    parts = [record.embedding.unsqueeze(0)]
    for layer in range(model.layers):
        parts += [list_attention_writes(model, record, layer), list_mlp_writes(model, record, layer)]
    return torch.cat(parts)


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
        tensors += [record.query[layer], record.key[layer], record.value[layer], record.mlp_input[layer]]
        if layer in record.memory_query:
            tensors.append(record.memory_query[layer])
        tensors += record.bank_input[layer]
    assert record.final_stream is not None
    return [*tensors, record.final_stream]


def pull_layer(
    model: Model, record: Record, layer: int, gradients: Iterator[Tensor]
) -> tuple[Float[Tensor, "reader batch pos d_model"], Float[Tensor, "mlp_reader batch pos d_model"]]:
    """Gradients at the stream for a layer's attention readers (queries, memory queries, keys, values) and MLP readers.

    The gradient at a head's query includes the path through its memory reads, and the one at the MLP's input the
    path through the bank blocks; both are taken off, so that each reader has only its own.
    """
    weights = model.weights[layer]
    query, key, value, mlp = (next(gradients) for _ in range(4))
    readers = []
    stream, norm = record.attention_stream[layer], weights.attention_norm
    if layer in record.memory_query:
        memory = next(gradients)
        query = query - memory.sum(dim=3)
        per_block = [norm.pull_back_heads(part, weights.query, stream) for part in memory.unbind(3)]
        readers.append(torch.stack(per_block, dim=1).flatten(0, 1))
    readers.insert(0, norm.pull_back_heads(query, weights.query, stream))
    readers.append(norm.pull_back_heads(key, weights.key, stream))
    readers.append(norm.pull_back_heads(value, weights.value, stream))
    bank = [next(gradients) for _ in record.bank_input[layer]]
    own = mlp - torch.stack(bank).sum(dim=0) if bank else mlp
    after = weights.mlp_norm.pull_back(torch.stack([own, *bank]), record.mlp_stream[layer])
    return torch.cat(readers), after


def pull_gradients(
    model: Model, record: Record, gradients: Sequence[Tensor]
) -> list[Float[Tensor, "_ batch pos d_model"]]:
    """Gradients at the residual stream of every reader, in stages: per layer attention, MLP; last the logits."""
    pending = iter(gradients)
    stages: list[Tensor] = []
    for layer in range(model.layers):
        stages.extend(pull_layer(model, record, layer, pending))
    return [*stages, next(pending).unsqueeze(0)]
