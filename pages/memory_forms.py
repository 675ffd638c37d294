"""What to measure on the Memory page: the ledger of an answer, a conflict, or a fact written into explicit memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from pages.question import choose_question, choose_settings
from pages.session import is_busy, submit
from probes.errors import UserError
from probes.facts import Fact
from probes.progress import Tick
from workbench import library
from workbench.settings import METRICS, Question, Settings
from workbench.studies import Study, list_studies, name_study, save_study
from workbench.views.text import plain

if TYPE_CHECKING:
    from workbench.pipeline import Engine

DIVIDE, CONFLICT, WRITE = "Divide an answer", "Let places conflict", "Write a new fact"
TEXT, EXPLICIT, BANK = "text in the prompt", "explicit memory", "memory bank"
# One bank of typed documents a model: memories of another model cannot be read.
BANK_NAME = "memories-{}"
DIGITS = 8

Maker = Callable[["Engine", str, Tick], Study]


def choose_places(settings: Settings) -> Settings:
    """Settings with the places that the answer is divided over, and the metric."""
    left, right = st.columns([3, 1])
    places = left.pills(
        "Places besides the parameters",
        [TEXT, EXPLICIT, BANK],
        selection_mode="multi",
        default=[TEXT, EXPLICIT, BANK],
        key="places",
        persist_state="session",
        help="All combinations of them are run, so each more doubles the work. What each place holds is set under "
        "Model and memories: the fact's own document and memory unless you choose others.",
    )
    metrics = [name for name in METRICS if name != "kl"]
    metric = right.selectbox(
        "Metric",
        metrics,
        format_func=lambda name: METRICS[name].label,
        key="margin",
        persist_state="session",
        help="\n\n".join(
            f"**{METRICS[name].label}** ({METRICS[name].unit}): {METRICS[name].explanation}" for name in metrics
        ),
    )
    return pick_places(replace(settings, metric=metric or "logit-diff"), list(places))


def pick_places(settings: Settings, places: list[str]) -> Settings:
    """Settings in which only these places are attached: the fact's own text and memory where none is named."""
    own = "own" if settings.memory == "auto" else settings.memory
    text = "auto" if settings.text == "none" else settings.text
    return replace(
        settings,
        text=text if TEXT in places else "none",
        memory=own if EXPLICIT in places else "none",
        bank=settings.bank if BANK in places else "none",
    )


def share_engine(settings: Settings) -> Settings:
    """Settings under which the model is loaded: the same for all studies of a model, whichever places they attach."""
    memory = "auto" if settings.memory in ("own", "none") else settings.memory
    return replace(settings, memory=memory, bank="auto" if settings.bank == "none" else settings.bank)


def start_study(kind: str, words: str, settings: Settings, make: Maker) -> None:
    """Queue a study; its name comes back when it is saved."""

    def work(engine: Engine, tick: Tick) -> str:
        runs = library.find_runs()
        name = name_study(kind, words, list_studies(runs))
        study = make(engine, name, tick)
        tick("saving", 0, 1)
        save_study(study, runs)
        return name

    try:
        submit("studying", "Measuring", share_engine(settings), work)
    except UserError as error:
        st.error(plain(str(error)))
    else:
        st.rerun()


def offer_study() -> None:
    """Model, kind of study, its form and its button."""
    settings = choose_settings()
    kind = st.segmented_control(
        "What to do",
        [DIVIDE, CONFLICT, WRITE],
        default=DIVIDE,
        required=True,
        key="study-kind",
        persist_state="session",
    )
    if kind == WRITE:
        offer_writing(settings)
    elif kind == CONFLICT:
        offer_conflict(settings)
    else:
        offer_division(settings)


def press(label: str, ready: bool, help_text: str) -> bool:
    """The form's button; off while something is missing or a study is being made."""
    return st.button(
        label,
        type="primary",
        icon=":material/account_balance:",
        disabled=not ready or is_busy("studying"),
        help=help_text,
        key="measure-study",
    )


def offer_division(settings: Settings) -> None:
    """The ledger of a fact or a prompt."""
    settings = choose_places(settings)
    question = choose_question()
    if question is not None and question.prompt and not question.answer:
        st.caption("Type the answer too: its margin is what is divided.")
        question = None
    explanation = "Runs every combination of places exactly and divides the answer's margin over them (Shapley values)."
    if press("Divide", question is not None, explanation) and question is not None:
        start_study("ledger", question.words, settings, make_division(question, settings))


