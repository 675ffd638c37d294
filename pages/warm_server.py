"""Streamlit's own command with a head start: what a page needs is imported while the server and the browser get ready.

`python -m pages.warm_server run app.py ...` takes the arguments of `streamlit run`. Torch is not among it: a saved
run is opened without.
"""

from __future__ import annotations

import gc
import importlib
import sys
import threading
import time

# Seconds between two collections of garbage, and between two that look at what was set aside too.
COLLECT_EVERY, COLLECT_ALL_EVERY = 5.0, 1800.0
# Seconds of a collection after which what is left is set aside: an imported model's libraries are 300,000 objects.
LONG = 0.05
# What a link's first page needs, in the order in which it does; then what is slow to import and wanted soon after.
LIBRARIES = (
    "workbench.runs",
    "workbench.jobs",
    "workbench.places",
    "workbench.passwords",
    "workbench.drafts",
    "workbench.checks",
    "workbench.interrupting",
    "workbench.views.tour",
    "workbench.views.links",
    "workbench.views.graph_component",
    "workbench.views.layout",
    "streamlit.material_icon_names",
    "streamlit.components.v2.manifest_scanner",
    "streamlit.runtime.scriptrunner.magic_funcs",
    "pandas",
    "pyarrow",
    "workbench.quality",
    "workbench.size_curves",
    "workbench.view_files",
    "workbench.views.comparing",
    "workbench.views.curves",
    "workbench.views.interventions",
    "jsonschema",
    "networkx",
    "workbench.exports",
)


def warm() -> None:
    """Import the libraries, and draw a figure once: plotly builds what it draws with at the first one.

    Collecting garbage takes as long as there are objects to look through: what was imported stays and is taken out of
    it.
    """
    for name in LIBRARIES:
        importlib.import_module(name)
    from workbench.views.figures import draw_nothing

    draw_nothing()
    gc.collect()
    gc.freeze()


def collect_often() -> None:
    """Collect garbage every few seconds, however many pages run.

    Streamlit would do it after every run of every page and fragment. With a model in the heap that takes longer than
    the run itself, and nothing else runs meanwhile: four pages that showed progress left the worker next to no time.
    """
    whole = time.monotonic()
    while True:
        time.sleep(COLLECT_EVERY)
        whole = collect(whole)


def collect(whole: float) -> float:
    """Collect garbage once; returns the moment of the last collection of everything, which was `whole`.

    No thread runs meanwhile, and on cores that many share a quarter of a second becomes one in which no Cancel is
    heard. So what a long collection leaves is taken out of the next ones; what becomes garbage there stays until
    everything is looked at again, now and then.
    """
    now = time.monotonic()
    every = now - whole > COLLECT_ALL_EVERY
    if every:
        gc.unfreeze()
    gc.collect()
    if every or time.monotonic() - now > LONG:
        gc.freeze()
    return now if every else whole


def skip_looks_at_running_pages() -> None:
    """Let no timer of a page ask for a run while the page is being run.

    A page that shows work in progress looks at it every second. When such a look arrives just as the script of the
    whole page ends, Streamlit 1.67 begins another runner for it and no longer hears the first, whose last elements may
    still be on their way: a page without its lower end, about one in a hundred where many work at once. The run that
    goes on shows what the look would have shown, and the timer comes again.
    """
    from streamlit.proto.ClientState_pb2 import ClientState
    from streamlit.runtime.app_session import AppSession, AppSessionState

    request = AppSession.request_rerun

    def request_unless_running(session: AppSession, client_state: ClientState | None) -> None:
        running = session._state is AppSessionState.APP_IS_RUNNING
        if not (running and client_state is not None and client_state.is_auto_rerun):
            request(session, client_state)

    AppSession.request_rerun = request_unless_running  # type: ignore[method-assign, assignment]


def main() -> None:
    """Serve; the imports and the collecting of garbage go on beside it."""
    from streamlit.web.cli import main as serve

    for name, work in {"warm": warm, "collect": collect_often}.items():
        threading.Thread(target=work, name=f"memory-circuits-{name}", daemon=True).start()
    skip_looks_at_running_pages()
    sys.exit(serve())


if __name__ == "__main__":
    main()
