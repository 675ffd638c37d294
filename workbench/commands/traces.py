"""`trace`: from a question to the circuit behind its answer, kept as a run."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from probes.errors import UserError
from probes.facts import find_fact
from probes.prompts import find_named_fact
from workbench import pipeline
from workbench.commands.command import Answer, Command
from workbench.commands.part_lists import PARTS_SHOWN, add_parts
from workbench.commands.questions import (
    declare_method,
    declare_model,
    declare_question,
    read_question,
    read_settings,
)
from workbench.commands.summaries import format_summary, summarise_run
from workbench.commands.terminal import show_progress
from workbench.engine import Engine
from workbench.library import find_runs
from workbench.pair_tables import list_questions
from workbench.runs import save_run
from workbench.settings import Question, Settings


def declare_trace(parser: argparse.ArgumentParser) -> None:
    """Question, model and memories, attribution, and where the run goes."""
    declare_question(parser, several=True)
    declare_model(parser)
    declare_method(parser)
    parser.add_argument(
        "--out", metavar="RUN", help="folder of the run; left out, a name made of the question in the runs folder"
    )


def name_run(question: Question, settings: Settings) -> str:
    """Name of a run's folder: words of the question and eight digits that stand for question and settings."""
    words = re.sub(r"[^a-z0-9]+", "-", question.words.casefold()).strip("-")[:48].rstrip("-")
    whole = json.dumps([question.to_json(), settings.to_json()], sort_keys=True)
    return f"{words or 'run'}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def choose_folder(out: str | None, question: Question, settings: Settings) -> Path:
    """Folder of the run to be made. Raises UserError when something is there, before any work is done."""
    folder = Path(out) if out else find_runs() / name_run(question, settings)
    if (folder / "run.json").is_file():
        raise UserError(f"{folder} holds a run already: `memory-circuits show {folder}` shows it, --out names another")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already: choose another --out, or remove it first")
    return folder


def require_own(engine: Engine, questions: Sequence[Question]) -> None:
    """Raise UserError where `--memory own` would attach nothing: an explicit memory was written about none of these."""
    known = engine.facts
    facts = [find_fact(known, one.fact) if one.fact else find_named_fact(one.prompt, known) for one in questions]
    if engine.memories is None or not any(fact and fact.document_id in engine.memories for fact in facts):
        about = repr(questions[0].words[:80]) if len(questions) == 1 else f"any of the {len(questions)} questions"
        raise UserError(
            f"--memory own attaches nothing here, for no explicit memory was written about {about}: give the folder "
            "of a bank of memories, --memory-ids, or --memory auto (--text goes with any of them)"
        )


def trace_question(options: argparse.Namespace) -> Answer:
    """Trace a question, save the run and summarise it."""
    question, settings = read_question(options), read_settings(options)
    questions = list_questions(question, settings)
    folder = choose_folder(options.out, question, settings)
    with show_progress() as tick:
        engine = pipeline.open_engine(settings, tick)
        if settings.memory == "own" and not settings.memory_ids:
            require_own(engine, questions)
        run = pipeline.trace(engine, question, settings, tick)
    save_run(run, folder)
    summary = summarise_run(run, folder)
    text = add_parts(run, PARTS_SHOWN, format_summary(summary), summary)
    return Answer(summary, text)


TRACE = Command(
    "trace",
    "Trace one answer to the components and memories that carry it, and save the run.",
    'memory-circuits trace --prompt "The capital of France is" --answer " Paris" '
    '--counterfactual "The capital of Italy is" --foil " Rome"',
    declare_trace,
    trace_question,
)
