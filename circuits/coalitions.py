"""Every combination of memory formats, on and off, run exactly: the metric of each, and what parts need of each run.

A *format* is the text before the prompt, one explicit memory, or one level of the bank. Rows of a pass are combinations
times prompts; combinations without the text and those with it run apart, for their tokens differ. What a format that
is off leaves behind is told by `removal` (`probes/attachments.py`, `remove_memories`): an explicit memory is out of
the softmax (`renormalised`), or keeps its attention and is read as zero (`contribution`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.activity import measure_activity, measure_attention_scale, measure_mlp_scale
from circuits.attribution import list_written_streams
from circuits.graph import Kind, wire
from circuits.metrics import Readout, build_metric, read_logits
from circuits.parts import Removal
from circuits.shapley import list_coalitions
from circuits.tracing import plan_model, stack_writes
from probes.attachments import NOTHING, Attachment
from probes.blocks import is_written
from probes.errors import UserError
from probes.forward import Record
from probes.models import Hook, Model
from probes.parts import PartsPass

# Rows that run in one pass, and the most formats whose combinations are all run (2 to the power of it).
ROWS = 512
MOST_FORMATS = 8


@dataclass(frozen=True, slots=True)
class Format:
    """One format of memory that can be on or off: `kind` is `explicit`, `bank` or `text`, `index` the memory or level
    (from 0).
    """

    kind: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """Prompts of one condition, a row each, filled up on the right: without text, and with it where all have one.

    `texts` is where the text stands in `with_text` (first position, and the one behind its last), and where the plain
    prompt has the token that follows the text: from there on both are the same question. Both readouts are of the same
    answers.
    """

    plain: Int[Tensor, "row pos"]
    readout: Readout
    attachment: Attachment
    with_text: Int[Tensor, "row text_pos"] | None = None
    text_readout: Readout | None = None
    texts: Int[Tensor, "row 3"] | None = None

    def list_formats(self) -> tuple[Format, ...]:
        """Formats in the order of their bits: explicit memories, levels of the bank, text."""
        explicit, bank = self.attachment.explicit, self.attachment.bank
        formats = [Format("explicit", block) for block in range(len(explicit or ()))]
        formats += [Format("bank", level) for level in range(len(bank or ()))]
        formats += [Format("text")] if self.with_text is not None else []
        if len(formats) > MOST_FORMATS:
            raise UserError(
                f"{len(formats)} texts, explicit memories and levels are attached, and all combinations of "
                f"{MOST_FORMATS} at most are run: attach fewer memories (--memories)"
            )
        return tuple(formats)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One pass: combinations (by number) times prompts, with the record, and gradients of the metric by layer.

    `heads` [row pos head d_head] is the gradient at what a head reads (over the scale of a norm after attention),
    `mlp` [row pos d_model] that at what MLP and bank write, likewise.
    """

    numbers: Int[np.ndarray, " coalition"]
    text: bool
    record: Record
    heads: dict[int, Tensor]
    mlp: dict[int, Tensor]
    values: Float[np.ndarray, "coalition row"]
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Anchor:
    """The run with nothing attached: its metric, and what its heads, FFN units and embedding bring to it.

    `direct` [row part] is a part's own write into the logits at the norm's scale, to first order in the logits: for a
    difference of logits exact. `effect` is the first-order drop of the metric when the part counts as zero everywhere;
    effects of parts that feed each other overlap.
    """

    value: Float[np.ndarray, " row"]
    components: tuple[str, ...]
    direct: Float[np.ndarray, "row part"]
    effect: Float[np.ndarray, "row part"]


class LedgerPass(PartsPass):
    """A pass of parts that also keeps what the unembedding reads, `normed` [batch pos d_model]."""

    normed: Tensor | None = None

    def list_end_hooks(self) -> list[Hook]:
        """Hooks after the last layer; the unembedding's input is seen before positions are picked."""
        hooks = super().list_end_hooks()
        return [hooks[0], ("unembed.hook_in", self._see_normed), *hooks[1:]]

    def _see_normed(self, normed: Tensor, hook: object) -> None:
        self.normed = normed


