"""What stands above every page: the password where one is asked for, the tour, work that was started elsewhere."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import streamlit as st

from pages.gate import require_password
from pages.graph import SENT
from pages.progress import describe_job
from pages.session import PAGES, adopt_jobs, find_job, link_jobs, list_known, open_jobs
from pages.tour import show_tour
from workbench.jobs import Job
from workbench.views.text import plain

EVERY = 1.0
STYLE = Path(str(files("workbench.views") / "page.css"))


def open_frame(page: str) -> None:
    """Everything above a page; stops the script where the page may not be seen yet."""
    st.html(STYLE)
    require_password()
    st.session_state["page"] = page
    # The whole page is built anew, so its graphs are sent anew; a part of it that runs alone sends what changed.
    st.session_state[SENT] = {}
    if not adopt_jobs():
        st.info("The link names work that this server no longer knows: it was restarted, or much else was done since.")
    link_jobs()
    show_tour(page)
    if list_elsewhere(page):
        show_elsewhere(page)


def list_elsewhere(page: str) -> list[Job]:
    """Jobs of this session that another page shows, and that it has not handed out yet."""
    found = [job for number in list_known() if (job := open_jobs().find(number)) is not None]
    return [job for job in found if job.page not in ("", page) and find_job(job.slot) is job]


@st.fragment(run_every=EVERY)
def show_elsewhere(page: str) -> None:
    """One line for each piece of work of another page: how far it is, the way there, and Cancel."""
    for job in list_elsewhere(page):
        text, link, stop = st.columns([6, 1, 1], vertical_alignment="center")
        text.caption(plain(describe_job(job) if job.active else f"{job.label}: {job.state}"))
        if (path := PAGES / f"{job.page}.py").is_file():
            link.page_link(str(path), label=job.page.capitalize(), icon=":material/arrow_forward:")
        if job.active and stop.button("Cancel", key=f"cancel-elsewhere-{job.slot}", disabled=job.stopping):
            job.cancel()
