"""What a command is: a name, one sentence, an example, its options, and a function from options to an answer."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PROGRAM = "memory-circuits"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: `document` for machines (JSON), `text` for people, `code` the exit code."""

    document: Any
    text: str
    code: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """One command; a name of two words (`demo train`) belongs to the family of its first.

    `declare` adds the options to a parser; `answer` does the work and raises UserError for what a person can mend.
    """

    name: str
    summary: str
    example: str
    declare: Callable[[argparse.ArgumentParser], None]
    answer: Callable[[argparse.Namespace], Answer]


def list_choices(table: dict[str, Any]) -> str:
    """Help text of a table of choices: each name with its label."""
    return "; ".join(f"{name}: {choice.label}" for name, choice in table.items())
