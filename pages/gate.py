"""The password that a shared server may ask for before any page is shown."""

from __future__ import annotations

import os
import threading
import time

import streamlit as st

from workbench.passwords import LONGEST, PASSWORD, check_password

# Seconds that every wrong try takes, one after the other for all who try.
PENALTY = 1.0


@st.cache_resource(show_spinner=False)
def get_turn() -> threading.Lock:
    """The lock that lets one password be tried at a time on this server."""
    return threading.Lock()


def require_password() -> None:
    """Ask for the password until it was given in this session; the script stops here until then."""
    hashed = os.environ.get(PASSWORD, "")
    if not hashed or st.session_state.get("let-in") == hashed:
        return
    st.title("memory-circuits")
    with st.form("password"):
        typed = st.text_input("Password", type="password", max_chars=LONGEST)
        sent = st.form_submit_button("Open", type="primary")
    if sent:
        with get_turn():
            right = check_password(typed, hashed)
            time.sleep(0 if right else PENALTY)
        if right:
            st.session_state["let-in"] = hashed
            st.rerun()
        st.error("This is not the password. It stands in the file that the app was started with.")
    st.stop()
