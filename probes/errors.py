"""The one error that a person can mend: what was got, what was wanted, what to do."""

from __future__ import annotations

# Characters of a message. What others say of their files can repeat all that stands in them: the middle is left out,
# for the beginning says which file and the end what to do.
LONGEST = 1200
ENDING = 300


class UserError(Exception):
    """Raised for input, files or settings that a person can put right.

    The message is one line that names what was got, what was wanted and what to do. The command line prints
    it with exit code 2 and pages show it in place; every other exception is a defect of this project and surfaces
    with its traceback.
    """

    def __init__(self, message: str = "") -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST - ENDING]} … {message[-ENDING:]}"
        super().__init__(message)
