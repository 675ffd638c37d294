"""Scores of single heads: how much each needs distant tokens, copies from the context, and completes repetitions.

memory     Yang et al. 2024 (Memory^3), remark 4: the head is made to see only the `window` tokens before and the first
           (beginning of text); s_h is the mean performance then, here the log-probability of the targets, in nats a
           token. A low s_h marks a candidate for reading explicit memories. `drop` is the whole model's minus s_h.
retrieval  Wu et al. 2024 (arXiv 2404.15574): the share of answer tokens, copied from the context, at whose prediction
           the head attends most to that token where it stood.
induction  Olsson et al. 2022, prefix matching: on a random sequence that comes twice, the attention from the second
           time to the token after the same token's first time.

Scores are a number for every text and head, so that intervals can be taken over texts.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from circuits.intervals import Estimate, draw_places
from circuits.problem import pad_tokens, record_run
from probes.attachments import NOTHING
from probes.errors import UserError
from probes.forward import Record
from probes.models import Model, name_hook
from probes.progress import Tick
from probes.restarts import RestartedPass, Start

# The paper's window; length of a random sequence that comes twice.
WINDOW, SEQUENCE = 100, 24


@dataclass(frozen=True, slots=True)
class Passage:
    """Token ids with the positions of the tokens whose prediction counts (each predicted from those before it)."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]


def find_distant(length: int, window: int) -> Bool[Tensor, "query_pos key_pos"]:
    """Which tokens a masked head does not see: all but itself, the `window` before it, and the first."""
    places = torch.arange(length)
    distant = places[:, None] - places[None] > window
    distant[:, 0] = False
    return distant


def require_distant(passages: Sequence[Passage], window: int) -> None:
    """Raise UserError where no prediction that counts has a token beyond the window: nothing would be masked."""
    longest = max(max(passage.targets) for passage in passages)
    # The prediction of target t is made at t - 1; token 1 is the most distant beside the first.
    if longest - 2 <= window:
        raise UserError(
            f"no token lies more than {window} before one that predicts a target (the farthest is {longest - 2}), so "
            f"nothing would be masked: give longer texts, or a --window below {max(longest - 2, 1)}"
        )


