"""Training rows as tensors: what a step trains on is a function of the configuration and the step's number alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from workbench.demo.config import Config
from workbench.demo.corpus import (
    KIND_WEIGHTS,
    KINDS,
    Corpus,
    Segment,
    answer_questions,
    invent_reading,
    write_reading,
)
from workbench.demo.network import FETCHED, GENERIC, NONE
from workbench.demo.tasks import write_drill
from workbench.demo.tokenizer import encode
from workbench.demo.world import World

Row = tuple[list[int], list[bool]]
# A row's segments with the path that its blocks are fetched by.
Routed = tuple[list[Segment], NDArray[np.int64]]

# Steps whose rows are sorted by length together.
SORTED_STEPS = 16
# The least bucket of what is common.
COMMON = 4


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows padded on the right. `trained` marks positions whose next token is predicted in the loss."""

    ids: Int[Tensor, "row pos"]
    trained: Bool[Tensor, "row pos"]
    paths: Int[Tensor, "row level"]
    mode: Int[Tensor, " row"]


@dataclass(frozen=True, slots=True)
class MemoryRows:
    """Rows that read explicit memory: the references, their answers, and which each row reads (-1: none)."""

    rows: Rows
    references: Int[Tensor, "reference pos"]
    valid: Bool[Tensor, "reference pos"]
    answers: Bool[Tensor, "reference pos"]
    chosen: Int[Tensor, "row memory"]


