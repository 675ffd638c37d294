"""Blocking: bank levels, memories or the text of a study taken away, the question asked again, every answer kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from pages.memory_forms import share_engine
from pages.progress import watch
from pages.session import get_places, is_busy, submit
from probes.errors import UserError
from probes.progress import Tick
from workbench import library
from workbench.ledgers.trials import GENERIC, NOTHING, OWN, Change
from workbench.settings import read_question, restore_settings
from workbench.studies import Level, Study, load_study, save_study
from workbench.views.ledgers import tabulate_answers
from workbench.views.text import plain, show_line

if TYPE_CHECKING:
    from workbench.pipeline import Engine


def offer_trials(study: Study) -> None:
    """What to block, the button, and all answers so far."""
    slot = f"trying-{study.name}"
    st.caption("Take blocks away or give them back, and ask again. Answers are added to the table and kept.")
    change = choose_change(study)
    done = [one.name for one in study.answers]
    label = "Ask again"
    pressed = st.button(
        label,
        key=f"try-{study.name}",
        icon=":material/replay:",
        disabled=is_busy(slot) or change.words in done,
        help="One pass of the model with what is chosen above.",
    )
    st.caption(plain(f"Chosen: {change.words}" + ("; asked already, see the table." if change.words in done else "")))
    if pressed:
        start_trial(study, change, slot)
    if watch(slot) is not None:
        st.rerun()
    show_answers(study)


def show_answers(study: Study, first: int = 0) -> None:
    """Answers as a table; `first` limits them to the first rows."""
    st.dataframe(
        tabulate_answers(study.answers[:first] if first else study.answers),
        hide_index=True,
        key=f"answers-{study.name}-{first}",
        column_config={
            "probability of what it says": st.column_config.NumberColumn(format="%.4f"),
            "probability of the answer": st.column_config.NumberColumn(
                format="%.4f", help="Of the whole answer, the product of its tokens' probabilities; n = 1 question."
            ),
            "change, nats": st.column_config.NumberColumn(
                format="%+.3f", help="Natural log-probability of the whole answer less that of the first row."
            ),
        },
        alt="Answers with some memories blocked",
    )


def choose_change(study: Study) -> Change:
    """One box a bank level, one a memory, one for the text."""
    levels = [choose_level(study, level) for level in study.path]
    entries = [reference for reference in study.references if reference.entry != "text"]
    with st.container(horizontal=True):
        memories = [
            st.checkbox(
                plain(f"block {reference.entry}: {show_line(reference.id)}"),
                key=f"block-{reference.entry}-{study.name}",
                help="Its slots leave the softmax, so the context takes their share of the attention.",
            )
            for reference in entries
        ]
        text = any(reference.entry == "text" for reference in study.references) and st.checkbox(
            "block the text", key=f"block-text-{study.name}", help="The prompt is asked without the text before it."
        )
    return Change(tuple(levels), tuple(memories), text)


def choose_level(study: Study, level: Level) -> str:
    """What a level reads: its own block, nothing, the generic block, or at the last level a sibling's."""
    last = level.level == len(study.path)
    siblings = [(own, facts) for own, facts, _ in level.siblings if own != level.cluster] if last else []
    names = {
        OWN: f"its own cluster {level.cluster}",
        NOTHING: "blocked: writes nothing",
        GENERIC: "blocked: the generic block instead",
        **{str(own): f"sibling {own} ({facts} facts)" for own, facts in siblings},
    }
    chosen = st.selectbox(
        f"Level {level.level} reads",
        list(names),
        format_func=names.__getitem__,
        key=f"level-{level.level}-{study.name}",
        help="Siblings are offered at the deepest level alone: below another cluster lie other clusters.",
    )
    return str(chosen or OWN)


def start_trial(study: Study, change: Change, slot: str) -> None:
    """Queue the question with the change."""
    try:
        settings = restore_settings(study.about["settings"])
        question = read_question(study.about["question"])
        get_places().check_question(question)
    except (UserError, KeyError) as error:
        st.error(plain(f"this study cannot be asked again: {error}"))
        return

    # What was written for a study is attached to the model that is loaded already.
    loaded = replace(settings, memory="auto", memory_ids="") if study.kind == "writing" else settings

    def work(engine: Engine, tick: Tick) -> str:
        from workbench.ledgers.trials import open_written, try_change

        tick("asking again", 0, 1)
        if engine.model.sha256 != study.about["model"]["sha256"]:
            raise UserError("the loaded model is not the one of this study (its hash differs): measure again")
        own = open_written(engine, settings) if study.kind == "writing" else engine
        answer = try_change(own, question, settings, change)
        runs = library.find_runs()
        # Another session may have added to the file since it was opened here.
        fresh = load_study(study.name, runs)
        save_study(replace(fresh, answers=(*fresh.answers, answer)), runs)
        return study.name

    try:
        submit(slot, "Asking again", share_engine(loaded), work)
    except UserError as error:
        st.error(plain(str(error)))
    else:
        st.rerun()
