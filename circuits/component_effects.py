"""How much each component matters for each prompt: heads, FFN units, bank blocks and explicit memories beside another.

The effect is the first-order drop of the answer's log-odds, `log p / (1 - p)` in nats summed over its tokens, when the
component writes nothing (zero ablation) at any position: what it writes times the gradient there, from one backward
pass for all components and prompts. Log-odds, because log p is flat where the model is sure. `remove_component`
measures the same drop exactly. Positive helps the answer. First order does not see what a saturated softmax rests on:
`correct_effects` puts exact drops in place of it for all but the units, a pass each.

Names are those of `circuits/component_names.py`. A head's effect is that of all it reads, the
context and explicit memories; a memory's and a block's is over all heads and layers. A block or memory that a prompt
does not read has no effect there. LoRA blocks write nothing of their own, so they have no effect of their own here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.component_names import find_kind
from circuits.graph import Kind, parse_component
from circuits.metrics import Readout, build_readout, pick, read_logits
from circuits.problem import pad_tokens
from probes.attachments import Attachment, remove_memories, stack_attachments
from probes.errors import UserError
from probes.forward import Pass, Record
from probes.models import Hook, Model, name_hook
from probes.parts import PartsPass
from probes.progress import Tick, quiet

ROWS = 16


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a fact in one wording, its answer and what is attached: the clusters of its bank path, memories.

    `subject` is the position of the subject's last token, -1 where the prompt does not name it.
    """

    fact: str
    relation: str
    ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    attachment: Attachment
    path: tuple[int, ...] = ()
    memories: tuple[str, ...] = ()
    subject: int = -1

    @property
    def fed(self) -> tuple[int, ...]:
        """Token ids as they are fed: the prompt and the answer but its last token."""
        return (*self.ids, *self.answer_ids[:-1])

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the bank blocks that it reads."""
        return tuple(f"bank {level}:{cluster}" for level, cluster in enumerate(self.path, start=1))


@dataclass(frozen=True, slots=True)
class Effects:
    """Effect of every component on every item, in nats of log-odds; `margins` are the log-odds with all in place, and
    `known` says whether greedy decoding gives the answer.
    """

    components: tuple[str, ...]
    values: Float[np.ndarray, "item component"]
    margins: Float[np.ndarray, " item"]
    known: Bool[np.ndarray, " item"]


def measure_odds(logits: Float[Tensor, "row step d_vocab"], readout: Readout) -> Float[Tensor, " row"]:
    """Log-odds of each row's answer, in nats, summed over its tokens, of logits at the readout's positions alone."""
    read = read_logits(logits, readout.keep_steps())
    tokens = readout.answers.to(read.device).unsqueeze(-1)
    others = read.scatter(2, tokens, float("-inf")).logsumexp(dim=-1)
    return ((pick(read, readout.answers) - others) * readout.weights.to(read.device)).sum(dim=1)


def check_known(logits: Float[Tensor, "row step d_vocab"], readout: Readout) -> Bool[Tensor, " row"]:
    """Whether every token of a row's answer is the most likely one."""
    wrong = (logits.argmax(dim=-1).cpu() != readout.answers) & (readout.weights > 0)
    return ~wrong.any(dim=1)