def make_division(question: Question, settings: Settings) -> Maker:
    """The work of `offer_division`."""

    def make(engine: Engine, name: str, tick: Tick) -> Study:
        from workbench.ledgers.studying import study_question

        return study_question(engine, name, question, settings, tick)

    return make


def offer_conflict(settings: Settings) -> None:
    """A fact whose text and memory say other things than the parameters learned."""
    question = choose_question()
    if question is not None and not question.fact:
        st.info("A conflict is about a shipped fact and its document: choose one under “A shipped fact”.")
        return
    left, right = st.columns(2)
    text = left.text_input(
        "The text says",
        key="text-says",
        persist_state="session",
        placeholder="another answer; empty: no text",
        help="The fact's document before the prompt, with this answer in place of its own.",
    )
    memory = right.text_input(
        "The explicit memory says",
        key="memory-says",
        persist_state="session",
        placeholder="another answer; empty: no memory",
        help="A memory written from the fact's document with this answer. Parameters and bank say what they learned.",
    )
    ready = question is not None and bool(text.strip() or memory.strip())
    if press("Let them conflict", ready, "Divides each answer's own log-probability; the likeliest wins.") and question:
        start_study("conflict", question.words, settings, make_conflict(question, (text, memory), settings))


def make_conflict(question: Question, says: tuple[str, str], settings: Settings) -> Maker:
    """The work of `offer_conflict`."""

    def make(engine: Engine, name: str, tick: Tick) -> Study:
        from workbench.ledgers.studying import study_conflict

        return study_conflict(engine, name, question, says, settings, tick)

    return make


def invent_example(facts: Sequence[Fact]) -> dict[str, str]:
    """A document and question of nobody: a shipped one under a name that two other subjects lend; empty without any.

    The shipped model knows the words of its own world alone, so a new fact is best said in these.
    """
    stated = [fact for fact in facts if fact.split == "never-seen" and fact.subject in fact.document]
    known = {fact.subject for fact in facts}
    for fact in stated:
        for other in stated:
            subject = " ".join([*fact.subject.split()[:-1], other.subject.split()[-1]])
            if subject not in known and fact.subject in fact.prompt and fact.object in fact.document:
                return {
                    "document": fact.document.replace(fact.subject, subject),
                    "document-prompt": fact.prompt.replace(fact.subject, subject),
                    "document-answer": fact.answer.strip(),
                    "document-foil": "",
                }
    return {}


def fill_in(example: dict[str, str]) -> None:
    """Put an example into the form."""
    st.session_state.update(example)


def offer_example() -> None:
    """Button that fills the form in, where there are facts to make an example of."""
    try:
        example = invent_example(library.read_shipped_facts())
    except UserError:
        return
    if example:
        st.button(
            "Fill in an example",
            key="example",
            icon=":material/edit_note:",
            on_click=fill_in,
            args=(example,),
            help="A subject of the shipped model's world that no document names.",
        )


def offer_writing(settings: Settings) -> None:
    """A document to write into explicit memory, and a question about it."""
    offer_example()
    document = st.text_area(
        "Document",
        key="document",
        height=100,
        persist_state="session",
        placeholder="The capital of Norland is Oskarville.",
        help="It is written as the model's other memories are, into a bank of your own beside the runs, which the Ask "
        "page offers too. Long documents become several memories, one each 128 tokens.",
    )
    prompt = st.text_input(
        "Question",
        key="document-prompt",
        persist_state="session",
        placeholder="The capital of Norland is",
        help="It ends right before the answer, without a space at its end.",
    )
    first, second = st.columns(2)
    answer = first.text_input(
        "Answer (optional)",
        key="document-answer",
        persist_state="session",
        help="With it you see its probability, and its margin is divided.",
    )
    foil = second.text_input(
        "Foil (optional)",
        key="document-foil",
        persist_state="session",
        help="The answer to compare with; else what the model says without the memory.",
    )
    question = Question(prompt=prompt, answer=answer, foil=foil)
    ready = bool(document.strip() and prompt.strip())
    if press("Write and ask", ready, "Writes the memory, then asks without it, with it, and with the text instead."):
        start_study("writing", prompt, settings, make_writing(document, question, settings))


def make_writing(document: str, question: Question, settings: Settings) -> Maker:
    """The work of `offer_writing`; a model that has no memories takes the paper's way of writing."""
    runs = library.find_runs()

    def make(engine: Engine, name: str, tick: Tick) -> Study:
        from workbench.ledgers.studying import study_writing

        folder = runs / BANK_NAME.format(engine.model.sha256[:DIGITS])
        return study_writing(engine, name, document, question, settings, folder, tick)

    return make