def expand_rows(tensor: Tensor, rows: int) -> Tensor:
    """A tensor with a row for each prompt; its only row stands for all."""
    return tensor.expand(rows, *tensor.shape[1:])


def switch(
    attachment: Attachment,
    formats: Sequence[Format],
    on: Bool[np.ndarray, "coalition format"],
    rows: int,
    kind: Removal,
) -> Attachment:
    """The attachment of `rows` prompts for every combination, one after the other, with what is off removed."""
    explicit, bank = attachment.explicit, attachment.bank
    times = len(on)

    def read_switch(name: str, index: int) -> Tensor:
        column = list(formats).index(Format(name, index))
        return torch.from_numpy(np.repeat(on[:, column], rows))

    def spread(tensor: Tensor) -> Tensor:
        return expand_rows(tensor, rows).repeat(times, *[1] * (tensor.dim() - 1))

    if explicit is not None:
        switches = torch.stack([read_switch("explicit", block) for block in range(len(explicit))], dim=1)
        switches = switches.to(explicit.keys.device)[:, None, :, None, None]
        absent, values = spread(explicit.absent), spread(explicit.values)
        if kind == "renormalised":
            absent = absent | ~switches
        else:
            values = values * switches[..., None]
        keys = explicit.keys
        keys = expand_rows(keys, rows * times) if keys.shape[0] == 1 else spread(keys)
        explicit = replace(explicit, keys=keys, values=values, absent=absent)
    if bank is not None:
        weights = {}
        for name, levels in bank.weights.items():
            found = []
            for level, tensor in enumerate(levels):
                if is_written(name):
                    factor = read_switch("bank", level).to(tensor.device, tensor.dtype)
                    found.append(spread(tensor) * factor.view(-1, *[1] * (tensor.dim() - 1)))
                else:
                    found.append(tensor if tensor.shape[0] == 1 else spread(tensor))
            weights[name] = tuple(found)
        bank = replace(bank, weights=weights)
    return Attachment(explicit, bank)


def repeat_readout(readout: Readout, times: int) -> Readout:
    """The readout of the same prompts `times` over."""
    return Readout(*(part.repeat(times, 1) for part in (getattr(readout, f.name) for f in fields(readout))))


