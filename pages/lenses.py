"""The prompt's tokens as the model reads them, and the logit lens of an answer in one of the conditions."""

from __future__ import annotations

import streamlit as st

from pages.answers import TITLES, Asked, Chosen
from pages.progress import watch
from pages.readouts import show_lens_table
from pages.session import is_busy, submit
from probes.errors import UserError
from workbench import lens_tables
from workbench.lens_tables import Token
from workbench.views.text import plain, show_token

SLOT = "lens"
# Tokens of a prompt that are drawn as chips; a document may have many more.
MOST = 400


def name_condition(name: str) -> str:
    """Title of a condition without its icon."""
    return TITLES.get(name, name).rpartition(": ")[2] if name in TITLES else name


def write_chip(token: Token) -> str:
    """A token as a badge of Markdown: its text with spaces and line breaks visible, and its id. Odd ones stand out."""
    odd = not token.text.strip() or any(not (letter.isprintable() or letter == " ") for letter in token.text)
    colour = "orange" if odd else "gray"
    return f":{colour}-badge[{plain(show_token(token.text))} {plain(f'#{token.id}')}]"


def show_prompts(asked: Asked) -> None:
    """Tokens of the prompt in every condition; prompts that are the same are shown once."""
    seen: dict[tuple[Token, ...], list[str]] = {}
    for name, tokens in asked.tokens.items():
        seen.setdefault(tokens, []).append(name_condition(name).lower())
    if not seen:
        return
    with st.expander("The prompt as tokens", icon=":material/abc:"):
        st.caption(
            "Each token with its id, by the model's own tokenizer. · is a space, ⏎ a line break, \\x… an invisible "
            "character; orange: nothing but such."
        )
        for tokens, names in seen.items():
            more = f"; the first {MOST} are shown" if len(tokens) > MOST else ""
            st.markdown(f"**{plain(', '.join(names))}**: {len(tokens):,} tokens{more}")
            st.markdown(" ".join(write_chip(token) for token in tokens[:MOST]))


def offer_lens(asked: Asked, chosen: Chosen) -> None:
    """A condition and a button; the lens table of its prompt for the chosen answer."""
    available = [one.name for one in asked.conditions if one.available]
    if not available or not chosen.answer.strip():
        return
    with st.expander("Logit lens: what the stream predicts at every layer", icon=":material/layers:"):
        left, right = st.columns([3, 1], vertical_alignment="bottom")
        name = left.selectbox("Condition", available, format_func=name_condition, key="lens-condition")
        if right.button("Read the layers", disabled=is_busy(SLOT), width="stretch") and name:
            question, settings, answer = asked.question, asked.settings, chosen.answer
            try:
                submit(
                    SLOT,
                    "Logit lens",
                    settings,
                    lambda engine, tick: (
                        name,
                        lens_tables.read_condition(engine, question, settings, name, answer, tick),
                    ),
                )
            except UserError as error:
                st.error(plain(str(error)), icon=":material/error:")
            else:
                st.rerun()
        watch(SLOT, into="lens-table")
        if (found := st.session_state.get("lens-table")) is not None:
            st.markdown(f"**{plain(name_condition(found[0]))}**")
            show_lens_table(found[1], "ask")
