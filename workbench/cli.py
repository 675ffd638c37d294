"""The command line: finds the command, prints its answer, and turns what a person can mend into one line.

Exit codes: 0 done, 1 done and the answer is no (`replay` with numbers that moved, `doctor` with something broken),
2 something a person can mend, 130 stopped with Ctrl-C, 141 the reader of the output went away.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Sequence

from probes.errors import UserError
from workbench.commands.command import PROGRAM, Answer
from workbench.commands.terminal import clean_text

# What a disk refuses with: full, over quota, a file too large, read-only, not allowed, broken, a name too long.
DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG
)  # fmt: skip


def print_answer(answer: Answer, as_json: bool) -> None:
    """Print an answer on standard output; one without a document has printed what there was already."""
    if answer.document is None:
        return
    if as_json:
        print(json.dumps(answer.document, indent=1, sort_keys=True, allow_nan=False))
    else:
        print(answer.text)


def print_error(message: str, as_json: bool) -> None:
    """Print one line on standard error."""
    line = clean_text(message)
    print(json.dumps({"error": line}) if as_json else f"{PROGRAM}: {line}", file=sys.stderr)


def describe_refusal(error: OSError) -> str:
    """What a disk refused, and what to do; an error without a file is of the output."""
    if error.filename is None:
        # Nothing more can be written there, not even at the end.
        discard_output()
    if error.errno == errno.ENAMETOOLONG:
        return f"a file cannot have a name as long as {str(error.filename or '')[:80]!r}…: choose a shorter one"
    place = "standard output" if error.filename is None else str(error.filename)
    return f"cannot use {place}: {error.strerror}; make room, or choose a place that may be written"


def open_streams() -> None:
    """Let a stream that cannot show a character show its escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Point standard output nowhere, so that the interpreter's last flush cannot fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on these arguments (the process's own when left out) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    open_streams()
    try:
        # Here, so that Ctrl-C while Python is still reading our modules ends in one line too.
        from workbench.commands.parsing import parse_options

        options = parse_options(given)
        answer: Answer = options.command.answer(options)
        print_answer(answer, as_json)
        sys.stdout.flush()
    except UserError as error:
        print_error(str(error), as_json)
        return 2
    except BrokenPipeError:
        discard_output()
        return 141
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print_error(describe_refusal(error), as_json)
        return 2
    except KeyboardInterrupt:
        print_error("stopped; nothing was left half-written", as_json)
        return 130
    return answer.code


if __name__ == "__main__":
    sys.exit(main())
