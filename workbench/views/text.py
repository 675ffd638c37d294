"""Text that others wrote, made visible and harmless: tokens, prompts, numbers."""

from __future__ import annotations

import unicodedata

_SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}
_JOINER = "\u2060"
_BREAKABLE = ":.@-<>="


def show_character(character: str) -> str:
    """A character as itself, or as an escape such as `\\x07` when it is invisible or turns the writing direction."""
    category = unicodedata.category(character)
    if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or character == "\ufeff":
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return " " if category == "Zs" else character


def show_line(text: str) -> str:
    """Running text on one line: line breaks as ⏎, invisible characters as escapes, spaces left alone."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character == " " else _SIGNS.get(character) or show_character(character) for character in text
    )


def show_token(text: str) -> str:
    """A token with every space and line break visible: `·Paris`, `⏎`; the empty token as `∅`."""
    return "".join(_SIGNS.get(character) or show_character(character) for character in text) or "∅"


def shorten(text: str, length: int) -> str:
    """At most `length` characters, the end cut off with an ellipsis."""
    return text if len(text) <= length else text[: max(length - 1, 1)].rstrip() + "…"


def plain(text: str) -> str:
    """Markdown that shows exactly `text` on one line: no markup, link, formula, emoji or colour can arise from it.

    Punctuation is escaped; an invisible word joiner breaks what is recognised after escapes are resolved (emoji
    short codes, bare web addresses, arrows).
    """
    pieces = []
    line = show_line(text)
    for index, character in enumerate(line):
        escaped = character.isascii() and not character.isalnum() and character != " "
        pieces.append(f"\\{character}" if escaped else character)
        following = line[index + 1 : index + 2]
        if character in _BREAKABLE and following.strip():
            pieces.append(_JOINER)
    return "".join(pieces)


def measure_width(text: str, size: float) -> float:
    """Estimated width of a line in a sans-serif font of `size` pixels, in pixels; wide scripts count double."""
    units = sum(
        1.0 if unicodedata.east_asian_width(c) in "WF" else 0.38 if c in "·.,:;'il|jtf()! " else 0.6 for c in text
    )
    return units * size


def format_score(score: float, unit: str = "") -> str:
    """A signed number with three significant digits and its unit: `+0.418 logits`."""
    number = f"{score:+.3g}" if score and abs(score) < 0.01 else f"{score:+.3f}"
    return f"{number.replace('-', '−')} {unit}".rstrip()


def format_share(probability: float) -> str:
    """A probability as a percentage that never rounds a possible thing to 0 or a doubtful one to 100."""
    percent = 100 * probability
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if 99.9 < percent < 100 else f"{percent:.1f} %"


def show_decimals(value: float | None) -> str:
    """A number with three decimals and a true minus; a dash when there is none."""
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")
