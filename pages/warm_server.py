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

# Seconds between two collections of garbage.
COLLECT_EVERY = 5.0
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
    while True:
        time.sleep(COLLECT_EVERY)
        gc.collect()


def main() -> None:
    """Serve; the imports and the collecting of garbage go on beside it."""
    from streamlit.web.cli import main as serve

    for name, work in {"warm": warm, "collect": collect_often}.items():
        threading.Thread(target=work, name=f"memory-circuits-{name}", daemon=True).start()
    sys.exit(serve())


if __name__ == "__main__":
    main()