def run_side(
    model: Model, asked: Asked, text: bool, numbers: Int[np.ndarray, " coalition"], removal: Removal, metric: str
) -> Iterator[Chunk]:
    """The combinations of these numbers, all with the text or all without, a pass at a time."""
    tokens, readout = (asked.with_text, asked.text_readout) if text else (asked.plain, asked.readout)
    assert tokens is not None and readout is not None
    formats, rows = asked.list_formats(), tokens.shape[0]
    on, step = list_coalitions(len(formats)), max(1, ROWS // rows)
    for start in range(0, len(numbers), step):
        some = numbers[start : start + step]
        attachment = switch(asked.attachment, formats, on[some], rows, removal)
        ends = repeat_readout(readout, len(some))
        whole = LedgerPass(model, attachment, differentiable=True, attention=text, ends=ends.positions)
        logits = whole.run(tokens.repeat(len(some), 1))
        with torch.enable_grad():
            values = build_metric(metric, ends.keep_steps(), logits)(logits)
        record = whole.record
        every = asked.with_text is not None
        heads, mlp = find_gradients(model, record, values, every)
        table = values.detach().double().cpu().numpy().reshape(len(some), rows)
        yield Chunk(some, text, record, heads, mlp, table, logits.detach())


def find_gradients(
    model: Model, record: Record, values: Tensor, every: bool
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Gradients at what heads read, in layers that read memories or in `every` one, and at what MLPs and bank add."""
    streams = list_written_streams(model, record)
    read = [i for i in range(model.layers) if every or i in record.slot_weights or i in record.learned_read]
    mlp = sorted(record.bank_units)
    wanted = [*(streams[layer][0] for layer in read), *(streams[layer][1] for layer in mlp)]
    found = iter(torch.autograd.grad(values.sum(), wanted) if wanted else ())
    heads = {}
    with torch.no_grad():
        for layer in read:
            weights, gradient = model.weights[layer], next(found)
            scale = measure_attention_scale(model, record, layer)
            norm = weights.post_attention_norm
            if norm is not None and scale is not None:
                gradient = norm.pull_back_frozen(gradient) / scale
            heads[layer] = torch.einsum("bpm,hdm->bphd", gradient, weights.output)
        units = {layer: freeze_mlp(model, record, layer, next(found)) for layer in mlp}
    return heads, units


def freeze_mlp(model: Model, record: Record, layer: int, gradient: Tensor) -> Float[Tensor, "row pos d_model"]:
    """Gradient at the sum of what MLP and bank write, before any norm after them at the run's scale."""
    norm, scale = model.weights[layer].post_mlp_norm, measure_mlp_scale(model, record, layer)
    return gradient if norm is None or scale is None else norm.pull_back_frozen(gradient) / scale


def run_anchor(model: Model, asked: Asked, metric: str) -> Anchor:
    """The plain prompts with nothing attached, and what each part of the model brings."""
    ends = asked.readout.positions
    whole = LedgerPass(model, NOTHING, differentiable=True, ends=ends)
    logits = whole.run(asked.plain)
    record, normed = whole.record, whole.normed
    assert record.final_stream is not None and record.embedding is not None and normed is not None
    with torch.enable_grad():
        values = build_metric(metric, asked.readout.keep_steps(), logits)(logits)
    streams = list_written_streams(model, record)
    flat = [record.embedding, *(stream for pair in streams for stream in pair), normed]
    *total, last = torch.autograd.grad(values.sum(), flat)
    norm = model.final_norm
    with torch.no_grad():
        frozen = norm.pull_back_frozen(last) / norm.measure(record.final_stream)[1]
        writes, wiring = stack_writes(model, record), wire(plan_model(model, NOTHING))
        activity = measure_activity(model, record)
        names, direct, effect = list[str](), list[Tensor](), list[Tensor]()
        for writer, written in zip(wiring.writers, writes, strict=True):
            stage = 0 if writer.layer < 0 else 1 + 2 * writer.layer + (writer.kind is Kind.MLP)
            weights = model.weights[max(writer.layer, 0)]
            slopes = frozen, total[stage]
            if writer.kind is Kind.MLP and writer.block < 0 and weights.down is not None:
                fired = activity.units[writer.layer]
                names += [replace(writer, part=unit).name for unit in range(fired.shape[-1])]
                found = [(fired * project_down(model, writer.layer, slope)).sum(dim=1) for slope in slopes]
            else:
                names.append(writer.name)
                found = [(written * slope).sum(dim=(1, 2)).unsqueeze(1) for slope in slopes]
            direct.append(found[0])
            effect.append(found[1])
    stacked = (torch.cat(parts, dim=1).double().cpu().numpy() for parts in (direct, effect))
    return Anchor(values.detach().double().cpu().numpy(), tuple(names), *stacked)


def project_down(model: Model, layer: int, gradient: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos unit"]:
    """Gradient at the activations of a layer's units, given that at what its MLP adds to the stream."""
    weights = model.weights[layer]
    assert weights.down is not None
    norm = weights.post_mlp_norm
    return (gradient if norm is None else norm.pull_back_frozen(gradient)) @ weights.down.T


def judge(logits: Float[Tensor, "row step d_vocab"], readout: Readout) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row's answer is the model's own, and the token that it says at the first step where it is not."""
    read = read_logits(logits, readout.keep_steps())
    said, wanted = read.argmax(dim=-1).cpu(), readout.answers.cpu()
    wrong = (said != wanted) & (readout.weights.cpu() > 0)
    first = wrong.int().argmax(dim=1, keepdim=True)
    return (~wrong.any(dim=1)).numpy(), said.gather(1, first).squeeze(1).numpy()


def name_format(form: Format) -> str:
    """Name of a format: `text`, `memory 1`, `level 1`; numbers count from 1."""
    return {"text": "text", "explicit": f"memory {form.index + 1}", "bank": f"level {form.index + 1}"}[form.kind]
