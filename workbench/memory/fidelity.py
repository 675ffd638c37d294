"""What each step of compressing an explicit memory changes in what the model says next.

Steps: the reference as text in the prompt; no memory at all; all its key-values at the memory layers (dense); those of
the few most attended tokens (sparse); rounded to the bank's precision; by vector quantisation, when the bank is
compressed. Each is compared with text and with the step before it, over the next-token distribution behind a prompt.
Only the last steps are stored anywhere: the others are written again from the text, the way the bank was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuits.intervals import estimate_mean
from circuits.problem import pad_tokens
from probes.attachments import NOTHING, Attachment, ExplicitBlocks
from probes.errors import UserError
from probes.explicit import ExplicitMemories, encode_reference, fetch_memories
from probes.facts import Fact, read_rows
from probes.forward import Pass
from probes.memory_bank import PRECISIONS, MemoryBank
from probes.models import Model
from probes.progress import Tick
from probes.prompts import encode_answer, list_counterfactuals
from probes.writing import Recipe, write_batch
from workbench.memory.inspection import read_entry

COLUMNS = ("prompt", "answer", "memory")


@dataclass(frozen=True, slots=True)
class Query:
    """A prompt, its answer, the memory that holds it with the text it is of, and the answer to compare with.

    Without a foil the model's best other token, with the text in the prompt, stands for it.
    """

    prompt: str
    answer: str
    memory: str
    text: str
    foil: str = ""


def list_queries(model: Model, bank: MemoryBank, facts: Sequence[Fact], limit: int, seed: int) -> list[Query]:
    """Queries of facts whose document's memory is in the bank, at most `limit`, drawn by the seed.

    Raises UserError when there is none.
    """
    known = set(bank.ids.drop_null().to_pylist())
    found = [fact for fact in facts if fact.document and fact.document_id in known]
    if not found:
        raise UserError("none of these facts has its document in this bank: give prompts of your own with --queries")
    chosen = np.random.default_rng(seed).permutation(len(found))[:limit]
    queries = []
    for fact in (found[place] for place in sorted(chosen.tolist())):
        other = next(list_counterfactuals(model, fact, facts, seed), None)
        foil = "" if other is None else other.answer
        queries.append(Query(fact.prompt, fact.answer, fact.document_id, fact.document, foil))
    return queries


def read_queries(path: Path, bank: MemoryBank, limit: int) -> list[Query]:
    """Queries of a table with prompt, answer, memory and perhaps foil, the first `limit`.

    Raises UserError for a table that cannot be read, lacks a cell, or names a memory that is not there or has no text.
    """
    queries = []
    for number, row in enumerate(read_rows(path)[:limit], start=1):
        given: dict[str, Any] = row if isinstance(row, dict) else {}
        cells = {name: str(given.get(name) or "") for name in (*COLUMNS, "foil")}
        for name in COLUMNS:
            if not cells[name].strip():
                raise UserError(f"{path}, row {number} has no {name}: give {', '.join(COLUMNS)} and perhaps foil")
        text = read_entry(bank, cells["memory"])["text"] if bank.head.version > 1 else None
        if text is None:
            raise UserError(f"{bank.folder} keeps no texts, so its memories cannot be written again to compare with")
        queries.append(Query(**cells, text=text))
    if not queries:
        raise UserError(f"{path} has no rows")
    return queries


@dataclass(frozen=True, slots=True)
class Step:
    """One form of the memories of a batch: its name, bytes of one memory (None: not one), and texts before prompts."""

    name: str
    size: int | None
    attachment: Attachment
    texts: tuple[str, ...]


def spread_rows(memories: ExplicitMemories, model: Model) -> Attachment:
    """Each memory attached to a row of its own."""
    blocks = fetch_memories(memories, model, memories.ids)

    def spread(tensor: Tensor) -> Tensor:
        return tensor[0].transpose(0, 1).unsqueeze(2)

    parts = (spread(tensor) for tensor in (blocks.keys, blocks.values, blocks.absent))
    return Attachment(ExplicitBlocks(("each row's own",), blocks.layers, *parts))


def write_again(model: Model, bank: MemoryBank, queries: Sequence[Query], slots: int) -> ExplicitMemories:
    """The queries' memories from their texts, as the bank's were written but with `slots` tokens a head, in float32."""
    head = bank.head
    scoring: Any = head.scoring
    pooling: Any = head.pooling
    recipe = Recipe(head.layers, slots, head.offset, head.prefix, scoring, pooling)
    limit = recipe.limit_tokens(model)
    references = [encode_reference(model.tokenizer, head.prefix, query.text, limit) for query in queries]
    tensors = write_batch(model, recipe, [ids for ids, _ in references], references[0][1])
    ids = tuple(str(row) for row in range(len(queries)))
    return ExplicitMemories(ids, head.layers, head.offset, head.prefix, "", *tensors)


def list_steps(model: Model, bank: MemoryBank, queries: Sequence[Query]) -> Iterator[Step]:
    """The forms of a batch's memories, from text to what the bank holds; `no memory` comes first."""
    head, none = bank.head, ("",) * len(queries)
    vector = head.d_head * PRECISIONS[head.precision].itemsize
    yield Step("no memory", None, NOTHING, none)
    yield Step("text in the prompt", None, NOTHING, tuple(query.text for query in queries))
    longest = Recipe(head.layers, offset=head.offset).limit_tokens(model)
    dense = write_again(model, bank, queries, longest)
    kept = int((dense.positions >= 0).sum()) // len(queries)
    yield Step("dense key-values", 2 * kept * head.d_head * 4, spread_rows(dense, model), none)
    sparse = write_again(model, bank, queries, head.slots)
    slots = 2 * len(head.layers) * head.kv_heads * head.slots
    yield Step(f"sparse, {head.slots} tokens", slots * head.d_head * 4, spread_rows(sparse, model), none)
    kind = PRECISIONS[head.precision]
    rounded = replace(sparse, keys=sparse.keys.to(kind).float(), values=sparse.values.to(kind).float())
    if kind != torch.float32:
        yield Step(head.precision, slots * vector, spread_rows(rounded, model), none)
    if head.code:
        stored = bank.select(tuple(query.memory for query in queries))
        stored = replace(stored, ids=sparse.ids)
        yield Step(head.code, bank.describe()["bytes_a_memory"], spread_rows(stored, model), none)


