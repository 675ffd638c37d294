"""Where heads and FFN layers take an answer from: context or parameters, by scores from the literature.

previous token   the attention from a token to the one before it, mean over a text's tokens from the third on (the
                 first two have little else to look at). Olsson et al. 2022.
relevance        Kahardipraja et al. 2025 (Atlas of in-context learning, arXiv 2505.15807): with AttnLRP relevance R_h
                 of a head (what it reads times the coefficient there, summed over positions, in logits),
                 D_h = E_open[R_h(y_cf)] - E_closed[R_h(y_gold)]: open, a text says the counterfactual answer y_cf and
                 the relevance is of y_cf's logit; closed, the prompt stands alone and it is of the true answer's.
                 High: in-context head; low: parametric head. Of answers of several tokens the first counts.
ECS              Sun et al. 2024 (ReDeEP, arXiv 2410.11414): cosine of the last state at the last token with the mean of
                 the last states of those context tokens that a head attends to most from there, `TOP` of them.
PKS              there: Jensen-Shannon divergence, nats, of the logit lens before and after a layer's FFN (bank blocks
                 included), at the last token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.component_effects import Item, batch_items, build_batch
from circuits.problem import record_run
from circuits.relevance import RelevancePass, freeze_norms
from probes.adapters import adapt_model
from probes.attachments import Attachment
from probes.errors import UserError
from probes.forward import write_mlp
from probes.lens import unembed
from probes.models import Model
from probes.progress import Tick, quiet

# Share of the context's tokens that count as attended to, one at least; as in the paper.
TOP = 0.1


def measure_previous(
    model: Model, texts: Sequence[tuple[int, ...]], tick: Tick = quiet
) -> Float[np.ndarray, "text layer head"]:
    """Attention to the previous token. Raises UserError for a text of fewer than three tokens."""
    found = []
    for done, ids in enumerate(texts):
        tick("attention to the previous token", done, len(texts))
        if len(ids) < 3:
            raise UserError(f"text {done + 1} has {len(ids)} tokens: attention to the previous one needs three")
        record, _ = record_run(model, torch.tensor([ids]), Attachment(), attention=True)
        patterns = torch.stack([record.pattern[layer][0] for layer in range(model.layers)])
        found.append(patterns.diagonal(offset=-1, dim1=-2, dim2=-1)[..., 1:].double().mean(-1).cpu().numpy())
    return np.stack(found)


def measure_relevance(model: Model, items: Sequence[Item], tick: Tick = quiet) -> Float[np.ndarray, "item layer head"]:
    """AttnLRP relevance of every head for the logit of each item's answer (its first token), in logits."""
    found = np.zeros((len(items), model.layers, model.heads))
    done = 0
    for places in batch_items(items):
        tick("relevance of heads", done, len(items))
        tokens, attachment, readout = build_batch([items[place] for place in places])
        frozen = freeze_norms(adapt_model(model, attachment))
        traced = RelevancePass(frozen, attachment, "half", readout.positions)
        logits = traced.run(tokens)
        reads = [traced.record.context_read[layer] for layer in range(model.layers)]
        with torch.enable_grad():
            value = logits[:, 0].float().gather(1, readout.answers[:, :1].to(logits.device)).sum()
        slopes = torch.autograd.grad(value, reads, materialize_grads=True)
        for layer, (read, slope) in enumerate(zip(reads, slopes, strict=True)):
            if layer in traced.record.memory_read:
                read = read + traced.record.memory_read[layer].sum(dim=3)
            found[places, layer] = (read * slope).sum(dim=(1, 3)).detach().double().cpu().numpy()
        done += len(places)
    return found


def contrast_sources(
    model: Model, opened: Sequence[Item], closed: Sequence[Item], tick: Tick = quiet
) -> Float[np.ndarray, "item layer head"]:
    """D_h of each pair: relevance for the text's answer in `opened` less that for the true one in `closed`, in logits.

    Its mean over pairs is D_h. Raises UserError unless there is one of either for each.
    """
    if len(opened) != len(closed) or not opened:
        raise UserError(
            f"{len(opened)} open-book and {len(closed)} closed-book prompts: give one of either for each fact"
        )
    return np.asarray(measure_relevance(model, opened, tick) - measure_relevance(model, closed, tick))


def measure_context_scores(
    model: Model, items: Sequence[Item], contexts: Sequence[tuple[int, int]], tick: Tick = quiet
) -> Float[np.ndarray, "item layer head"]:
    """ECS of every head; `contexts` are where each item's text stands, from a position up to but not including one."""
    found = np.zeros((len(items), model.layers, model.heads))
    for place, (item, (start, stop)) in enumerate(zip(items, contexts, strict=True)):
        tick("external context scores", place, len(items))
        if not 0 <= start < stop <= len(item.ids):
            raise UserError(f"prompt {place + 1} has no text before the question: an external context score needs one")
        record, _ = record_run(model, torch.tensor([item.ids]), item.attachment, attention=True)
        assert record.final_stream is not None
        states = record.final_stream[0].float()
        count = max(1, round(TOP * (stop - start)))
        for layer in range(model.layers):
            best = record.pattern[layer][0, :, -1, start:stop].topk(count, dim=-1).indices + start
            means = states[best].mean(dim=1)
            cosine = torch.nn.functional.cosine_similarity(means, states[-1:].expand_as(means), dim=-1)
            found[place, layer] = cosine.double().cpu().numpy()
    return found


def diverge(first: Float[Tensor, "row d_vocab"], second: Float[Tensor, "row d_vocab"]) -> Float[Tensor, " row"]:
    """Jensen-Shannon divergence of two log-distributions, in nats, from 0 to log 2."""
    middle = torch.logaddexp(first, second) - np.log(2)
    halves = [(part.exp() * (part - middle)).sum(dim=-1) for part in (first, second)]
    return torch.stack(halves).mean(dim=0)


def measure_parameter_scores(
    model: Model, items: Sequence[Item], tick: Tick = quiet
) -> Float[np.ndarray, "item layer"]:
    """PKS of every layer's FFN."""
    found = np.zeros((len(items), model.layers))
    for place, item in enumerate(items):
        tick("parametric knowledge scores", place, len(items))
        record, _ = record_run(model, torch.tensor([item.ids]), item.attachment)
        adapted = adapt_model(model, item.attachment)
        before = torch.stack([record.mlp_stream[layer][0, -1] for layer in range(model.layers)])
        added = [torch.stack(write_mlp(adapted.weights[i], record, i)).sum(dim=0)[0, -1] for i in range(model.layers)]
        with torch.no_grad():
            lens = [unembed(model, rows).float().log_softmax(-1) for rows in (before, before + torch.stack(added))]
        found[place] = diverge(*lens).double().cpu().numpy()
    return found
