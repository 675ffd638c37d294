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

from circuits.activity import measure_attention_scale, measure_mlp_scale
from circuits.anchors import Anchor, LedgerPass, keep_bare, list_anchor_tensors, read_anchor
from circuits.attribution import list_written_streams
from circuits.metrics import Readout, build_metric, read_logits
from circuits.parts import Removal
from circuits.shapley import list_coalitions
from probes.attachments import Attachment
from probes.blocks import is_written
from probes.errors import UserError
from probes.forward import Record
from probes.models import Model

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
    `mlp` [row pos d_model] that at what MLP and bank write, likewise. `anchor` is read off the combination in which
    nothing is attached, where the pass holds it and what is off leaves no trace.
    """

    numbers: Int[np.ndarray, " coalition"]
    text: bool
    record: Record
    heads: dict[int, Tensor]
    mlp: dict[int, Tensor]
    values: Float[np.ndarray, "coalition row"]
    logits: Tensor
    anchor: Anchor | None = None


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
        bare = some[0] == 0 and leaves_nothing(asked, removal)
        extra = list_anchor_tensors(model, whole) if bare else []
        heads, mlp, slopes = find_gradients(model, record, values, asked.with_text is not None, extra)
        table = values.detach().double().cpu().numpy().reshape(len(some), rows)
        anchor = read_anchor(model, keep_bare(record, rows), table[0], [one[:rows] for one in slopes]) if bare else None
        yield Chunk(some, text, record, heads, mlp, table, logits.detach(), anchor)


def leaves_nothing(asked: Asked, removal: Removal) -> bool:
    """Whether the combination with nothing on is the model by itself: no memory keeps attention when it is off."""
    return removal == "renormalised" or asked.attachment.explicit is None


def find_gradients(
    model: Model, record: Record, values: Tensor, every: bool, extra: Sequence[Tensor]
) -> tuple[dict[int, Tensor], dict[int, Tensor], list[Tensor]]:
    """Gradients at what heads read, in layers that read memories or in `every` one, at what MLPs and bank add, and at
    the `extra` tensors.
    """
    streams = list_written_streams(model, record)
    read = [i for i in range(model.layers) if every or i in record.slot_weights or i in record.learned_read]
    mlp = sorted(record.bank_units)
    wanted = [*(streams[layer][0] for layer in read), *(streams[layer][1] for layer in mlp), *extra]
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
    return heads, units, list(found)


def freeze_mlp(model: Model, record: Record, layer: int, gradient: Tensor) -> Float[Tensor, "row pos d_model"]:
    """Gradient at the sum of what MLP and bank write, before any norm after them at the run's scale."""
    norm, scale = model.weights[layer].post_mlp_norm, measure_mlp_scale(model, record, layer)
    return gradient if norm is None or scale is None else norm.pull_back_frozen(gradient) / scale


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
