"""Text that others wrote: visible, on one line, and without any markup of its own."""

from __future__ import annotations

import pytest

from workbench.views.text import (
    format_score,
    format_share,
    measure_width,
    plain,
    shorten,
    show_line,
    show_token,
)


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" Paris", "·Paris"), ("\n", "⏎"), ("", "∅"), ("\t", "⇥"), ("\x07", "\\x07"), ("\u202e", "\\u202e"), ("é", "é")],
)
def test_tokens_are_visible(token: str, shown: str) -> None:
    assert show_token(token) == shown


def test_a_line_keeps_its_spaces_and_loses_its_breaks() -> None:
    assert show_line("one two\nthree") == "one two⏎three"


@pytest.mark.parametrize("text", ["**b**", "[a](b)", "$x$", "<b>", "`c`", "# h", "~~s~~", "a_b_c", "![i](u)"])
def test_markdown_is_escaped(text: str) -> None:
    written = plain(text)
    for place, character in enumerate(written):
        if character in "*[]()$<>`#~_!":
            assert written[place - 1] == "\\"
    assert written.replace("\\", "").replace("\u2060", "") == text


@pytest.mark.parametrize(
    "text", [":smile:", ":material/home:", ":red[x]", "https://x.org", "www.x.org", "a@b.org", "->"]
)
def test_what_is_recognised_after_escapes_is_broken_up(text: str) -> None:
    assert text not in plain(text).replace("\\", "")
    assert plain(text).replace("\\", "").replace("\u2060", "") == text


def test_shorten_says_that_something_is_missing() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


def test_numbers_carry_sign_and_unit() -> None:
    assert format_score(0.5, "logits") == "+0.500 logits"
    assert format_score(-0.5) == "−0.500"
    assert format_score(0.00042, "nats") == "+0.00042 nats"
    assert format_score(0.0) == "+0.000"


def test_shares_are_never_rounded_to_certainty() -> None:
    assert [format_share(p) for p in (0.0, 0.0004, 0.5, 0.99999, 1.0)] == [
        "0.0 %", "< 0.1 %", "50.0 %", "> 99.9 %", "100.0 %",
    ]  # fmt: skip


def test_wide_scripts_are_wider() -> None:
    assert measure_width("東京", 10) == 20
    assert measure_width("ab", 10) < 20
