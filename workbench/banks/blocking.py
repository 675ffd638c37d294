"""Taking blocks of a bank away and measuring what is forgotten: the target facts, their neighbours, everything else.

Source: Pouransari et al. 2025, section 4 (a sixteenth of the bank blocked adversarially). Beside it stands our control,
random blocks of the same number and level. What is blocked writes nothing, or is read as the generic block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.intervals import estimate_mean
from probes.attachments import Attachment, BankBlocks, stack_attachments
from probes.bank import GENERIC, Bank, fetch_blocks
from probes.errors import UserError
from probes.facts import Fact
from probes.models import Model
from probes.progress import Tick, quiet
from probes.prompts import encode_answer
from probes.reading import Reader

# A level, from 1, and a cluster of it.
Block = tuple[int, int]

GROUPS = ("target", "same leaf", "same relation", "everything else")
INSTEAD = ("nothing", "generic")
ROWS = 32


@dataclass(frozen=True, slots=True)
class Blocking:
    """What is blocked: every block of `roots` and, with `below`, of the clusters below them; in words, `name`.

    `whole_level` stands for all clusters of a level, 0 for none.
    """

    name: str
    roots: tuple[Block, ...] = ()
    below: bool = False
    whole_level: int = 0

    def list_levels(self, path: Sequence[int], branching: int) -> tuple[int, ...]:
        """Levels of a path, from 0, whose blocks are blocked."""
        found = []
        for level, cluster in enumerate(path, start=1):
            above = [(up, cluster // branching ** (level - up)) for up in range(1, level if self.below else 0)]
            hit = (level, cluster) in self.roots or any(root in self.roots for root in above)
            if cluster != GENERIC and (hit or level == self.whole_level):
                found.append(level - 1)
        return tuple(found)


def check_block(bank: Bank, block: Block) -> None:
    """Raise UserError unless the bank has a cluster of this level and number."""
    level, cluster = block
    if not 1 <= level <= len(bank.clusters):
        raise UserError(f"level {level} is not in the bank: it has levels 1 to {len(bank.clusters)}")
    if not 0 <= cluster < bank.clusters[level - 1]:
        raise UserError(f"cluster {cluster} is not in level {level} of the bank (0..{bank.clusters[level - 1] - 1})")


def draw_control(bank: Bank, blocking: Blocking, generator: np.random.Generator) -> Blocking | None:
    """As many random clusters of the same levels that are not blocked; None where a whole level is."""
    if blocking.whole_level or not blocking.roots:
        return None
    roots = []
    for level in sorted({level for level, _ in blocking.roots}):
        own = {cluster for at, cluster in blocking.roots if at == level}
        free = [cluster for cluster in range(bank.clusters[level - 1]) if cluster not in own]
        if len(free) < len(own):
            return None
        roots += [(level, int(cluster)) for cluster in generator.choice(free, size=len(own), replace=False)]
    return replace(blocking, name="random", roots=tuple(roots))


def group_facts(facts: Sequence[Fact], targets: Sequence[Fact]) -> dict[str, list[Fact]]:
    """Every fact in one group: target, else in a target's leaf, else of a target's relation, else the rest."""
    names, leaves, relations = ({key(fact) for fact in targets} for key in _KEYS)
    groups: dict[str, list[Fact]] = {name: [] for name in GROUPS}
    for fact in facts:
        if fact.id in names:
            groups["target"].append(fact)
        elif fact.cluster_path in leaves:
            groups["same leaf"].append(fact)
        else:
            groups["same relation" if fact.relation in relations else "everything else"].append(fact)
    return groups


_KEYS: tuple[Callable[[Fact], Any], ...] = (
    lambda fact: fact.id,
    lambda fact: fact.cluster_path,
    lambda fact: fact.relation,
)


def find_stated(facts: Sequence[Fact], text: str) -> list[Fact]:
    """Facts that a text states: it names subject and object."""
    return [fact for fact in facts if fact.subject in text and fact.object in text]


@dataclass(frozen=True, slots=True)
class Scores:
    """Natural log-probability of every fact's whole answer, and whether greedy decoding gives it, [fact]."""

    log_probability: NDArray[np.float64]
    correct: NDArray[np.bool_]


