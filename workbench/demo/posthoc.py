"""Blocks of any kind trained on a frozen anchor, with the passages of a few subtrees, and measured on their facts."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from transformers import LlamaForCausalLM

from workbench.demo.batches import Encoder, pad_rows
from workbench.demo.build import Material
from workbench.demo.clusters import embed
from workbench.demo.corpus import ask
from workbench.demo.evaluation import Row, summarise
from workbench.demo.kinds import Blocks

Report = Callable[[str, int, int], None]


def train_blocks(
    material: Material, anchor: LlamaForCausalLM, kind: str, layers: list[int], rate: float, report: Report
) -> tuple[Blocks, float]:
    """Train one block a leaf on the passages of the chosen subtrees; the anchor stays as it is.

    Returns the blocks, hooked into the anchor, and the mean loss (nats a trained token) of the last tenth of the steps.
    """
    config = material.config
    plan, size = config.experiments, config.training.rows
    anchor.requires_grad_(False)
    torch.manual_seed(config.seed)
    units = sum(config.bank.units) * config.model.layers
    leaves = config.clusters.branching**config.clusters.depth
    blocks = Blocks(anchor, kind, leaves, layers, units * 3 * config.model.d_model)
    optimizer = torch.optim.AdamW(blocks.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    encoder = Encoder(material.tokenizer)
    chosen = np.flatnonzero(material.passage_paths[:, 0] < plan.subtrees)
    rows = [encoder.encode_row(material.corpus.passages[i].segments) for i in chosen]
    per_epoch = max(1, len(rows) // size)
    steps = round(plan.block_epochs * per_epoch)
    draw, losses = random.Random(f"blocks/{config.seed}"), []
    order: list[int] = []
    for step in range(steps):
        if len(order) < size:
            order = draw.sample(range(len(rows)), len(rows))
        taken = [order.pop() for _ in range(size)]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, 1.5 * (1 - step / steps))
        leaf = torch.from_numpy(material.passage_paths[chosen[taken], -1])
        loss = measure_loss(anchor, blocks, [rows[i] for i in taken], leaf, config.corpus.other_tokens, draw)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(blocks.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        report(f"{kind}, rate {rate:g}", step + 1, steps)
    return blocks, float(np.mean(losses[-max(1, steps // 10) :]))


def measure_loss(
    anchor: LlamaForCausalLM,
    blocks: Blocks,
    rows: list[tuple[list[int], list[bool]]],
    leaf: torch.Tensor,
    other_tokens: float,
    draw: random.Random,
) -> torch.Tensor:
    """Mean cross-entropy (nats) of the answers and of a drawn share of the other tokens, with each row's block."""
    ids, flags = pad_rows([row[0] for row in rows], 0), pad_rows([[int(f) for f in row[1]] for row in rows], 0).bool()
    real = torch.arange(ids.shape[1])[None] < torch.tensor([len(row[0]) for row in rows])[:, None]
    generator = torch.Generator().manual_seed(draw.randrange(2**62))
    wanted = (real & (flags | (torch.rand(ids.shape, generator=generator) < other_tokens)))[:, 1:]
    with blocks.fetch(leaf):
        hidden = anchor.model(input_ids=ids, use_cache=False).last_hidden_state
    return nn.functional.cross_entropy(anchor.lm_head(hidden[:, :-1][wanted]), ids[:, 1:][wanted])


def measure_blocks(material: Material, blocks: Blocks, anchor: LlamaForCausalLM, about: Row) -> list[Row]:
    """Accuracy by bucket of the subtrees' facts, first paraphrase, with the block to which the prompt is routed.

    `about` holds the rows' experiment and condition.
    """
    plan, encoder = material.config.experiments, Encoder(material.tokenizer)
    draw = random.Random(0)
    rows = []
    trained = [fact for fact in material.world.facts if fact.bucket]
    own = [fact for fact in trained if material.document_paths[fact.document_id][0] < plan.subtrees]
    for bucket in sorted({fact.bucket for fact in own}):
        facts = [fact for fact in own if fact.bucket == bucket]
        facts = draw.sample(facts, min(plan.limit, len(facts)))
        prompts = [ask(material.world.relations[fact.relation], fact.subject) for fact in facts]
        leaf = material.tree.route(material.whitening.apply(embed(prompts)))[:, -1]
        ids = [encoder.encode_row([(prompt, False)])[0] for prompt in prompts]
        last = torch.tensor([len(row) - 1 for row in ids])
        with torch.no_grad(), blocks.fetch(torch.from_numpy(leaf)):
            hidden = anchor.model(input_ids=pad_rows(ids, 0), use_cache=False).last_hidden_state
            found = anchor.lm_head(hidden[torch.arange(len(ids)), last]).argmax(-1).tolist()
        right = np.array(
            [encoder.encode(" " + fact.object) == [token] for fact, token in zip(facts, found, strict=True)]
        )
        rows.append(summarise(right, about["experiment"], about["condition"], bucket, "seen", 0))
    return rows
