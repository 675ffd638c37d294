"""Entry of the browser app: the frame and its pages. `memory-circuits app` starts it.

It stands apart from `pages/`, because Streamlit takes a folder of that name beside its entry for its own navigation.
"""

from __future__ import annotations

from importlib.resources import files

import streamlit as st

from pages.frame import open_frame
from pages.session import PAGES

st.set_page_config(page_title="memory-circuits", page_icon=str(files("workbench.views") / "icon.svg"), layout="wide")
page = st.navigation(
    [
        st.Page(PAGES / "ask.py", title="Ask", icon=":material/forum:", default=True),
        st.Page(PAGES / "circuit.py", title="Circuit", icon=":material/hub:", url_path="circuit"),
        st.Page(PAGES / "memory.py", title="Memory", icon=":material/account_balance:", url_path="memory"),
        st.Page(
            PAGES / "knowledge.py", title="Specific or abstract", icon=":material/scatter_plot:", url_path="knowledge"
        ),
        st.Page(PAGES / "placement.py", title="Placement", icon=":material/stacks:", url_path="placement"),
        st.Page(PAGES / "runs.py", title="Runs", icon=":material/inventory_2:", url_path="runs"),
        st.Page(PAGES / "sweeps.py", title="Sweeps", icon=":material/table_chart:", url_path="sweeps"),
    ],
    position="top",
)
open_frame(page.url_path or "ask")
page.run()
