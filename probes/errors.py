"""The one error that a person can mend: what was got, what was wanted, what to do."""


class UserError(Exception):
    """Raised for input, files or settings that a person can put right.

    The message is one line that names what was got, what was wanted and what to do. The command line prints
    it with exit code 2 and pages show it in place; every other exception is a defect of this project and surfaces
    with its traceback.
    """
