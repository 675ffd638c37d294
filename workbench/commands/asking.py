"""`ask`: what the model answers with its parameters alone, with the bank, with explicit memory, with text."""

from __future__ import annotations

import argparse

from probes.errors import UserError
from workbench import pipeline
from workbench.answers import Condition
from workbench.commands.command import Answer, Command
from workbench.commands.questions import declare_model, declare_question, declare_seed, read_question, read_settings
from workbench.commands.terminal import clean_text, format_table, quote, show_progress

ANSWERS_SHOWN = 5


def declare_ask(parser: argparse.ArgumentParser) -> None:
    """Question, model and memories."""
    declare_question(parser)
    declare_model(parser)
    declare_seed(parser)


def list_row(condition: Condition) -> tuple[object, ...]:
    """Table row of a condition: its name, its best answers, the probability of the asked-for answer."""
    if not condition.available:
        return condition.name, f"not available: {condition.reason}", None
    best = ", ".join(f"{quote(found.text)} {found.probability:.3f}" for found in condition.top[:ANSWERS_SHOWN])
    return condition.name, best, condition.answer.probability if condition.answer else None


def list_steps(condition: Condition) -> str:
    """The tokens of an answer of several, each with its probability after those before; nothing for one of one."""
    steps = ", ".join(f"{quote(step.text)} {step.probability:.3f}" for step in condition.steps)
    return f"{condition.name}, answer token by token: {steps}" if len(condition.steps) > 1 else ""


def ask_question(options: argparse.Namespace) -> Answer:
    """Ask in every condition. Raises UserError, with the reasons, when the model could be asked in none."""
    question, settings = read_question(options), read_settings(options)
    with show_progress() as tick:
        conditions = pipeline.ask(pipeline.open_engine(settings, tick), question, settings, tick)
    if not any(found.available for found in conditions):
        reasons = dict.fromkeys(found.reason for found in conditions)
        raise UserError(f"the model could be asked in no condition: {'; '.join(reasons)}")
    answer = next((found.answer for found in conditions if found.answer), None)
    heading = f"p({quote(answer.text)})" if answer else "p(answer)"
    table = format_table(("condition", "next token, by probability", heading), list(map(list_row, conditions)), 120)
    steps = [line for found in conditions if (line := list_steps(found))]
    sources = [f"{found.name}: {clean_text(found.source)}" for found in conditions if found.source]
    return Answer(
        {"question": question.to_json(), "conditions": [found.to_json() for found in conditions]},
        "\n".join([table, *sources, *steps]),
    )


ASK = Command(
    "ask",
    "Ask in four conditions: parameters alone, with the bank, with explicit memory, with text in the prompt.",
    'memory-circuits ask --prompt "The capital of France is" --answer " Paris"',
    declare_ask,
    ask_question,
)