class Scorer:
    """Scores facts with some of their blocks blocked; blocks of a path are fetched once."""

    def __init__(self, model: Model, bank: Bank, instead: str) -> None:
        if instead not in INSTEAD:
            raise UserError(f"unknown --instead {instead!r}: choose one of {', '.join(INSTEAD)}")
        self.model = model
        self.bank = bank
        self.instead = instead
        self._fetched: dict[tuple[int, ...], BankBlocks] = {}

    def fetch(self, path: tuple[int, ...], blocking: Blocking | None) -> BankBlocks:
        """Blocks of a path without what is blocked."""
        levels = blocking.list_levels(path, self.bank.branching) if blocking is not None else ()
        if levels and self.instead == "generic":
            path, levels = tuple(GENERIC if at in levels else cluster for at, cluster in enumerate(path)), ()
        if path not in self._fetched:
            self._fetched[path] = fetch_blocks(self.bank, self.model, path)
        blocks = self._fetched[path]
        return blocks.silence(levels) if levels else blocks

    def score(
        self,
        facts: Sequence[Fact],
        blocking: Blocking | None,
        tick: Tick,
        label: str,
        path: tuple[int, ...] | None = None,
    ) -> Scores:
        """Scores of these facts, each with its own path (or all with one)."""
        answers = [encode_answer(self.model, fact.answer, fact.prompt)[1] for fact in facts]
        log_probability, correct = np.zeros(len(facts)), np.zeros(len(facts), dtype=bool)
        done = 0
        for rows in batch_by_length([len(answer) for answer in answers]):
            tick(label, done, len(facts))
            blocks = [Attachment(bank=self.fetch(path or facts[row].cluster_path, blocking)) for row in rows]
            prompts = [self.model.encode(facts[row].prompt) for row in rows]
            found = self._run(prompts, [answers[row] for row in rows], stack_attachments(blocks))
            log_probability[rows], correct[rows] = found
            done += len(rows)
        return Scores(log_probability, correct)

    def _run(
        self, prompts: Sequence[list[int]], answers: Sequence[tuple[int, ...]], attachment: Attachment
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
        longest, wanted = max(map(len, rows)), torch.tensor(answers)
        tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        ends = torch.tensor([[len(prompt) - 1 + step for step in range(wanted.shape[1])] for prompt in prompts])
        logits = Reader(self.model, attachment, ends=ends).run(tokens).float().cpu()
        steps = logits.log_softmax(dim=-1).gather(2, wanted.unsqueeze(-1)).squeeze(-1)
        correct = (logits.argmax(dim=-1) == wanted).all(dim=1)
        return steps.sum(dim=1).double().numpy(), correct.numpy()


def batch_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in batches of answers of one length."""
    for length in sorted(set(lengths)):
        rows = [row for row, own in enumerate(lengths) if own == length]
        for start in range(0, len(rows), ROWS):
            yield rows[start : start + ROWS]


def measure_blocking(
    model: Model,
    bank: Bank,
    facts: Sequence[Fact],
    blocking: Blocking,
    targets: Sequence[Fact],
    instead: str = "nothing",
    limit: int = 200,
    draws: int = 5,
    seed: int = 0,
    tick: Tick = quiet,
) -> list[dict[str, Any]]:
    """One row a group of facts: how many, accuracy whole, blocked and with random blocks blocked, and the drop of the
    answer's log-probability (nats; positive is forgotten) with its bootstrap 95% interval, beside the random one's.

    At most `limit` facts of a group are asked, drawn with the seed; the random drop is the mean over `draws`. Raises
    UserError when nothing that any fact reads is blocked.
    """
    generator = np.random.default_rng(seed)
    if not any(blocking.list_levels(fact.cluster_path, bank.branching) for fact in facts):
        raise UserError(f"no fact reads {blocking.name}: nothing would be forgotten, choose another")
    if not targets:
        raise UserError("no fact is a target of this: choose another block, or a text that states a fact")
    controls = [draw_control(bank, blocking, generator) for _ in range(draws)]
    scorer, rows = Scorer(model, bank, instead), []
    for name, group in group_facts(facts, targets).items():
        if not group:
            continue
        chosen = [group[i] for i in sorted(generator.permutation(len(group))[:limit])]
        whole = scorer.score(chosen, None, tick, f"{name}, whole")
        blocked = rescore(scorer, chosen, whole, blocking, tick, f"{name}, blocked")
        random = [rescore(scorer, chosen, whole, control, tick, f"{name}, random") for control in controls if control]
        row: dict[str, Any] = {"group": name, "n": len(chosen), "of": len(group)}
        row |= {"accuracy": float(whole.correct.mean()), "blocked": float(blocked.correct.mean())}
        row["random"] = float(np.mean([scores.correct.mean() for scores in random])) if random else None
        drop = whole.log_probability - blocked.log_probability
        row["drop"], row["interval"] = float(drop.mean()), estimate_mean(drop, generator).interval
        if random:
            drop = whole.log_probability - np.mean([scores.log_probability for scores in random], axis=0)
            row |= {"random_drop": float(drop.mean()), "random_interval": estimate_mean(drop, generator).interval}
        rows.append(row | {"unit": "nats"})
    return rows


def rescore(scorer: Scorer, facts: Sequence[Fact], whole: Scores, blocking: Blocking, tick: Tick, label: str) -> Scores:
    """Scores with something blocked; facts that read none of it keep theirs, for nothing about them changed."""
    hit = [row for row, fact in enumerate(facts) if blocking.list_levels(fact.cluster_path, scorer.bank.branching)]
    log_probability, correct = whole.log_probability.copy(), whole.correct.copy()
    if hit:
        scores = scorer.score([facts[row] for row in hit], blocking, tick, label)
        log_probability[hit], correct[hit] = scores.log_probability, scores.correct
    return Scores(log_probability, correct)
