"""The four conditions of a question: the same prompt with nothing, with the bank, with explicit memory, with text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from probes.attachments import Attachment
from probes.errors import UserError
from probes.facts import Fact, find_fact
from probes.models import Model
from probes.progress import Tick
from probes.prompts import encode_answer, find_named_fact, refuse_length
from probes.reading import Reader
from workbench.answers import Condition, Found, Prediction
from workbench.cases import Side, choose_memories, choose_path, read_text
from workbench.engine import Engine
from workbench.settings import Question, Settings

# Predictions shown in each condition.
SHOWN = 10


def answer_conditions(engine: Engine, question: Question, settings: Settings, tick: Tick) -> tuple[Condition, ...]:
    """Answers in the four conditions; one that cannot be asked says why."""
    question.check()
    if question.several:
        raise UserError("one question is asked at a time: give --fact once, or --prompt")
    prompt, answer, sides = list_sides(engine, question, settings)
    conditions = []
    for done, (name, (side, source, reason)) in enumerate(sides.items()):
        tick("answers", done, len(sides))
        if reason:
            conditions.append(Condition(name, prompt, source=source, reason=reason))
        else:
            conditions.append(answer_side(engine, name, side, answer, source))
    return tuple(conditions)


def list_sides(
    engine: Engine, question: Question, settings: Settings
) -> tuple[str, str, dict[str, tuple[Side, str, str]]]:
    """Prompt and answer of a question, and by condition its side, its source, and why it is not available."""
    fact = find_fact(engine.facts, question.fact) if question.fact else find_named_fact(question.prompt, engine.facts)
    prompt = fact.prompt if question.fact and fact is not None else question.prompt
    answer = question.answer or (fact.answer if question.fact and fact is not None else "")
    plain = Side(prompt)
    sides = {
        "parameters": (plain, "", ""),
        "bank": offer_bank(engine, plain, fact, settings),
        "explicit memory": offer_memory(engine, plain, fact, settings),
        "text": offer_text(plain, fact, settings),
    }
    return prompt, answer, sides


def offer_bank(engine: Engine, side: Side, fact: Fact | None, settings: Settings) -> tuple[Side, str, str]:
    """Side with the bank, its source, and why it is not available."""
    if engine.bank is None:
        return side, "", "no bank is attached to this model"
    try:
        route = choose_path(engine, settings, fact, side.prompt)
    except UserError as error:
        return side, "", str(error)
    return replace(side, path=route.path), route.note, "" if route.path else route.note


def offer_memory(engine: Engine, side: Side, fact: Fact | None, settings: Settings) -> tuple[Side, str, str]:
    """Side with the explicit memories of the fact or found by the prompt, their source, and why there are none."""
    if engine.memories is None:
        return side, "", "no explicit memories are attached to this model"
    try:
        found = choose_memories(engine, settings, fact, side.prompt, always=True)
    except UserError as error:
        return side, "", str(error)
    if not found:
        return side, "", "no explicit memory was written about this subject"
    return replace(side, found=found), f"memory of {', '.join(map(describe_found, found))}", ""


def describe_found(found: Found) -> str:
    """A memory's id, and its cosine with the prompt where it was found by it."""
    return found.id if found.similarity is None else f"{found.id} (cosine {found.similarity:.2f})"


def offer_text(side: Side, fact: Fact | None, settings: Settings) -> tuple[Side, str, str]:
    """Side with a text before the prompt, its source, and why it is not available."""
    choice = "auto" if settings.text == "none" else settings.text
    text = read_text(choice, fact)
    if not text:
        return side, "", "there is no document about this subject: give a text file"
    source = f"document {fact.document_id}" if choice == "auto" and fact is not None else f"file {choice}"
    return replace(side, text=text), source, ""


def answer_side(
    engine: Engine, name: str, side: Side, answer: str, source: str, attachment: Attachment | None = None
) -> Condition:
    """Predictions of the model on one side; the answer is taught, so that one pass predicts each of its tokens.

    `attachment` is read instead of what the side names, where it is given.
    """
    model, prompt = engine.model, side.build_prompt(engine.template)
    text, wanted = encode_answer(model, answer, prompt) if answer else ("", ())
    try:
        ids = model.encode(prompt)
        refuse_length(model, len(ids) + len(wanted[:-1]))
    except UserError as error:
        return Condition(name, prompt, source=source, reason=str(error))
    attachment = attachment or engine.attach(side.path, side.memories)
    logits = Reader(model, attachment).run(torch.tensor([[*ids, *wanted[:-1]]]))
    probabilities = logits[0, len(ids) - 1 :].float().softmax(dim=-1)
    best = [predict(model, probabilities[0], token) for token in probabilities[0].topk(SHOWN).indices.tolist()]
    steps = [predict(model, probabilities[step], token) for step, token in enumerate(wanted)]
    asked = join_steps(text, steps) if steps else None
    return Condition(name, prompt, tuple(best), asked, source, steps=tuple(steps), found=side.found)


def join_steps(text: str, steps: Sequence[Prediction]) -> Prediction:
    """The whole answer as one prediction."""
    if len(steps) == 1:
        return steps[0]
    return Prediction(text, -1, math.prod(step.probability for step in steps))


def predict(model: Model, probabilities: Float[Tensor, " d_vocab"], token: int) -> Prediction:
    """Prediction of one token."""
    return Prediction(model.decode(token), token, float(probabilities[token]))