def predict(model: Model, template: str, queries: Sequence[Query], step: Step) -> Float[Tensor, "query d_vocab"]:
    """Logits behind each prompt in one form of the memories."""
    rows = [
        model.encode(template.format(document=text, prompt=query.prompt) if text else query.prompt)
        for query, text in zip(queries, step.texts, strict=True)
    ]
    ends = torch.tensor([[len(row) - 1] for row in rows])
    with torch.no_grad():
        logits = Pass(model, step.attachment, ends=ends).run(pad_tokens(rows))
    return logits[:, 0].float().cpu()


def choose_foil(model: Model, query: Query, answer: int, logits: Float[Tensor, " d_vocab"]) -> int:
    """First token of the foil, or the best other token where there is none or it is the answer's."""
    if query.foil.strip():
        foil = encode_answer(model, query.foil, query.prompt, "foil")[1][0]
        if foil != answer:
            return foil
    first, second = logits.topk(2).indices.tolist()
    return int(second if first == answer else first)


@dataclass(frozen=True, slots=True)
class Measured:
    """One step over all queries: logits of answer minus foil, the best token, and whether that is the answer."""

    name: str
    size: int | None
    margin: NDArray[np.float64]
    right: NDArray[np.float64]
    divergence: dict[str, NDArray[np.float64]]
    agreement: dict[str, NDArray[np.float64]]


def measure_batch(model: Model, bank: MemoryBank, template: str, queries: Sequence[Query]) -> list[Measured]:
    """All steps on one batch of queries; `divergence` and `agreement` are with text, and with the step before."""
    steps = list(list_steps(model, bank, queries))
    logits = [predict(model, template, queries, step) for step in steps]
    answers = torch.tensor([encode_answer(model, query.answer, query.prompt)[1][0] for query in queries])
    foils = torch.tensor([choose_foil(model, *row) for row in zip(queries, answers.tolist(), logits[1], strict=True)])
    rows = torch.arange(len(queries))

    def compare(first: Tensor, second: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        logs = first.log_softmax(-1), second.log_softmax(-1)
        divergence = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
        return divergence.double().numpy(), (first.argmax(-1) == second.argmax(-1)).double().numpy()

    before = dict(pairwise(range(1, len(steps))))
    found = []
    for place, (step, own) in enumerate(zip(steps, logits, strict=True)):
        others = {"text": 1} if place != 1 else {}
        # The steps from text on are a chain; no memory stands outside it.
        others |= {"the step before": place - 1} if place - 1 in before else {}
        pairs = {name: compare(logits[other], own) for name, other in others.items()}
        found.append(
            Measured(
                step.name,
                step.size,
                (own[rows, answers] - own[rows, foils]).double().numpy(),
                (own.argmax(-1) == answers).double().numpy(),
                {name: pair[0] for name, pair in pairs.items()},
                {name: pair[1] for name, pair in pairs.items()},
            )
        )
    return found


def measure_fidelity(
    model: Model, bank: MemoryBank, template: str, queries: Sequence[Query], batch: int, seed: int, tick: Tick
) -> list[dict[str, Any]]:
    """Rows {step, metric, value, unit, n, low, high}, steps in order; low and high bound 95 % of resampled queries.

    Only the first token of an answer counts. KL is of the step's distribution from that with text (or the step before).
    """
    batches = []
    for start in range(0, len(queries), batch):
        tick("prompts in every form", start, len(queries))
        batches.append(measure_batch(model, bank, template, queries[start : start + batch]))
    rows: list[dict[str, Any]] = []
    for parts in zip(*batches, strict=True):
        rows += summarise_step(parts, seed)
    return rows


def summarise_step(parts: Sequence[Measured], seed: int) -> Iterator[dict[str, Any]]:
    """Rows of one step, whose batches are `parts`."""
    metrics: list[tuple[str, str, list[NDArray[np.float64]]]] = [
        ("logit difference of answer and foil", "logits", [part.margin for part in parts]),
        ("best token is the answer", "share", [part.right for part in parts]),
    ]
    for other in parts[0].divergence:
        metrics += [
            (f"KL from {other}", "nats", [part.divergence[other] for part in parts]),
            (f"same best token as {other}", "share", [part.agreement[other] for part in parts]),
        ]
    for name, unit, values in metrics:
        found = estimate_mean(np.concatenate(values), seed)
        yield {
            "step": parts[0].name,
            "metric": name,
            "value": round(found.value, 6),
            "unit": unit,
            "n": found.n,
            "low": round(found.low, 6),
            "high": round(found.high, 6),
        }
    if parts[0].size is not None:
        sizes = [part.size for part in parts if part.size is not None]
        size = round(sum(sizes) / len(sizes))
        yield {
            "step": parts[0].name,
            "metric": "keys and values of a memory",
            "value": size,
            "unit": "bytes",
            "n": 1,
            "low": size,
            "high": size,
        }