class WindowedPass(RestartedPass):
    """A restarted pass in which each group of rows has one head of its first layer see no distant token.

    Rows are head by head, a row for each text, and last a group in which every head sees everything.
    """

    def __init__(self, model: Model, layer: int, stream: Float[Tensor, "text pos d_model"], window: int) -> None:
        groups = model.heads + 1
        super().__init__(model, NOTHING, Start(layer), stream.repeat(groups, 1, 1))
        self.distant = find_distant(stream.shape[1], window).to(stream.device)

    def list_hooks(self) -> list[Any]:
        """The pass's hooks, one on the attention scores of its first layer, and one that sees that they count."""
        points = {"attn.hook_attn_scores": self._mask, "attn.hook_pattern": self._check}
        hooks = [(name_hook(self.start.layer, point), function) for point, function in points.items()]
        return [*super().list_hooks(), *hooks]

    def run(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "row pos d_vocab"]:
        """Logits of the rows. Raises UserError for a model whose attention scores cannot be changed."""
        with warnings.catch_warnings():
            # TransformerLens warns where scores are seen but not used (GPT-J); `_check` raises there.
            warnings.simplefilter("ignore", UserWarning)
            return super().run(tokens)

    def _check(self, pattern: Float[Tensor, "row head query_pos key_pos"], hook: Any) -> None:
        masked = pattern[: pattern.shape[0] // (self.model.heads + 1), 0]
        if bool((masked * self.distant).any()):
            raise UserError(
                f"the attention of {self.model.name} ({self.model.architecture}) cannot be masked head by head: "
                "TransformerLens shows its scores but does not use what is put in their place"
            )

    def _mask(self, scores: Float[Tensor, "row head query_pos key_pos"], hook: Any) -> Tensor:
        groups = scores.clone().unflatten(0, (self.model.heads + 1, -1))  # type: ignore[no-untyped-call]
        for head in range(self.model.heads):
            groups[head, :, head].masked_fill_(self.distant, float("-inf"))
        masked: Tensor = groups.flatten(0, 1)
        return masked


def average_log_probability(
    logits: Float[Tensor, "row pos d_vocab"], passages: Sequence[Passage]
) -> Float[Tensor, "group text"]:
    """Mean log-probability of each text's targets, in nats a token, of rows that are the texts group by group."""
    groups = logits.shape[0] // len(passages)
    found = torch.zeros(groups, len(passages), dtype=torch.float64)
    for place, passage in enumerate(passages):
        ends = torch.tensor(passage.targets)
        own = logits[place :: len(passages)][:, (ends - 1).to(logits.device)].float().log_softmax(-1)
        wanted = torch.tensor([passage.ids[end] for end in passage.targets], device=logits.device)
        found[:, place] = own[:, torch.arange(len(ends)), wanted].mean(-1).double().cpu()
    return found


def measure_performance(
    model: Model, passages: Sequence[Passage], window: int, batch: int, tick: Tick
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Performance on each text with one head masked, [text, layer, head], and of the whole model, [text, layer, 1].

    Raises UserError where nothing would be masked.
    """
    require_distant(passages, window)
    masked, whole = [], []
    for first in range(0, len(passages), batch):
        some = passages[first : first + batch]
        tokens = pad_tokens([passage.ids for passage in some])
        record, _ = record_run(model, tokens, NOTHING)
        layers = []
        for layer in range(model.layers):
            tick("heads masked", first * model.layers + layer * len(some), len(passages) * model.layers)
            stream = Start(layer).read_stream(record)
            layers.append(average_log_probability(WindowedPass(model, layer, stream, window).run(tokens), some))
        groups = torch.stack(layers).permute(2, 0, 1).numpy()
        masked.append(groups[..., :-1])
        whole.append(groups[..., -1:])
    return np.concatenate(masked), np.concatenate(whole)


def read_patterns(record: Record, layers: int) -> Float[Tensor, "batch layer head query_pos key_pos"]:
    """Attention of every head."""
    return torch.stack([record.pattern[layer] for layer in range(layers)], dim=1)


def measure_retrieval(model: Model, passages: Sequence[Passage], batch: int, tick: Tick) -> NDArray[np.float64]:
    """Share of targets at whose prediction a head attends most to the same token earlier, [text layer head].

    Raises UserError when a target does not stand earlier in its text: there is nothing to copy.
    """
    found = np.zeros((len(passages), model.layers, model.heads))
    for first in range(0, len(passages), batch):
        some = passages[first : first + batch]
        tick("attention to what is copied", first, len(passages))
        record, _ = record_run(model, pad_tokens([passage.ids for passage in some]), NOTHING, attention=True)
        best = read_patterns(record, model.layers).argmax(-1).cpu()
        for place, passage in enumerate(some):
            for target in passage.targets:
                sources = [p for p in range(target) if passage.ids[p] == passage.ids[target]]
                if not sources:
                    raise UserError(f"text {first + place + 1} does not say its answer, so no head could copy it")
                hit = torch.isin(best[place, :, :, target - 1], torch.tensor(sources))
                found[first + place] += hit.double().numpy() / len(passage.targets)
    return found


def measure_induction(model: Model, count: int, batch: int, seed: int, tick: Tick) -> NDArray[np.float64]:
    """Attention to the token after the last time, mean over the second half of `count` repeated sequences."""
    length = min(SEQUENCE, (model.context - 1) // 2)
    draw = np.random.default_rng(seed)
    special = set(model.tokenizer.all_special_ids)
    plain = np.array([token for token in range(model.d_vocab) if token not in special])
    start = list(model.tokenizer("")["input_ids"])[:1]
    found = []
    for first in range(0, count, batch):
        tick("random sequences that come twice", first, count)
        halves = [draw.choice(plain, length, replace=False).tolist() for _ in range(min(batch, count - first))]
        tokens = torch.tensor([start + half + half for half in halves])
        record, _ = record_run(model, tokens, NOTHING, attention=True)
        patterns = read_patterns(record, model.layers)
        # From the second time on; what stood `length - 1` before is the token after the first time.
        diagonal = patterns.diagonal(offset=1 - length, dim1=-2, dim2=-1)[..., len(start) + 1 :]
        found.append(diagonal.double().mean(-1).cpu().numpy())
    return np.concatenate(found)


def measure_matching(model: Model, passages: Sequence[Passage], batch: int, tick: Tick) -> NDArray[np.float64]:
    """Attention, at the prediction of each target, to tokens after earlier times of the last token, [text layer head].

    The induction score on texts that repeat something by themselves. A target whose last token did not occur before
    counts as 0.
    """
    found = np.zeros((len(passages), model.layers, model.heads))
    for first in range(0, len(passages), batch):
        some = passages[first : first + batch]
        tick("attention after earlier times", first, len(passages))
        record, _ = record_run(model, pad_tokens([passage.ids for passage in some]), NOTHING, attention=True)
        patterns = read_patterns(record, model.layers).double().cpu().numpy()
        for place, passage in enumerate(some):
            for target in passage.targets:
                last = passage.ids[target - 1]
                sources = [p + 1 for p in range(target - 1) if passage.ids[p] == last]
                found[first + place] += patterns[place, :, :, target - 1][..., sources].sum(-1) / len(passage.targets)
    return found


def estimate_heads(values: Float[np.ndarray, "text layer head"], seed: int) -> list[list[Estimate]]:
    """Mean of every head over texts, with its interval, by layer and head."""
    flat = values.reshape(len(values), -1)
    means = np.stack([flat[places].mean(axis=0) for places in draw_places(len(values), seed)])
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    mean = flat.mean(axis=0)
    rows = [Estimate(float(m), len(values), float(a), float(b)) for m, a, b in zip(mean, low, high, strict=True)]
    heads = values.shape[2]
    return [rows[start : start + heads] for start in range(0, len(rows), heads)]


def correlate_heads(
    first: Float[np.ndarray, "text layer head"], second: Float[np.ndarray, "text2 layer head"], seed: int
) -> Estimate | None:
    """Spearman's rank correlation of two scores over heads (`n` of them), its interval over resampled texts of both.

    None where a score is the same for all heads.
    """
    ranks = []
    for place, values in enumerate((first, second)):
        flat = values.reshape(len(values), -1)
        means = [flat.mean(axis=0)] + [flat[p].mean(axis=0) for p in draw_places(len(flat), seed + place)]
        ranks.append(rankdata(np.stack(means), axis=1))
    centred = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    size = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    if not size.all():
        return None
    values = (centred[0] * centred[1]).sum(axis=1) / size
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return Estimate(float(values[0]), ranks[0].shape[1], float(low), float(high))
