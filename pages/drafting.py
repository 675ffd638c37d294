"""What a reader made of the graph and did not save: kept as a draft of this session, brought back by a reload."""

from __future__ import annotations

import streamlit as st

from probes.errors import UserError
from workbench import library
from workbench.drafts import begin_draft, drop_draft, load_draft, save_draft
from workbench.runs import Run
from workbench.view_files import SavedView
from workbench.views.curation import Curation
from workbench.views.text import plain

DRAFT = "draft"


def read_linked(run: Run, name: str) -> Curation | None:
    """The draft that the link names, once, where it is not this session's own; None: there is none to open."""
    linked, place = str(st.query_params.get(DRAFT, "")), f"draft-opened-{name}"
    if not linked or linked in (st.session_state.get(f"draft-{name}"), st.session_state.get(place)):
        return None
    st.session_state[place] = linked
    try:
        draft, _ = load_draft(library.find_runs() / name, linked, run.circuit)
    except UserError as error:
        st.warning(plain(str(error)))
        st.query_params.pop(DRAFT, None)
        return None
    st.toast("What you had not saved is back.", icon=":material/history:")
    return draft.curation


def mark_saved(name: str, curation: Curation) -> None:
    """From here on only what differs from this curation, which a view holds, is kept as a draft."""
    st.session_state[f"saved-{name}"] = curation


def keep_draft(name: str, edges: int, selected: str, present: Curation) -> bool:
    """Keep what is not saved, or drop the draft when everything is; whether there is something unsaved."""
    unsaved = present != st.session_state.get(f"saved-{name}", Curation())
    folder, number = library.find_runs() / name, str(st.session_state.get(f"draft-{name}", ""))
    if not unsaved:
        if number:
            drop_draft(folder, number)
        st.session_state.pop(f"drafted-{name}", None)
        st.query_params.pop(DRAFT, None)
        return False
    if st.session_state.get(f"drafted-{name}") != present:
        number = number or begin_draft()
        try:
            save_draft(folder, number, SavedView(edges, selected, present))
        except UserError as error:
            st.warning(f"{plain(str(error))}. A reload loses what is not saved.")
            return False
        st.session_state[f"draft-{name}"], st.session_state[f"drafted-{name}"] = number, present
    if st.query_params.get(DRAFT) != number:
        st.query_params[DRAFT] = number
    return True
