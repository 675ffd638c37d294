"""The tour above the pages: an invitation, one step at a time, and an end whenever the reader wants."""

from __future__ import annotations

import streamlit as st

from pages.session import go
from probes.errors import UserError
from workbench import library
from workbench.views.tour import STEPS, pick_fact, read_step


def lead(number: int) -> None:
    """Go to a step, on its page."""
    st.session_state["tour"] = number
    step, parameters = STEPS[number - 1], {"tour": str(number)}
    # A step on the same page goes on with what is open there, its run and its selected node.
    if step.page == st.session_state.get("page"):
        parameters = st.query_params.to_dict() | parameters
    if step.with_fact:
        try:
            parameters["fact"] = pick_fact(library.read_shipped_facts())
        except UserError:
            # The page itself says that the shipped facts are missing.
            parameters.pop("fact", None)
    go(step.page, **parameters)


def end() -> None:
    """Leave the tour and stay on the page."""
    st.session_state["tour"] = 0
    st.query_params.pop("tour", None)


def show_tour(page: str) -> None:
    """The present step, or on the first page the invitation."""
    linked = read_step(st.query_params.get("tour", ""))
    number = int(st.session_state.setdefault("tour", linked))
    if number:
        show_step(number, page)
    elif page == "ask" and st.button("Take the three-minute tour", icon=":material/explore:", type="tertiary"):
        lead(1)


def show_step(number: int, page: str) -> None:
    """One step with the ways back, on and out."""
    step = STEPS[number - 1]
    with st.container(border=True, key="tour-step"):
        st.markdown(f"**Tour, step {number} of {len(STEPS)}: {step.title}**")
        st.markdown(step.text)
        with st.container(horizontal=True):
            if number > 1 and st.button("Back", key="tour-back"):
                lead(number - 1)
            if page != step.page and st.button("Go to its page", key="tour-page"):
                lead(number)
            if number < len(STEPS) and st.button("Next", key="tour-next", type="primary"):
                lead(number + 1)
            st.button("End the tour", key="tour-end", on_click=end)