def batch_items(items: Sequence[Item], rows: int = ROWS) -> Iterator[list[int]]:
    """Places of items in batches whose attachments have the same kinds and sizes."""
    alike: dict[object, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        explicit, bank = item.attachment.explicit, item.attachment.bank
        sizes = explicit and (explicit.layers, tuple(explicit.keys.shape[2:]))
        alike[sizes, bank and (bank.kind, bank.layers, len(bank))].append(place)
    for places in alike.values():
        for start in range(0, len(places), rows):
            yield places[start : start + rows]


def build_batch(items: Sequence[Item]) -> tuple[Tensor, Attachment, Readout]:
    """Tokens filled up on the right, attachments with a row each, and where answers are read."""
    answers = [item.answer_ids for item in items]
    readout = build_readout([len(item.ids) for item in items], answers, answers)
    return pad_tokens([item.fed for item in items]), stack_attachments([item.attachment for item in items]), readout


def name_components(model: Model, record: Record, items: Sequence[Item]) -> tuple[str, ...]:
    """Every component that any of the items reads, in order of kind."""
    heads = [f"a{layer}.h{head}" for layer in range(model.layers) for head in range(model.heads)]
    units = [f"m{layer}.u{unit}" for layer in sorted(record.units) for unit in range(record.units[layer].shape[-1])]
    written = [item for item in items if item.attachment.bank is not None and item.attachment.bank.kind != "lora"]
    blocks = sorted({(level, cluster) for item in written for level, cluster in enumerate(item.path, start=1)})
    memories = sorted({f"memory {name}" for item in items for name in item.memories})
    return (*heads, *units, *(f"bank {level}:{cluster}" for level, cluster in blocks), *memories)


def score_components(record: Record, value: Tensor, layers: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Effects of heads and units (a tensor [row, part] for each layer, heads first), of bank levels [row, level] and
    of memories [row, block].
    """
    read = [record.context_read[layer] for layer in range(layers)]
    units = [record.units[layer] for layer in sorted(record.units)]
    bank = [(level, out) for layer in record.bank_output for level, out in enumerate(record.bank_output[layer])]
    tensors = [*read, *units, *(out for _, out in bank)]
    slopes = torch.autograd.grad(value, tensors, materialize_grads=True)
    rows = read[0].shape[0]
    levels = max([level + 1 for level, _ in bank] + [part.shape[3] for part in record.learned_read.values()], default=0)
    of_levels = torch.zeros(rows, levels)
    of_blocks = torch.zeros(rows, max((part.shape[3] for part in record.memory_read.values()), default=0))
    parts = []
    for layer in range(layers):
        own, slope = read[layer], slopes[layer]
        if layer in record.memory_read:
            memory = record.memory_read[layer]
            of_blocks += (memory * slope.unsqueeze(3)).sum(dim=(1, 2, 4)).detach().cpu()
            own = own + memory.sum(dim=3)
        if layer in record.learned_read:
            of_levels += (record.learned_read[layer] * slope.unsqueeze(3)).sum(dim=(1, 2, 4)).detach().cpu()
        parts.append((own * slope).sum(dim=(1, 3)).detach().cpu())
    parts += [(own * slopes[layers + i]).sum(dim=1).detach().cpu() for i, own in enumerate(units)]
    for (level, out), slope in zip(bank, slopes[layers + len(units) :], strict=True):
        of_levels[:, level] += (out * slope).sum(dim=(1, 2)).detach().cpu()
    return parts, of_levels, of_blocks


def measure_effects(model: Model, items: Sequence[Item], tick: Tick = quiet) -> Effects:
    """Effect of every component on every item, one forward and one backward pass a batch. Needs one item or more."""
    margins, known = np.zeros(len(items)), np.zeros(len(items), dtype=bool)
    components: tuple[str, ...] = ()
    values = np.zeros((len(items), 0))
    done = 0
    for places in batch_items(items):
        tick("effects of all components", done, len(items))
        some = [items[place] for place in places]
        tokens, attachment, readout = build_batch(some)
        whole = PartsPass(model, attachment, differentiable=True, ends=readout.positions)
        logits = whole.run(tokens)
        with torch.enable_grad():
            odds = measure_odds(logits, readout)
        if not components:
            components = name_components(model, whole.record, items)
            values = np.zeros((len(items), len(components)))
        column = {name: at for at, name in enumerate(components)}
        parts, levels, blocks = score_components(whole.record, odds.sum(), model.layers)
        fixed = torch.cat(parts, dim=1).double().numpy()
        for row, (place, item) in enumerate(zip(places, some, strict=True)):
            values[place, : fixed.shape[1]] = fixed[row]
            for name, effect in zip(item.blocks, levels[row].tolist(), strict=False):
                values[place, column[name]] += effect
            for name, effect in zip(item.memories, blocks[row].tolist(), strict=False):
                values[place, column[f"memory {name}"]] += effect
        margins[places] = odds.detach().double().cpu().numpy()
        known[places] = check_known(logits.detach(), readout).numpy()
        done += len(places)
    return Effects(components, values, margins, known)


def silence(model: Model, component: str) -> list[Hook]:
    """Hooks that put a head or FFN unit to 0, none for bank blocks and memories. Raises UserError for another name."""
    if component.startswith(("bank ", "memory ")):
        return []
    part = parse_component(component, model.layers)

    def empty(values: Tensor, hook: Any, index: int) -> Tensor:
        values = values.clone()
        values[:, :, index] = 0.0
        return values

    points: dict[Kind, tuple[str, Callable[..., Tensor]]] = {
        Kind.HEAD: ("attn.hook_z", partial(empty, index=part.head)),
        Kind.MLP: ("mlp.out.hook_in", partial(empty, index=part.part)),
    }
    if part.kind not in points or (part.kind is Kind.MLP) != (part.part >= 0):
        raise UserError(
            f"{component[:80]} is no head, FFN unit, bank block or memory: name one such as a1.h2 or m3.u17"
        )
    point, function = points[part.kind]
    return [(name_hook(part.layer, point), function)]


def detach_component(item: Item, component: str) -> Attachment:
    """What an item reads without a bank block or memory, whose contribution alone is taken away."""
    levels = [level for level, name in enumerate(item.blocks) if name == component]
    blocks = [place for place, name in enumerate(item.memories) if f"memory {name}" == component]
    if not levels and not blocks:
        return item.attachment
    return remove_memories(item.attachment, give_back=False, blocks=blocks, levels=levels)


class SilencedPass(Pass):
    """A plain pass with further hooks, which act after its own."""

    extra: Sequence[Hook] = ()

    def list_hooks(self) -> list[Hook]:
        """The pass's hooks, then the further ones."""
        return [*super().list_hooks(), *self.extra]


def run_without(
    model: Model, component: str, tokens: Tensor, attachment: Attachment, ends: Tensor | None = None
) -> Float[Tensor, "row pos_or_step d_vocab"]:
    """Logits with a head or FFN unit at 0 (an empty name: with all in place)."""
    silenced = SilencedPass(model, attachment, ends=ends)
    silenced.extra = silence(model, component) if component else ()
    return silenced.run(tokens)


def remove_component(model: Model, items: Sequence[Item], component: str) -> Float[np.ndarray, " item"]:
    """Exact drop of each item's log-odds, in nats, when the component writes nothing."""
    drops = np.zeros(len(items))
    for places in batch_items(items):
        some = [items[place] for place in places]
        tokens, attachment, readout = build_batch(some)
        rows = [detach_component(item, component) for item in some]
        without = run_without(model, component, tokens, stack_attachments(rows), readout.positions)
        whole = run_without(model, "", tokens, attachment, readout.positions)
        drops[places] = (measure_odds(whole, readout) - measure_odds(without, readout)).double().cpu().numpy()
    return drops


def correct_effects(model: Model, items: Sequence[Item], effects: Effects, tick: Tick = quiet) -> Effects:
    """The same effects, those of heads, bank blocks and memories by exact removal, units as they are."""
    values = effects.values.copy()
    places = [place for place, name in enumerate(effects.components) if find_kind(name) != "units"]
    for done, place in enumerate(places):
        tick("components removed", done, len(places))
        component = effects.components[place]
        reads = [row for row, item in enumerate(items) if reads_component(item, component)]
        values[:, place] = 0.0
        if reads:
            values[reads, place] = remove_component(model, [items[row] for row in reads], component)
    return Effects(effects.components, values, effects.margins, effects.known)


def reads_component(item: Item, component: str) -> bool:
    """Whether a component is there for an item: any head and unit, blocks and memories that it reads."""
    if component.startswith(("bank ", "memory ")):
        return component in item.blocks or component.removeprefix("memory ") in item.memories
    return True


def remove_from_text(
    model: Model, texts: Sequence[tuple[int, ...]], component: str, attachment: Attachment, without: Attachment
) -> Float[np.ndarray, " text"]:
    """Exact drop of the mean log-likelihood of each text's tokens but the first, in nats a token.

    `attachment` is what is read beside the texts, `without` the same less the component (`detach_component`).
    """
    drops = []
    for ids in texts:
        tokens, wanted = torch.tensor([ids[:-1]]), torch.tensor(ids[1:])
        runs = (("", attachment), (component, without))
        both = [run_without(model, name, tokens, attached)[0].float().cpu() for name, attached in runs]
        whole, less = (logits.log_softmax(-1)[torch.arange(len(wanted)), wanted].mean() for logits in both)
        drops.append(float(whole - less))
    return np.array(drops)
