"""Can a fact be separated from a model that lacks it, and imitated: definitions 6 and 7 of Memory^3 as a verdict.

Source: Yang et al. 2024, section 2.2. Realisations are prompts with their answer t_out. A model M lacks the fact when
in any realisation some token of t_out has P <= 1/2. The fact is *separable* when M lacks it and there is a text t*
behind which every token of t_out, in every realisation, has P >= 0.9; it is *imitable* when any realisation can serve
as t*. Claim 1 of the paper: specific knowledge is imitable, thus separable. Branching points (several continuations
that state the fact) are not summed over: t_out is taken as it is spelt.

The definitions ask for *some* model; a verdict here is about the one at hand. Where that does not lack the fact,
nothing follows, and the verdict is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.metrics import build_readout, pick
from circuits.problem import pad_tokens
from probes.attachments import Attachment
from probes.errors import UserError
from probes.forward import Pass
from probes.models import Model
from probes.prompts import encode_answer, refuse_length

# Thresholds as printed in definition 6.
LACKED, KNOWN = 0.5, 0.9


@dataclass(frozen=True, slots=True)
class Realisation:
    """A prompt and the answer that follows it, which together state the fact."""

    prompt: str
    answer: str

    @property
    def text(self) -> str:
        """The statement as a sentence."""
        space = "" if self.prompt.endswith((" ", "\n")) or self.answer[:1].isspace() else " "
        return f"{self.prompt}{space}{self.answer.rstrip(' .')}."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one model says of one fact. Every probability is the lowest over the answer's tokens.

    `without` is the highest over realisations on their own: the model lacks the fact when it is at most 1/2. `best`
    is the lowest over realisations behind the text that does best (`best_text`), `worst` behind the realisation that
    does worst. `imitated` is the share of pairs (t', realisation) with 0.9 or more.
    """

    realisations: int
    without: float
    best: float
    best_text: str
    worst: float
    imitated: float
    lacks: bool
    separable: bool | None
    imitable: bool | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, one key a field."""
        return asdict(self)


def measure_lowest(
    model: Model, attachment: Attachment, prefixes: Sequence[str], realisations: Sequence[Realisation], batch: int
) -> Float[Tensor, "prefix realisation"]:
    """Lowest probability of a token of the answer, behind every prefix ("": none) and prompt; the answer is taught.

    Raises UserError when a text is longer than the model reads.
    """
    rows: list[tuple[list[int], tuple[int, ...]]] = []
    for prefix in prefixes:
        for one in realisations:
            prompt = f"{prefix} {one.prompt}" if prefix else one.prompt
            ids, answer = model.encode(prompt), encode_answer(model, one.answer, prompt)[1]
            refuse_length(model, len(ids) + len(answer) - 1)
            rows.append((ids, answer))
    found = []
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        answers = [answer for _, answer in some]
        readout = build_readout([len(ids) for ids, _ in some], answers, answers)
        with torch.no_grad():
            logits = Pass(model, attachment, ends=readout.positions).run(
                pad_tokens([[*ids, *answer[:-1]] for ids, answer in some])
            )
        logs = pick(logits.float().log_softmax(-1), readout.answers).cpu()
        found.append(logs.masked_fill(readout.weights == 0, 0.0).amin(dim=1).exp())
    return torch.cat(found).view(len(prefixes), len(realisations))


def judge_fact(
    model: Model,
    attachment: Attachment,
    realisations: Sequence[Realisation],
    texts: Sequence[str] = (),
    batch: int = 64,
) -> Verdict:
    """Verdict of the model, with what is attached to it, on a fact of these realisations.

    `texts` are tried as t* beside the realisations. Raises UserError without a realisation, or when a text is too long.
    """
    if not realisations:
        raise UserError("the fact has no prompt, so it has no realisation")
    tried = [*(one.text for one in realisations), *texts]
    return decide(measure_lowest(model, attachment, ["", *tried], realisations, batch), tried)


def decide(lowest: Float[Tensor, "prefix realisation"], tried: Sequence[str]) -> Verdict:
    """Verdict from the lowest probabilities without a prefix (first row) and behind each text that was `tried`.

    The realisations' own texts come first, in their order.
    """
    without, behind = float(lowest[0].max()), lowest[1:]
    own = behind[: lowest.shape[1]]
    worst_of = behind.min(dim=1).values
    lacks, best = without <= LACKED, int(worst_of.argmax())
    return Verdict(
        realisations=lowest.shape[1],
        without=without,
        best=float(worst_of[best]),
        best_text=tried[best],
        worst=float(own.min()),
        imitated=float((own >= KNOWN).double().mean()),
        lacks=lacks,
        separable=bool(worst_of[best] >= KNOWN) if lacks else None,
        imitable=bool(own.min() >= KNOWN) if lacks else None,
    )
