"""Memory: an answer divided over text, memories, bank and parameters; what was read; blocking, writing, conflicts."""

from __future__ import annotations

import streamlit as st

from pages.memory_forms import offer_study
from pages.memory_study import show_study
from pages.progress import watch
from pages.session import go
from probes.errors import UserError
from workbench import library
from workbench.studies import Study, find_study, list_studies, load_study
from workbench.views.text import plain

NEW = "+ new study"


@st.cache_resource(max_entries=8, show_spinner="Opening the study…")
def read_study(name: str, folder: str, stamp: int) -> Study:
    """A study, read again when its file has changed."""
    return load_study(name, library.find_runs())


def open_study(name: str) -> Study:
    """A saved study by its name. Raises UserError when there is none or it is not whole."""
    path = find_study(name, library.find_runs())
    return read_study(name, str(path), path.stat().st_mtime_ns)


def read_name() -> str:
    """The study that a link names, else the one open before."""
    linked = str(st.query_params.get("study", ""))
    name = linked or str(st.session_state.get("study", ""))
    st.session_state["study"] = name
    if name and not linked:
        st.query_params["study"] = name
    return name


def choose_study(name: str) -> None:
    """Box with all saved studies; another one opens, and `new` closes this one."""
    names = [NEW, *list_studies(library.find_runs())]
    index = names.index(name) if name in names else 0
    picked = st.selectbox(
        "Study",
        names,
        index=index,
        key=f"study-{name}",
        help="What was measured is kept beside the runs and opens without a model. `run:` is the ledger of a run.",
    )
    if picked != names[index] or (name and name not in names and picked != NEW):
        st.session_state["study"] = "" if picked == NEW else picked
        if picked == NEW:
            st.query_params.pop("study", None)
            st.rerun()
        go("memory", study=str(picked))


def render() -> None:
    """The page from top to bottom: what is open, or what to measure."""
    name = read_name()
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    left.title("Which memory holds the fact?")
    with right:
        choose_study(name)
    if (job := watch("studying", into="study")) is not None:
        go("memory", study=job.result)
    if name:
        try:
            show_study(open_study(name))
        except UserError as error:
            st.error(plain(str(error)), icon=":material/error:")
            st.caption("Choose another study in the box above, or a new one.")
        return
    st.caption(
        "Divide an answer over the text before it, explicit memories, bank blocks and the model's own parameters; let "
        "them contradict one another; or write a new fact into explicit memory and see it answered."
    )
    offer_study()


render()
