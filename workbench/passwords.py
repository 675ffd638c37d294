"""One password for everyone who may open the app: kept as a slow hash, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from probes.errors import UserError

# Variable of the server's environment that holds the hash.
PASSWORD = "MEMORY_CIRCUITS_PASSWORD"
SHORTEST, LONGEST = 12, 1000
# scrypt's cost: about 16 MB and some hundredths of a second for each try.
COST, BLOCK, LANES = 1 << 14, 8, 1


def read_password(path: str) -> str:
    """First line of a file. Raises UserError when it cannot be read or is too short to withstand guessing."""
    try:
        line = Path(path).expanduser().read_text(encoding="utf-8").splitlines()[:1]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--password-file: cannot read {path} ({error}): give a file whose first line it is") from None
    password = line[0].strip() if line else ""
    if not SHORTEST <= len(password) <= LONGEST:
        raise UserError(f"--password-file: the password has {len(password)} characters: take {SHORTEST} or more")
    return password


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Salt and hash of a password as text, from which the password cannot be read back."""
    salt = salt or secrets.token_bytes(16)
    found = hashlib.scrypt(password.encode(), salt=salt, n=COST, r=BLOCK, p=LANES)
    return f"{salt.hex()}:{found.hex()}"


def check_password(password: str, hashed: str) -> bool:
    """Whether a password is the one of `hash_password`'s text."""
    salt, _, _ = hashed.partition(":")
    return hmac.compare_digest(hash_password(password[:LONGEST], bytes.fromhex(salt)), hashed)
