"""What a test reads off a page that runs without a browser, and the buttons that it presses."""

from __future__ import annotations

from typing import Any

from streamlit.testing.v1 import AppTest


def press(app: AppTest, label: str) -> AppTest:
    """Press the first button of that label."""
    next(button for button in app.button if button.label == label).click()
    return app.run()


def texts(app: AppTest) -> str:
    """Everything that is written on the page as Markdown, captions and messages."""
    groups = (app.title, app.subheader, app.markdown, app.caption, app.error, app.warning, app.info)
    return "\n".join(str(element.value) for group in groups for element in group)


def find_table(app: AppTest, column: str) -> Any:
    """The first table with that column."""
    return next(frame.value for frame in app.dataframe if column in frame.value.columns)


def list_linked(app: AppTest, name: str) -> list[str]:
    """Values of a parameter of the page's link."""
    value = app.query_params[name]
    return [value] if isinstance(value, str) else list(value)
