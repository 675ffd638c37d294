"""Answers in four conditions side by side; a click on one makes it the answer or the foil."""

from __future__ import annotations

from dataclasses import dataclass, field

import streamlit as st

from workbench import library
from workbench.answers import Condition, Prediction
from workbench.lens_tables import Token
from workbench.settings import Question, Settings
from workbench.views.figures import draw_probabilities
from workbench.views.tables import tabulate_answers, tabulate_found
from workbench.views.text import format_share, plain, shorten, show_token

SHOWN = 5
ROLES = ["answer", "foil"]
TITLES = {
    "parameters": ":material/psychology: Parameters alone",
    "bank": ":material/account_tree: With memory bank",
    "explicit memory": ":material/bookmark: With explicit memory",
    "text": ":material/article: With text",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its settings and its answers in the four conditions; `tokens` are the prompt's in each."""

    question: Question
    settings: Settings
    conditions: tuple[Condition, ...]
    tokens: dict[str, tuple[Token, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Answer and foil as texts of tokens (empty: left to the workbench); `changed` from what the question says."""

    answer: str
    foil: str
    changed: bool


def find_answer(asked: Asked) -> str:
    """Answer of the question: the fact's, the typed one, else what the parameters alone say."""
    if asked.question.answer:
        return asked.question.answer
    if asked.question.fact:
        facts = library.read_shipped_facts()
        return next((fact.answer for fact in facts if fact.id == asked.question.fact), "")
    return next((c.top[0].text for c in asked.conditions if c.available and c.top), "")


def show_answers(asked: Asked) -> Chosen:
    """The four columns, the bars of answer and foil, and what was chosen by clicks."""
    st.divider()
    head, picker = st.columns([3, 1], vertical_alignment="bottom")
    head.subheader(f"What comes after “{plain(shorten(asked.conditions[0].prompt, 120))}”")
    role = picker.segmented_control("A click on a token makes it the", ROLES, default="foil", required=True, key="role")
    original = find_answer(asked)
    answer = str(st.session_state.get("answer", original))
    foil = str(st.session_state.get("foil", asked.question.foil))
    for column, condition in zip(st.columns(len(asked.conditions)), asked.conditions, strict=True):
        with column.container(border=True, height="stretch"):
            show_condition(condition, role or "foil", (answer, foil))
    show_found(asked)
    show_choice(asked, answer, foil)
    with st.expander("All answers as a table"):
        probability = st.column_config.NumberColumn(format="%.4f", help="Of this token as the next one, n = 1 prompt.")
        st.dataframe(
            tabulate_answers(asked.conditions),
            hide_index=True,
            column_config={"probability": probability},
            alt="Answers in all conditions",
        )
    return Chosen(answer, foil, answer.strip() != original.strip())


def show_condition(condition: Condition, role: str, chosen: tuple[str, str]) -> None:
    """One condition: what was attached, and its best tokens as buttons."""
    st.markdown(f"**{TITLES.get(condition.name, plain(condition.name))}**")
    if not condition.available:
        st.caption(f"Not available: {plain(condition.reason)}")
        return
    st.caption(plain(shorten(condition.source, 90)) if condition.source else "nothing attached")
    for place, prediction in enumerate(list_predictions(condition)):
        show_prediction(condition, place, prediction, role, chosen)


def list_predictions(condition: Condition) -> list[Prediction]:
    """The best tokens, and the asked-for answer when it is not among them."""
    best = list(condition.top[:SHOWN])
    if condition.answer is not None and all(p.token != condition.answer.token for p in best):
        best.append(condition.answer)
    return best


def show_prediction(
    condition: Condition, place: int, prediction: Prediction, role: str, chosen: tuple[str, str]
) -> None:
    """One token with its probability as a bar; clicking the token gives it the role."""
    names = [name for name, text in zip(ROLES, chosen, strict=True) if text and text.strip() == prediction.text.strip()]
    button, bar = st.columns([1, 1], vertical_alignment="center", gap="small")
    clicked = button.button(
        plain(shorten(show_token(prediction.text), 60)) + (f" :gray-badge[{names[0]}]" if names else ""),
        key=f"token-{condition.name}-{place}",
        type="primary" if names == ["answer"] else "secondary",
        width="stretch",
        help=f"Token id {prediction.token}. Make this the {role}."
        if prediction.token >= 0
        else f"Make this the {role}.",
    )
    bar.progress(min(max(prediction.probability, 0.0), 1.0), text=format_share(prediction.probability))
    if clicked:
        st.session_state[role] = prediction.text
        st.rerun()


def show_found(asked: Asked) -> None:
    """The memories that were found for the prompt, with their cosine and where they are from."""
    found = [one for condition in asked.conditions for one in condition.found if one.text]
    if not found:
        return
    st.caption("Explicit memories that the prompt reads")
    st.dataframe(
        tabulate_found(found),
        hide_index=True,
        key="found",
        column_config={"cosine": st.column_config.NumberColumn(format="%.3f", help="Of sentence vectors")},
        alt="Explicit memories that were found",
    )


def show_choice(asked: Asked, answer: str, foil: str) -> None:
    """Answer and foil in words, and their probability in every condition."""
    tokens = {p.text.strip(): p.token for c in asked.conditions for p in [*c.top, *([c.answer] if c.answer else [])]}
    wanted = [text for text in (answer, foil) if text.strip() in tokens]
    left, right = st.columns([1, 2], vertical_alignment="center")
    with left:
        st.metric("Answer", plain(shorten(answer.strip(), 60)) or "none yet")
        st.metric(
            "Foil",
            plain(shorten(foil.strip(), 60)) or "chosen for you",
            help="The answer to compare with. Unless you click one it comes from another fact of the same relation, "
            "or is the model's next best token.",
        )
    if wanted:
        figure = draw_probabilities(
            asked.conditions, [show_token(text) for text in wanted], [tokens[text.strip()] for text in wanted]
        )
        right.caption("Next-token probability; no bar: not among the most probable tokens of that condition.")
        right.plotly_chart(
            figure,
            key="bars",
            alt="Probability of answer and foil in every condition",
            config={"displayModeBar": False},
        )
