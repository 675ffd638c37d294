"""Lens table: at every depth and position, the token that the stream would give next, and how likely the answer is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.progress import Tick, quiet

if TYPE_CHECKING:
    from probes.attachments import Attachment
    from probes.lens import TunedLens
    from workbench.engine import Engine
    from workbench.runs import Run
    from workbench.settings import Question, Settings

# Positions that are unembedded at once: a row of logits is as long as the vocabulary.
ROWS = 64


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a prompt: its text exactly as the tokenizer has it, and its id."""

    text: str
    id: int


@dataclass(frozen=True, slots=True)
class LensTable:
    """What the stream before each layer, and last after them all, predicts at every position, `[depth][position]`.

    `best` is the most probable next token, `probability` its probability; `answer_probability` and `answer_rank` (1 is
    the best) are of the token `answer`. `tokens` and `ids` are the prompt's.
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    best: tuple[tuple[str, ...], ...]
    probability: tuple[tuple[float, ...], ...]
    answer: str
    answer_probability: tuple[tuple[float, ...], ...]
    answer_rank: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, one key a field."""
        return asdict(self)


def restore_table(value: dict[str, Any]) -> LensTable:
    """Table of its JSON object, which obeys the schema of a measurement."""
    grids = {
        name: tuple(map(tuple, value[name])) for name in ("best", "probability", "answer_probability", "answer_rank")
    }
    return LensTable(tokens=tuple(value["tokens"]), ids=tuple(value["ids"]), answer=str(value["answer"]), **grids)


def read_lens_table(
    engine: Engine,
    ids: tuple[int, ...],
    answer: int,
    attachment: Attachment,
    lens: TunedLens | None = None,
    tick: Tick = quiet,
) -> LensTable:
    """Table of one prompt with what is attached, by the logit lens, or through the maps of a tuned one.

    Source: nostalgebraist 2020; Belrose et al. 2023 (arXiv 2303.08112). `answer` is a token id.
    """
    import torch

    from probes.forward import Pass
    from probes.lens import stack_streams, unembed

    whole = Pass(engine.model, attachment)
    whole.run(torch.tensor([ids]))
    streams = stack_streams(whole.record, engine.model.layers)[:, 0]
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in ("best", "value", "answer", "rank")}
    for depth, stream in enumerate(streams):
        tick("lens", depth, len(streams))
        stream = stream if lens is None else lens.apply(depth, stream.float()).to(stream.dtype)
        found: dict[str, list[Any]] = {name: [] for name in rows}
        for piece in stream.split(ROWS):
            with torch.no_grad():
                chances = unembed(engine.model, piece).float().softmax(dim=-1)
            value, best = chances.max(dim=-1)
            own = chances[:, answer]
            found["best"] += [engine.model.decode(token) for token in best.tolist()]
            found["value"] += value.tolist()
            found["answer"] += own.tolist()
            found["rank"] += (1 + (chances > own[:, None]).sum(dim=-1)).tolist()
        for name, values in found.items():
            rows[name].append(tuple(values))
    tokens = tuple(engine.model.decode(token) for token in ids)
    grids = (tuple(rows[name]) for name in ("best", "value", "answer", "rank"))
    best_rows, value_rows, answer_rows, rank_rows = grids
    return LensTable(tokens, ids, best_rows, value_rows, engine.model.decode(answer), answer_rows, rank_rows)


def read_condition(
    engine: Engine, question: Question, settings: Settings, condition: str, answer: str, tick: Tick = quiet
) -> LensTable:
    """Table of a question's prompt in the condition of that name; the first token of the text `answer` is meant.

    Raises UserError where the condition is not available, or the answer is empty.
    """
    from probes.prompts import encode_answer
    from workbench.conditions import list_sides

    side, _, reason = list_sides(engine, question, settings)[2][condition]
    if reason:
        raise UserError(f"the condition {condition} is not available: {reason}")
    whole = side.build_prompt(engine.template)
    wanted = encode_answer(engine.model, answer, whole)[1]
    ids = tuple(engine.model.encode(whole))
    return read_lens_table(engine, ids, wanted[0], engine.attach(side.path, side.memories), None, tick)


def read_run(run: Run, tick: Tick = quiet) -> LensTable:
    """Table of a run's clean prompt, with its memories attached and its answer; opens the run's model.

    Raises UserError when the model or the facts are no longer those of the run, or it has several pairs.
    """
    from workbench.pipeline import open_engine, restore_cases
    from workbench.settings import restore_settings

    if len(run.pairs) > 1:
        raise UserError("a logit lens reads one prompt: trace one question")
    engine = open_engine(restore_settings(run.about["settings"]), tick)
    case = restore_cases(engine, run)[0][0]
    attachment = engine.attach(case.clean.path, case.clean.memories)
    return read_lens_table(engine, tuple(case.pair.clean_ids), case.pair.answer_ids[0], attachment, None, tick)


def split_prompt(engine: Engine, text: str) -> tuple[Token, ...]:
    """Tokens of a prompt as the model reads them. Raises UserError when it is empty or too long."""
    return tuple(Token(engine.model.decode(token), token) for token in engine.model.encode(text))
