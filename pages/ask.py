"""Ask: choose a fact or type a prompt, see what the model answers in four conditions, trace one answer."""

from __future__ import annotations

import streamlit as st

from pages.answers import Asked, show_answers
from pages.lenses import offer_lens, show_prompts
from pages.progress import watch
from pages.question import choose_question, choose_settings, require_whole
from pages.session import go, is_busy, submit
from pages.tracing import offer_trace
from probes.errors import UserError
from probes.progress import Tick
from workbench import lens_tables, pipeline
from workbench.engine import Engine
from workbench.settings import Question, Settings
from workbench.views.text import plain


def start_asking(question: Question, settings: Settings) -> None:
    """Queue the question; the four conditions come back as an `Asked`."""

    def work(engine: Engine, tick: Tick) -> Asked:
        conditions = pipeline.ask(engine, question, settings, tick)
        tokens = {one.name: lens_tables.split_prompt(engine, one.prompt) for one in conditions if one.available}
        return Asked(question, settings, conditions, tokens)

    submit("asking", "Asking", settings, work)


def render() -> None:
    """The page from top to bottom: question, answers, trace."""
    st.title("Where does the answer come from?")
    st.caption(
        "Ask a language model for a fact with its parameters alone, with its memory bank, with explicit memory and "
        "with text in the prompt. Then trace one answer to the components that carry it."
    )
    settings = choose_settings()
    question = choose_question()
    busy = any(is_busy(slot) for slot in ("asking", "tracing", "lens"))
    if st.button("Ask", type="primary", disabled=question is None or busy, icon=":material/forum:") and question:
        try:
            require_whole(settings)
            question.check()
            start_asking(question, settings)
            st.rerun()
        except UserError as error:
            st.error(plain(str(error)))
    watch("asking", into="asked", stale=("answer", "foil", "lens-table"))
    asked = st.session_state.get("asked")
    if asked is not None:
        chosen = show_answers(asked)
        show_prompts(asked)
        offer_lens(asked, chosen)
        offer_trace(asked, chosen)
    if (job := watch("tracing")) is not None:
        go("circuit", run=job.result)


render()