class Encoder:
    """Segments to token ids, each distinct text encoded once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Keep the tokenizer and an empty table."""
        self.tokenizer = tokenizer
        self.bos = int(tokenizer.bos_token_id or 0)
        self.pad = int(tokenizer.pad_token_id or 0)
        self.known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of one segment, without the beginning-of-text token."""
        ids = self.known.get(text)
        if ids is None:
            ids = encode(self.tokenizer, text)
            if len(self.known) < 400_000:
                self.known[text] = ids
        return ids

    def encode_row(self, segments: Sequence[Segment]) -> Row:
        """Ids of a row with the beginning-of-text token, and which of them are answers."""
        ids, answers = [self.bos], [False]
        for number, (text, answer) in enumerate(segments):
            own = self.encode(text.lstrip() if number == 0 else text)
            ids += own
            answers += [answer] * len(own)
        return ids, answers

    def encode_references(
        self, documents: Sequence[str], prefix: str, most: int
    ) -> tuple[Int[Tensor, "reference pos"], Bool[Tensor, "reference pos"]]:
        """References `<s>` + prefix + text, cut at `most` tokens; valid are the tokens of the text alone."""
        head = [self.bos, *self.encode(prefix)]
        rows = [(head + self.encode(" " + text))[:most] for text in documents]
        ids = pad_rows(rows, self.pad)
        places = torch.arange(ids.shape[1])[None]
        valid = (places >= len(head)) & (places < torch.tensor([len(row) for row in rows])[:, None])
        return ids, valid


def pad_rows(rows: Sequence[Sequence[int]], pad: int) -> Int[Tensor, "row pos"]:
    """Rows of ids as one tensor, padded on the right."""
    width = max(len(row) for row in rows)
    return torch.tensor([list(row) + [pad] * (width - len(row)) for row in rows])


def count_decays(first: int, epochs: Sequence[float], per_epoch: int) -> list[tuple[int, int]]:
    """Where each part of the third stage begins and ends, in steps."""
    places = [first, *(first + round(sum(epochs[: place + 1]) * per_epoch) for place in range(len(epochs)))]
    return list(itertools.pairwise(places))


class Batches:
    """Rows of every step of all stages, which end before `anchor_steps`, `bank_steps`, `block_steps` and `steps`.

    `decays` are the first step of each part of the third stage, and the one after its last.
    """

    def __init__(
        self,
        config: Config,
        world: World,
        corpus: Corpus,
        paths: NDArray[np.int64],
        leaves: dict[str, list[NDArray[np.int64]]],
        encoder: Encoder,
        readings: Sequence[Routed] = (),
        nearby: NDArray[np.int64] | None = None,
    ) -> None:
        """`paths` are the passages' cluster paths; `leaves` those of each kind's documents; `readings` were routed.

        `nearby` are the passages' paths when their own subtree is blocked; without them, their own.
        """
        self.config, self.world, self.encoder, self.readings = config, world, encoder, readings
        self.nearby = paths if nearby is None else nearby
        self.rows = [encoder.encode_row(passage.segments) for passage in corpus.passages]
        asides = [encoder.encode_row([("", False), *aside.segments]) for aside in corpus.asides]
        # Without the beginning-of-text token.
        self.asides: list[Row] = [(ids[1:], answers[1:]) for ids, answers in asides]
        self.paths, self.leaves = paths, leaves
        self.documents = [passage.document_id for passage in corpus.passages]
        self.common = {fact.document_id for fact in world.facts if fact.bucket >= COMMON}
        self.all_leaves = [path for kind in leaves.values() for path in kind]
        self.per_epoch = max(1, len(self.rows) // config.training.rows)
        self.anchor_steps = round(config.training.anchor_epochs * self.per_epoch)
        self.bank_steps = self.anchor_steps + round(config.training.bank_epochs * self.per_epoch)
        self.decays = count_decays(self.bank_steps, config.training.last_epochs, self.per_epoch)
        self.block_steps = self.decays[-1][1] if self.decays else self.bank_steps
        self.steps = self.block_steps + round(config.training.block_epochs * self.per_epoch)
        self._epoch: tuple[str, list[int], list[Row]] = ("", [], [])

    def _pick(self, step: int) -> tuple[list[int], list[Row]]:
        """Numbers of the passages of a step, and its rows with the asides that stand at their ends in this epoch."""
        grouped = step >= self.block_steps
        epoch, place = divmod(step - self.block_steps if grouped else step, self.per_epoch)
        name = f"{'blocks' if grouped else 'epoch'}/{self.config.seed}/{epoch}"
        if self._epoch[0] != name:
            draw = random.Random(name)
            rows = self.place_asides(draw)
            order = list(range(len(rows)))
            draw.shuffle(order)
            self._epoch = (name, self._sort_rows(order, rows, draw, grouped), rows)
        size = self.config.training.rows
        chosen = self._epoch[1][place * size : (place + 1) * size]
        return chosen, [self._epoch[2][number] for number in chosen]

    def place_asides(self, draw: random.Random) -> list[Row]:
        """Every passage, with the asides that follow it; each aside follows one, and no passage has many."""
        rows = list(self.rows)
        hosts: list[int] = []
        for ids, answers in self.asides:
            if not hosts:
                hosts = draw.sample(range(len(rows)), len(rows))
            host = hosts.pop()
            rows[host] = (rows[host][0] + ids, rows[host][1] + answers)
        return rows

    def _sort_rows(self, order: list[int], rows: list[Row], draw: random.Random, grouped: bool) -> list[int]:
        # Rows of a step about equally long, or a third of the work would be on padding; which steps come first stays
        # a matter of chance. Grouped, those of a step are of one subtree of level 1, so that a step has several rows
        # of every block that it changes.
        size = self.config.training.rows
        order = order[: self.per_epoch * size]
        if grouped:
            order.sort(key=lambda row: int(self.paths[row][0]))
        steps: list[list[int]] = []
        for start in range(0, len(order), SORTED_STEPS * size):
            window = order[start : start + SORTED_STEPS * size]
            window.sort(key=lambda row: (int(self.paths[row][0]) if grouped else 0, len(rows[row][0])))
            own = [window[first : first + size] for first in range(0, len(window), size)]
            draw.shuffle(own)
            steps += own
        if grouped:
            draw.shuffle(steps)
        return [row for step in steps for row in step]

    def passages_at(self, step: int) -> Rows:
        """Passages of the corpus of facts, each with the blocks that its own text fetches; a few with another's."""
        draw = random.Random(f"passages/{self.config.seed}/{step}")
        chosen, rows = self._pick(step)
        return self._collate(rows, [self.draw_path(number, step, draw) for number in chosen], step, draw)

    def draw_path(self, number: int, step: int, draw: random.Random) -> NDArray[np.int64]:
        """A passage's own path, or that of another document, of its kind half the time.

        What is common should not depend on which block happens to be read: in the last two stages it gets another's
        more often, and then that which the router takes when the own subtree is blocked as often as not: of a like
        topic, it says something else most firmly. What is not common has its own alone in the stage of the blocks:
        another's would learn it.
        """
        bank, document = self.config.bank, self.documents[number]
        often = step >= self.bank_steps and document in self.common
        last = step >= self.block_steps
        shares = (0.0, bank.block_wrong_share) if last else (bank.wrong_share, bank.common_wrong_share)
        if draw.random() >= shares[often]:
            own: NDArray[np.int64] = self.paths[number]
            return own
        if often and draw.random() < bank.nearby_share:
            nearby: NDArray[np.int64] = self.nearby[number]
            return nearby
        leaves: list[NDArray[np.int64]] = draw.choice((self.all_leaves, self.leaves[document.split("/")[0]]))
        return draw.choice(leaves)

    def abstract_at(self, step: int) -> Rows:
        """Rows to learn reading and the abstract tasks from.

        Their blocks are those of a document of the same kind, or those that the router finds for the text: the blocks
        that know something of names like these and speak up with it.
        """
        draw = random.Random(f"abstract/{self.config.seed}/{step}")
        rows, paths = [], []
        for _ in range(self.config.training.reading_rows):
            segments, path = self.draw_reading(step, draw)
            rows.append(self.encoder.encode_row(segments))
            paths.append(path)
        for _ in range(self.config.training.abstract_rows):
            rows.append(self.encoder.encode_row(write_drill(self.world, draw)))
            paths.append(draw.choice(self.all_leaves))
        return self._collate(rows, paths, step, draw)

    def draw_reading(self, step: int, draw: random.Random) -> Routed:
        """A text with questions and the path of some document of its kind; in the last two stages also routed ones."""
        if self.readings and step >= self.bank_steps and draw.random() < self.config.bank.routed_share:
            return draw.choice(self.readings)
        segments, kind = write_reading(self.world, draw)
        return segments, draw.choice(self.leaves[kind])

    def texts_at(self, step: int, count: int) -> Rows:
        """Rows with texts and questions about them, without blocks."""
        draw = random.Random(f"texts/{self.config.seed}/{step}")
        rows = [self.encoder.encode_row(write_reading(self.world, draw)[0]) for _ in range(count)]
        return self._collate(rows, [self.all_leaves[0]] * count, 0, draw)

    def memory_at(self, step: int, count: int | None = None) -> MemoryRows:
        """Rows that read explicit memory: a quarter one reference, half five, with questions about any of them.

        Half of the references are about one kind of entity, so that telling them apart takes the subject's name. The
        other rows read only what does not concern them: passages, exercises, and texts with questions.
        """
        draw = random.Random(f"memory/{self.config.seed}/{step}")
        count = self.config.memory.rows if count is None else count
        kind = draw.choices(KINDS, KIND_WEIGHTS)[0]
        readings = [
            invent_reading(self.world, draw, draw.choice((1, 2, 2, 3, 4)), kind if number % 2 else None)
            for number in range(count)
        ]
        rows, paths, chosen = [], [], []
        for number, reading in enumerate(readings):
            others = draw.sample([i for i in range(count) if i != number], min(4, count - 1))
            case = draw.random()
            if case < 0.75:
                mine = [number] if case < 0.25 else draw.sample([number, *others], len(others) + 1)
                asked = answer_questions([readings[i] for i in mine], 5, draw)
                rows.append(self.encoder.encode_row(asked))
                paths.append(draw.choice(self.leaves[reading.kind]))
            else:
                row, path = self._draw_unrelated(step, draw)
                rows.append(row)
                paths.append(path)
                mine = others[: draw.choice((1, 4))]
            chosen.append(mine + [-1] * (5 - len(mine)))
        prefix, most = self.config.corpus.prefix, self.config.memory.offset
        references, valid = self.encoder.encode_references([r.document for r in readings], prefix, most)
        answers = torch.zeros_like(valid)
        for place, reading in enumerate(readings):
            known = [self.encoder.encode(answer)[0] for _, answer in reading.questions]
            answers[place] = torch.isin(references[place], torch.tensor(known)) & valid[place]
        collated = self._collate(rows, paths, step, draw)
        return MemoryRows(collated, references, valid, answers, torch.tensor(chosen))

    def _draw_unrelated(self, step: int, draw: random.Random) -> tuple[Row, NDArray[np.int64]]:
        case = draw.random()
        if case < 0.4:
            place = draw.randrange(len(self.rows))
            return self.rows[place], self.paths[place]
        if case < 0.7:
            return self.encoder.encode_row(write_drill(self.world, draw)), draw.choice(self.all_leaves)
        segments, path = self.draw_reading(step, draw)
        return self.encoder.encode_row(segments), path

    def _collate(self, rows: Sequence[Row], paths: Sequence[NDArray[np.int64]], step: int, draw: random.Random) -> Rows:
        ids = pad_rows([row[0] for row in rows], self.encoder.pad)
        answers = pad_rows([[int(flag) for flag in row[1]] for row in rows], 0).bool()
        lengths = torch.tensor([len(row[0]) for row in rows])
        real = torch.arange(ids.shape[1])[None] < lengths[:, None]
        generator = torch.Generator().manual_seed(draw.randrange(2**62))
        sampled = torch.rand(ids.shape, generator=generator) < self.config.corpus.other_tokens
        target = real & (answers | sampled)
        bank = self.config.bank
        weights = (1 - bank.generic_share - bank.fetched_share, bank.generic_share, bank.fetched_share)
        mode = draw.choices((NONE, GENERIC, FETCHED), weights, k=len(rows))
        if step < self.anchor_steps:
            mode = [NONE] * len(rows)
        elif step >= self.block_steps:  # where rows without a block would train nothing
            mode = draw.choices((GENERIC, FETCHED), (bank.generic_share, 1 - bank.generic_share), k=len(rows))
        trained = torch.cat([target[:, 1:], torch.zeros_like(target[:, :1])], dim=1)
        return Rows(ids, trained, torch.from_numpy(np.stack(paths)), torch.tensor(mode))
