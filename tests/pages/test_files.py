"""Downloads of the Circuit page: one chooser over all formats that this installation writes."""

from __future__ import annotations

from collections.abc import Callable

from streamlit.testing.v1 import AppTest

from pages.explorer import list_exports
from workbench.exports import EXPORTS


def test_every_format_can_be_chosen(open_page: Callable[..., AppTest], saved: str) -> None:
    app = open_page("circuit", run=saved)
    app.session_state[f"tabs-{saved}"] = "Download and replay"
    app.run()
    assert not app.exception
    (box,) = [box for box in app.selectbox if box.label == "Other formats"]
    assert list(box.options) == [export.label for export in list_exports()]
    for label in ("Page (HTML)", EXPORTS["attribution-graph"].label):
        box.set_value(label).run()
        assert not app.exception
        assert label in [button.label for button in app.get("download_button")]
